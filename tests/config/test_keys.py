"""Keys and clients: what is read, what is refused, and that no message says a key."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.config.keys import is_key, is_tenant_name, parse_keys, read_clients, read_keys
from voice_llm.errors import ConfigError

pytestmark = pytest.mark.unit

TENANTS = st.text(st.characters(exclude_characters=":,"), min_size=1, max_size=20).filter(
    lambda name: is_tenant_name(name) and not name.startswith("#")
)
KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=","), min_size=1, max_size=40)


def write(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "people"
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    return file


@given(people=st.dictionaries(KEYS, TENANTS, min_size=1))
def test_what_is_written_is_read_again(people: dict[str, str]) -> None:
    assert parse_keys(",".join(f"{tenant}:{key}" for key, tenant in people.items())) == people


@given(text=st.text())
def test_any_text_is_read_or_refused_and_every_key_can_be_sent(text: str) -> None:
    try:
        keys = parse_keys(text)
    except ConfigError:
        return
    assert all(is_key(key) and is_tenant_name(tenant) for key, tenant in keys.items())


def test_tenant_may_have_several_keys_and_a_key_colons() -> None:
    assert parse_keys(" acme:a1 , şube:a:b:c,acme:a2") == {"a1": "acme", "a:b:c": "şube", "a2": "acme"}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "entry 1 "),
        ("s3cret", "entry 1 "),
        (":s3cret", "entry 1 "),
        ("acme:", "entry 1 "),
        ("acme:s3cret,", "entry 2 "),
        ("acme:a,b,globex:s3cret", "entry 2 "),
        ("acme:s3cret ş", "entry 1 "),
        ("acme:a s3cret", "entry 1 "),
        ("a\x07cme:s3cret", "entry 1 "),
        ("acme:s3cret,globex:s3cret", "entry 2 repeats a key"),
    ],
)
def test_what_is_no_key_is_refused_by_its_place_and_never_said(text: str, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_keys(text)
    assert str(caught.value).startswith(place)
    assert "s3cret" not in str(caught.value)


def test_file_has_a_key_a_line_and_comments(tmp_path: Path) -> None:
    file = write(tmp_path, "\ufeff# gateways\n\nacme:a1\r\n  globex : b1  \n # acme:old\n")
    assert read_keys(file) == {"a1": "acme", "b1": "globex"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no key in it"),
        ("# none yet\n", "there is no key in it"),
        ("acme:a1\ns3cret\n", "line 2 is not"),
        ("acme:a1,globex:s3cret\n", "line 1 is not"),
        ("acme\ns3cret:\n", "line 1 is not"),
    ],
)
def test_bad_file_is_refused_by_name_and_line(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_keys(file)
    assert str(caught.value).startswith(f"{file}: {said}")
    assert "s3cret" not in str(caught.value)


def test_json_is_not_taken_for_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is JSON; allowed is one tenant:key a line"):
        read_keys(write(tmp_path, '{"acme": "s3cret"}'))


def test_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent cannot be read: No such file"):
        read_keys(tmp_path / "absent")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_clients(tmp_path / "binary")


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o604, True), (0o640, False), (0o600, False)])
def test_file_that_every_user_can_read_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        read_keys(write(tmp_path, "acme:s3cret", mode))
    assert ("every user of this machine can read it" in caplog.text) == warned
    assert "s3cret" not in caplog.text


def test_clients_are_names_with_their_tenants(tmp_path: Path) -> None:
    file = write(tmp_path, '{"gateway.acme.example": "acme", "Gateway İstanbul": "şube"}')
    assert read_clients(file) == {"gateway.acme.example": "acme", "Gateway İstanbul": "şube"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "names no certificate"),
        ("[]", "must hold a JSON object"),
        ('{"a": 1}', "'a' must name a tenant"),
        ('{"a": ""}', "'a' must name a tenant"),
        ('{"a": ["b"]}', "'a' must name a tenant"),
        ('{"": "b"}', "'' must name a tenant"),
        ('{"a": "b", "a": "c"}', "given twice"),
        ("{", "line 1"),
    ],
)
def test_bad_clients_are_refused_with_the_files_name(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_clients(file)
    assert str(file) in str(caught.value)
    assert said in str(caught.value)
