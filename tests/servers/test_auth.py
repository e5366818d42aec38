"""Authenticator: keys and certificates decide the tenant; a header can only repeat it."""

from __future__ import annotations

import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.config import ServerConfig
from voice_llm.errors import ForbiddenError, InvalidRequestError, UnauthenticatedError
from voice_llm.servers import auth
from voice_llm.servers.auth import Authenticator
from voice_llm.servers.identity import Identity

pytestmark = pytest.mark.unit

KEYS = {"first-key": "acme", "second-key": "globex", "third-key": "acme"}
ANYONE = Authenticator(ServerConfig())
KEYED = Authenticator(ServerConfig(api_keys=KEYS))
LISTED = Authenticator(ServerConfig(clients={"gateway.acme.example": "acme", "gateway.globex.example": "globex"}))


def ask(authenticator: Authenticator, **given: Any) -> Identity:
    return authenticator.by_key(**{"authorization": None, "tenant": None, "loopback": False, **given})


def ask_with_certificate(
    authenticator: Authenticator, *names: str, common_name: str | None = None, **given: Any
) -> Identity:
    """Ask with a certificate whose names are the common one, if it has one, and the alternative ones."""
    all_names = names if common_name is None else (common_name, *names)
    return authenticator.by_certificate(
        common_name=common_name, names=all_names, **{"tenant": None, "loopback": False, **given}
    )


class TestWithoutKeys:
    @pytest.mark.parametrize("loopback", [True, False])
    def test_silence_is_the_default_tenant(self, loopback: bool) -> None:
        assert ask(ANYONE, loopback=loopback) == Identity("default", "anonymous")

    def test_header_is_believed_on_loopback(self) -> None:
        assert ask(ANYONE, tenant="Şube-İstanbul", loopback=True) == Identity("Şube-İstanbul", "anonymous")

    def test_header_of_another_machine_may_say_default_only(self) -> None:
        assert ask(ANYONE, tenant="default").tenant == "default"
        with pytest.raises(ForbiddenError, match="x-tenant-id"):
            ask(ANYONE, tenant="acme")

    def test_key_that_nobody_asked_for_changes_nothing(self) -> None:
        assert ask(ANYONE, authorization="Bearer whatever", tenant="acme", loopback=True).tenant == "acme"

    @pytest.mark.parametrize("name", ["", " ", " acme", "acme ", "a" * 129, "a\nb", "a\x00", "\udce4", "a\u200bb"])
    def test_name_that_cannot_be_a_tenants_is_refused_by_the_headers_name(self, name: str) -> None:
        with pytest.raises(InvalidRequestError) as caught:
            ask(ANYONE, tenant=name, loopback=True)
        assert caught.value.param == "x-tenant-id"
        assert ask(ANYONE, tenant="a" * 128, loopback=True).tenant == "a" * 128


class TestKeys:
    @pytest.mark.parametrize(("key", "tenant"), KEYS.items())
    def test_key_decides_the_tenant(self, key: str, tenant: str) -> None:
        assert ask(KEYED, authorization=f"Bearer {key}").tenant == tenant

    @pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer"])
    def test_case_of_the_scheme_does_not_matter(self, scheme: str) -> None:
        assert ask(KEYED, authorization=f"{scheme}   second-key").tenant == "globex"

    def test_subprotocol_carries_a_key(self) -> None:
        assert ask(KEYED, subprotocols=["chat", "bearer.second-key"]).tenant == "globex"

    def test_header_goes_before_the_subprotocol(self) -> None:
        assert ask(KEYED, authorization="Bearer first-key", subprotocols=["bearer.second-key"]).tenant == "acme"
        with pytest.raises(UnauthenticatedError):
            ask(KEYED, authorization="Bearer wrong", subprotocols=["bearer.second-key"])

    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"authorization": ""},
            {"authorization": "Bearer"},
            {"authorization": "Bearer "},
            {"authorization": "first-key"},
            {"authorization": "Basic first-key"},
            {"authorization": "Bearer first-ke"},
            {"authorization": "Bearer first-key2"},
            {"authorization": "Bearer FIRST-KEY"},
            {"authorization": "Bearer first-key,second-key"},
            {"authorization": "Bearer \udcff\ud800"},
            {"subprotocols": ["bearer."]},
            {"subprotocols": ["first-key"]},
            {"subprotocols": ["Bearer.first-key"]},
            {"tenant": "acme"},
        ],
    )
    @pytest.mark.parametrize("loopback", [True, False])
    def test_no_key_or_a_wrong_one_is_unauthenticated_wherever_it_comes_from(
        self, given: dict[str, Any], loopback: bool
    ) -> None:
        with pytest.raises(UnauthenticatedError):
            ask(KEYED, **given, loopback=loopback)

    def test_header_may_repeat_the_keys_tenant_and_name_no_other(self) -> None:
        assert ask(KEYED, authorization="Bearer first-key", tenant="acme").tenant == "acme"
        with pytest.raises(ForbiddenError):
            ask(KEYED, authorization="Bearer first-key", tenant="globex", loopback=True)
        with pytest.raises(InvalidRequestError):
            ask(KEYED, authorization="Bearer first-key", tenant="")

    def test_subject_tells_keys_apart_without_any_part_of_them(self) -> None:
        subjects = [ask(KEYED, authorization=f"Bearer {key}").subject for key in KEYS]
        assert subjects == ["key 1", "key 2", "key 3"]

    @pytest.mark.parametrize("key", [*KEYS, "wrong"])
    def test_every_key_is_compared_whichever_is_given(self, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
        compared: list[tuple[int, int]] = []

        def compare(a: bytes, b: bytes) -> bool:
            compared.append((len(a), len(b)))
            return hmac.compare_digest(a, b)

        class Watched:
            compare_digest = staticmethod(compare)

        monkeypatch.setattr(auth, "hmac", Watched)
        if key == "wrong":
            with pytest.raises(UnauthenticatedError):
                ask(KEYED, authorization="Bearer wrong")
        else:
            ask(KEYED, authorization=f"Bearer {key}")
        assert compared == [(32, 32)] * len(KEYS)

    @given(key=st.text(max_size=30))
    def test_only_the_very_keys_are_let_in(self, key: str) -> None:
        if key.strip() not in KEYS:
            with pytest.raises(UnauthenticatedError):
                ask(KEYED, authorization=f"Bearer {key}")

    def test_keys_are_not_kept_nor_shown(self) -> None:
        assert repr(KEYED) == "<Authenticator [keys: 3 | certificates: by common name]>"
        held = repr([getattr(KEYED, name) for name in vars(KEYED)])
        assert not any(key in held for key in KEYS)


class TestCertificates:
    def test_known_name_decides_the_tenant_wherever_it_stands(self) -> None:
        identity = ask_with_certificate(LISTED, "some-host", "gateway.globex.example")
        assert identity == Identity("globex", "certificate gateway.globex.example")

    def test_unknown_name_is_forbidden(self) -> None:
        with pytest.raises(ForbiddenError, match="belongs to nobody"):
            ask_with_certificate(LISTED, "gateway.other.example", loopback=True)
        with pytest.raises(ForbiddenError):
            ask_with_certificate(LISTED)

    def test_certificate_of_two_tenants_is_forbidden(self) -> None:
        with pytest.raises(ForbiddenError, match="several tenants"):
            ask_with_certificate(LISTED, "gateway.acme.example", "gateway.globex.example")

    def test_common_name_is_the_tenant_without_a_list(self) -> None:
        assert ask_with_certificate(ANYONE, "globex", common_name="acme").tenant == "acme"

    @pytest.mark.parametrize("common_name", [None, "", "a\nb", "a" * 129])
    def test_certificate_without_a_usable_common_name_is_forbidden_without_a_list(
        self, common_name: str | None
    ) -> None:
        with pytest.raises(ForbiddenError, match="common name"):
            ask_with_certificate(ANYONE, "acme", common_name=common_name)

    def test_metadata_may_repeat_the_certificates_tenant_and_name_no_other(self) -> None:
        assert ask_with_certificate(LISTED, "gateway.acme.example", tenant="acme").tenant == "acme"
        with pytest.raises(ForbiddenError):
            ask_with_certificate(LISTED, "gateway.acme.example", tenant="globex", loopback=True)

    def test_certificate_goes_before_a_key(self) -> None:
        both = Authenticator(ServerConfig(api_keys=KEYS))
        assert ask_with_certificate(both, common_name="initech", authorization="Bearer first-key").tenant == "initech"

    def test_plain_text_is_asked_for_a_key_where_there_are_keys(self) -> None:
        with pytest.raises(UnauthenticatedError):
            KEYED.by_certificate(names=None, tenant="acme", loopback=True)
        identity = KEYED.by_certificate(names=None, authorization="Bearer first-key", tenant=None, loopback=False)
        assert identity.tenant == "acme"

    def test_plain_text_without_keys_is_believed_on_loopback_only(self) -> None:
        assert ANYONE.by_certificate(names=None, tenant="acme", loopback=True).tenant == "acme"
        with pytest.raises(ForbiddenError):
            ANYONE.by_certificate(names=None, tenant="acme", loopback=False)
