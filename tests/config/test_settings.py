"""Settings: the environment over the profile, and what it is refused for."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from voice_llm.config import ServerConfig, TlsFiles
from voice_llm.config.profile import ModelSource, Profile
from voice_llm.config.settings import ENV_PREFIX, Settings
from voice_llm.errors import ConfigError

pytestmark = pytest.mark.unit


def set_variables(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(ENV_PREFIX + name, value)


@pytest.fixture
def profile() -> Profile:
    return Profile.load("smollm2_135m_demo")


def test_silent_environment_leaves_the_profile_as_it_is(profile: Profile) -> None:
    assert Settings().apply(profile) == profile


def test_variables_override_the_profile(monkeypatch: pytest.MonkeyPatch, profile: Profile) -> None:
    set_variables(monkeypatch, THREADS="3", GPU_LAYERS="0", CONTEXT_SIZE="2048", MAX_BATCH_SIZE="16")
    engine = Settings().apply(profile).engine
    assert (engine.threads, engine.gpu_layers, engine.context_per_call, engine.sequences) == (3, 0, 2048, 16)
    assert engine.batch_tokens == profile.engine.batch_tokens


def test_auto_threads_and_model_path_override_the_profile(monkeypatch: pytest.MonkeyPatch, profile: Profile) -> None:
    set_variables(monkeypatch, THREADS="Auto", MODEL_PATH="/srv/a.gguf", LOG_LEVEL="DEBUG")
    settings = Settings()
    changed = settings.apply(profile.model_copy(update={"engine": profile.engine.replace(threads=7)}))
    assert changed.engine.threads == "auto"
    assert changed.model == ModelSource(path="/srv/a.gguf")
    assert settings.log_level == "debug"


def test_dotenv_is_read_and_the_environment_goes_before_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{ENV_PREFIX}THREADS=2\n{ENV_PREFIX}MAX_BATCH_SIZE=4\nOTHER_SERVICE=x\n")
    set_variables(monkeypatch, THREADS="5")
    settings = Settings()
    assert (settings.threads, settings.max_batch_size) == (5, 4)


def test_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, THREADS="", MODEL_PATH="", LOG_LEVEL="")
    settings = Settings()
    assert (settings.threads, settings.model_path, settings.log_level) == (None, None, "warning")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("THREADS", "many", 'a whole number from 1 to 512 or "auto"'),
        ("GPU_LAYERS", "-2", "a whole number from -1"),
        ("CONTEXT_SIZE", "8k", "a whole number from 64"),
        ("MAX_BATCH_SIZE", "0", "a whole number from 1 to 256"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_bad_variable_is_refused_by_name_with_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    set_variables(monkeypatch, **{name: value})
    with pytest.raises(ConfigError) as caught:
        Settings()
    assert str(caught.value).startswith(f"{ENV_PREFIX}{name}: ")
    assert value in str(caught.value)
    assert allowed in str(caught.value)
    assert caught.value.param == ENV_PREFIX + name


def test_all_bad_variables_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, THREADS="many", HTTP_PORT="70000", TREADS="1")
    with pytest.raises(ConfigError) as caught:
        Settings()
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        ENV_PREFIX + name for name in ("TREADS", "THREADS", "HTTP_PORT")
    ]


class TestNames:
    def test_unknown_variable_is_refused_with_the_nearest_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        set_variables(monkeypatch, GRPC_PROT="1")
        with pytest.raises(ConfigError) as caught:
            Settings()
        assert str(caught.value) == (
            f"{ENV_PREFIX}GRPC_PROT: unknown variable, set in the environment; did you mean {ENV_PREFIX}GRPC_PORT?"
        )

    def test_unknown_variable_of_dotenv_is_refused_and_says_where(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text(f"{ENV_PREFIX}WORKKER_ID=w1\n")
        with pytest.raises(ConfigError, match=r"WORKKER_ID: unknown variable, set in \.env; "):
            Settings()

    @pytest.mark.parametrize(
        "name",
        [
            "LORA_DIR",
            "ENABLE_BATCHING",
            "BATCH_TIMEOUT_MS",
            "ENABLE_WARM_UP",
            "MODEL_URL_TEMPLATE",
            "NUMA",
            "DEFAULT_RAG_PROMPT_LOW",
            "DEFAULT_RAG_PROMPT_HIGH",
        ],
    )
    def test_what_the_other_service_reads_and_this_one_does_not_is_refused_by_name(
        self, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        set_variables(monkeypatch, **{name: "1"})
        with pytest.raises(ConfigError, match=f"{ENV_PREFIX}{name}: has no effect here, since "):
            Settings()
        set_variables(monkeypatch, **{name: ""})
        Settings()

    def test_value_of_an_unknown_variable_is_not_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        set_variables(monkeypatch, API_KEY="acme:s3cret")
        with pytest.raises(ConfigError) as caught:
            Settings()
        assert "s3cret" not in str(caught.value)

    def test_case_does_not_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("llm_llama_service_threads", "3")
        assert Settings().threads == 3

    def test_empty_variable_lets_dotenv_speak(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text(f"{ENV_PREFIX}THREADS=2\n{ENV_PREFIX}HTTP_PORT=\n")
        set_variables(monkeypatch, THREADS="")
        settings = Settings()
        assert (settings.threads, settings.http_port) == (2, None)
        assert settings.origin_of("threads") == ".env"

    def test_dotenv_that_cannot_be_read_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigError, match=r"\.env cannot be read"):
            Settings()


class TestProfile:
    @pytest.mark.parametrize(
        ("name", "text", "field", "value"),
        [
            ("THREADS_BATCH", "6", "threads_batch", 6),
            ("KV_OFFLOAD", "False", "kv_offload", False),
            ("KV_OFFLOAD", "1", "kv_offload", True),
            ("USE_MMAP", "off", "use_mmap", False),
            ("PHYSICAL_BATCH_SIZE", "256", "micro_batch_tokens", 256),
            ("PHYSICAL_BATCH_SIZE", "auto", "micro_batch_tokens", "auto"),
        ],
    )
    def test_variable_sets_the_engines_field(
        self, monkeypatch: pytest.MonkeyPatch, profile: Profile, name: str, text: str, field: str, value: object
    ) -> None:
        set_variables(monkeypatch, **{name: text})
        assert Settings().apply(profile).engine == profile.engine.replace(**{field: value})

    def test_large_physical_batch_raises_the_batch(self, monkeypatch: pytest.MonkeyPatch, profile: Profile) -> None:
        set_variables(monkeypatch, PHYSICAL_BATCH_SIZE="2048")
        engine = Settings().apply(profile).engine
        assert (engine.micro_batch_tokens, engine.batch_tokens) == (2048, 2048)

    @pytest.mark.parametrize(
        ("name", "text", "field", "value"),
        [
            ("MAX_TOKENS", "77", "max_tokens", 77),
            ("TEMPERATURE", "0.7", "temperature", 0.7),
            ("TOP_K", "5", "top_k", 5),
            ("TOP_P", "0.5", "top_p", 0.5),
            ("MIN_P", "0", "min_p", 0),
            ("REPEAT_PENALTY", "1.1", "repetition_penalty", 1.1),
            ("REPETITION_PENALTY", "1.2", "repetition_penalty", 1.2),
            ("PRESENCE_PENALTY", "0.3", "presence_penalty", 0.3),
            ("FREQUENCY_PENALTY", "-0.3", "frequency_penalty", -0.3),
        ],
    )
    def test_default_sets_the_samplings_field(
        self, monkeypatch: pytest.MonkeyPatch, profile: Profile, name: str, text: str, field: str, value: float
    ) -> None:
        set_variables(monkeypatch, **{f"DEFAULT_{name}": text})
        assert Settings().apply(profile).sampling == profile.sampling.replace(**{field: value})

    def test_prompts_replace_the_profiles(self, monkeypatch: pytest.MonkeyPatch, profile: Profile) -> None:
        rag_prompt = "Bilgi: {{rag_context}} Soru: {{user_prompt}}"
        set_variables(monkeypatch, DEFAULT_SYSTEM_PROMPT="Kısa yanıt ver.", DEFAULT_RAG_PROMPT=rag_prompt)
        changed = Settings().apply(profile)
        assert (changed.system_prompt, changed.rag_prompt) == ("Kısa yanıt ver.", rag_prompt)

    @pytest.mark.parametrize(
        ("name", "value", "allowed"),
        [
            ("KV_OFFLOAD", "maybe", "true or false"),
            ("USE_MMAP", "2", "true or false"),
            ("PHYSICAL_BATCH_SIZE", "0", "from 1 to"),
            ("THREADS_BATCH", "1.5", "a whole number"),
            ("DEFAULT_TEMPERATURE", "hot", "must be a number"),
            ("DEFAULT_TEMPERATURE", "nan", "must be between"),
            ("DEFAULT_TEMPERATURE", "11", "between 0 and 10"),
            ("DEFAULT_MAX_TOKENS", "0", "between 1 and"),
            ("DEFAULT_TOP_K", "1.5", "a whole number"),
            ("DEFAULT_RAG_PROMPT", "{{rag_context}}", "{{user_prompt}} is missing"),
        ],
    )
    def test_bad_value_is_refused_by_the_variables_name(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
    ) -> None:
        set_variables(monkeypatch, **{name: value})
        with pytest.raises(ConfigError) as caught:
            Settings()
        assert str(caught.value).startswith(f"{ENV_PREFIX}{name}: ")
        assert allowed in str(caught.value)

    def test_two_names_of_one_setting_must_agree(self, monkeypatch: pytest.MonkeyPatch, profile: Profile) -> None:
        set_variables(monkeypatch, DEFAULT_REPEAT_PENALTY="1.1", DEFAULT_REPETITION_PENALTY="1.10")
        assert Settings().apply(profile).sampling.repetition_penalty == 1.1
        set_variables(monkeypatch, DEFAULT_REPETITION_PENALTY="1.2")
        with pytest.raises(ConfigError, match=f"REPEAT_PENALTY and {ENV_PREFIX}DEFAULT_REPETITION_PENALTY"):
            Settings().apply(profile)

    @pytest.mark.parametrize("spelling", ["warn", "WARN", "Warning"])
    def test_spellings_of_the_other_service_name_a_level(self, monkeypatch: pytest.MonkeyPatch, spelling: str) -> None:
        set_variables(monkeypatch, LOG_LEVEL=spelling)
        assert Settings().log_level == "warning"


class TestModel:
    def source(self, monkeypatch: pytest.MonkeyPatch, profile: Profile, **values: str) -> ModelSource:
        set_variables(monkeypatch, **values)
        return Settings().apply(profile).model

    def test_file_of_the_folder_is_used(self, monkeypatch: pytest.MonkeyPatch, profile: Profile) -> None:
        source = self.source(monkeypatch, profile, MODEL_DIR="/models", MODEL_FILENAME="a.gguf")
        assert source == ModelSource(path="/models/a.gguf")

    def test_file_of_the_repository_is_used(self, monkeypatch: pytest.MonkeyPatch, profile: Profile) -> None:
        source = self.source(monkeypatch, profile, MODEL_ID="owner/name", MODEL_FILENAME="a.gguf")
        assert source == ModelSource(repo="owner/name", file="a.gguf")

    def test_folder_goes_before_the_repository_where_it_has_the_file(
        self, monkeypatch: pytest.MonkeyPatch, profile: Profile, tmp_path: Path
    ) -> None:
        place = {"MODEL_ID": "owner/name", "MODEL_DIR": str(tmp_path), "MODEL_FILENAME": "a.gguf"}
        assert self.source(monkeypatch, profile, **place) == ModelSource(repo="owner/name", file="a.gguf")
        (tmp_path / "a.gguf").touch()
        assert self.source(monkeypatch, profile, **place) == ModelSource(path=str(tmp_path / "a.gguf"))

    @pytest.mark.parametrize("other", ["MODEL_DIR", "MODEL_ID", "MODEL_FILENAME"])
    def test_path_contradicts_the_other_three(
        self, monkeypatch: pytest.MonkeyPatch, profile: Profile, other: str
    ) -> None:
        with pytest.raises(ConfigError, match=f"{ENV_PREFIX}MODEL_PATH and {ENV_PREFIX}{other} are both given"):
            self.source(monkeypatch, profile, MODEL_PATH="/a.gguf", **{other: "x"})

    @pytest.mark.parametrize(
        ("name", "needed"),
        [("MODEL_DIR", "MODEL_FILENAME"), ("MODEL_ID", "MODEL_FILENAME"), ("MODEL_FILENAME", "MODEL_DIR")],
    )
    def test_part_of_a_place_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, profile: Profile, name: str, needed: str
    ) -> None:
        with pytest.raises(ConfigError, match=f"^{ENV_PREFIX}{name} is 'x', and needs {ENV_PREFIX}{needed}"):
            self.source(monkeypatch, profile, **{name: "x"})


class TestServer:
    def test_silent_environment_serves_the_defaults(self) -> None:
        assert Settings().server() == ServerConfig()

    def test_variables_set_the_servers_fields_and_flags_go_before_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        set_variables(
            monkeypatch,
            LISTEN_ADDRESS="0.0.0.0",
            HTTP_PORT="1",
            PORT_GRPC="2",
            METRICS_PORT="3",
            WS_PORT="4",
            DRAIN_S="1.5",
            RESUME_S="2",
            CALL_IDLE_S="3",
            MAX_REQUEST_BYTES="4096",
            MAX_MESSAGES="5",
            MAX_REPLY_TOKENS="6",
            MAX_CALLS_PER_TENANT="7",
            CORS_ORIGINS="https://a.example, http://b.example:81",
            API_KEYS="acme:s3cret",
        )
        expected = ServerConfig(
            host="0.0.0.0",
            http_port=1,
            grpc_port=2,
            metrics_port=3,
            ws_port=4,
            drain_s=1.5,
            resume_s=2,
            call_idle_s=3,
            max_request_bytes=4096,
            max_messages=5,
            max_reply_tokens=6,
            max_calls_per_tenant=7,
            cors_origins=("https://a.example", "http://b.example:81"),
            api_keys={"s3cret": "acme"},
        )
        assert Settings().server() == expected
        assert Settings().server(host=None, http_port=0, drain_s=9) == expected.replace(http_port=0, drain_s=9)

    def test_port_may_be_another_ones_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        set_variables(monkeypatch, HTTP_PORT="16071")
        with pytest.raises(ConfigError, match="grpc_port is 16071"):
            Settings().server()
        assert Settings().server(grpc_port=16070).http_port == 16071

    def test_two_names_of_the_grpc_port_must_agree(self, monkeypatch: pytest.MonkeyPatch) -> None:
        set_variables(monkeypatch, GRPC_PORT="5", PORT_GRPC="5")
        assert Settings().server().grpc_port == 5
        set_variables(monkeypatch, PORT_GRPC="6")
        with pytest.raises(ConfigError, match=f"{ENV_PREFIX}GRPC_PORT and {ENV_PREFIX}PORT_GRPC"):
            Settings().server()

    @pytest.mark.parametrize(
        ("name", "value", "allowed"),
        [
            ("HTTP_PORT", "70000", "from 0 to 65535"),
            ("WS_PORT", "http", "a whole number"),
            ("DRAIN_S", "soon", "a number of seconds"),
            ("MAX_REQUEST_BYTES", "1k", "a whole number from 1024"),
            ("MAX_CALLS_PER_TENANT", "0", "from 1"),
            ("LISTEN_ADDRESS", "a b", "an address"),
            ("CORS_ORIGINS", "a.example", "scheme://host"),
        ],
    )
    def test_bad_value_is_refused_by_the_variables_name(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
    ) -> None:
        set_variables(monkeypatch, **{name: value})
        with pytest.raises(ConfigError) as caught:
            Settings()
        assert str(caught.value).startswith(f"{ENV_PREFIX}{name}: ")
        assert value in str(caught.value)
        assert allowed in str(caught.value)

    @pytest.mark.parametrize("keys", ["s3cret", "s3cret:", "acme:s3cret,globex:s3cret", "acme:s3cret,,"])
    def test_bad_keys_are_refused_by_name_and_masked(self, monkeypatch: pytest.MonkeyPatch, keys: str) -> None:
        set_variables(monkeypatch, API_KEYS=keys)
        with pytest.raises(ConfigError) as caught:
            Settings()
        assert str(caught.value).startswith(f"{ENV_PREFIX}API_KEYS: entry ")
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))

    def test_keys_are_in_no_repr(self, monkeypatch: pytest.MonkeyPatch) -> None:
        set_variables(monkeypatch, API_KEYS="acme:s3cret")
        settings = Settings()
        assert "s3cret" not in f"{settings!r}{settings}{settings.server()!r}{settings.model_dump()}"

    def test_keys_and_clients_come_from_files(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "keys").write_text("acme:a1\n")
        (tmp_path / "keys").chmod(0o600)
        (tmp_path / "clients").write_text('{"gateway": "acme"}')
        set_variables(monkeypatch, API_KEYS_FILE="keys", CLIENTS_FILE="clients")
        server = Settings().server()
        assert (server.api_keys, server.clients) == ({"a1": "acme"}, {"gateway": "acme"})
        set_variables(monkeypatch, API_KEYS="acme:a2")
        with pytest.raises(ConfigError, match=f"{ENV_PREFIX}API_KEYS and {ENV_PREFIX}API_KEYS_FILE are both given"):
            Settings().server()


class TestTls:
    NAMES = ("GRPC_TLS_CA_PATH", f"{ENV_PREFIX}CERT_PATH", f"{ENV_PREFIX}KEY_PATH")

    @pytest.fixture
    def files(self, tmp_path: Path) -> list[Path]:
        files = [tmp_path / name for name in ("ca.pem", "server.pem", "server.key")]
        for file in files:
            file.touch()
        return files

    def test_three_files_make_mutual_tls(self, monkeypatch: pytest.MonkeyPatch, files: list[Path]) -> None:
        for name, file in zip(self.NAMES, files, strict=True):
            monkeypatch.setenv(name, str(file))
        assert Settings().server().tls == TlsFiles(*files)
        monkeypatch.setenv("ENV", "Production")
        assert Settings().server().production

    @pytest.mark.parametrize("missing", NAMES)
    @pytest.mark.parametrize("production", [True, False])
    def test_two_of_three_are_refused_by_the_missing_ones_name(
        self, monkeypatch: pytest.MonkeyPatch, files: list[Path], missing: str, production: bool
    ) -> None:
        for name, file in zip(self.NAMES, files, strict=True):
            if name != missing:
                monkeypatch.setenv(name, str(file))
        if production:
            monkeypatch.setenv("ENV", "production")
        with pytest.raises(ConfigError, match=f"^{missing}: missing"):
            Settings().server()

    def test_production_without_tls_is_refused_and_names_all_three(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ENV", "production")
        with pytest.raises(ConfigError, match=f"^{', '.join(self.NAMES)}: missing; ENV is production"):
            Settings().server()
        monkeypatch.setenv("ENV", "staging")
        assert Settings().server() == ServerConfig()

    def test_files_only_a_server_needs_stop_nothing_else(
        self, monkeypatch: pytest.MonkeyPatch, files: list[Path], profile: Profile
    ) -> None:
        for name, file in zip(self.NAMES, files, strict=True):
            monkeypatch.setenv(name, str(file))
        files[1].unlink()
        assert Settings().apply(profile) == profile
        with pytest.raises(ConfigError, match=rf"^{self.NAMES[1]}: .*server\.pem cannot be read: No such file"):
            Settings().server()

    def test_prefix_belongs_to_neither_ca_nor_env(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("GRPC_TLS_CA_PATH", "ENV", "TLS_CA"):
            set_variables(monkeypatch, **{name: "x"})
            with pytest.raises(ConfigError, match=f"{ENV_PREFIX}{name}: unknown variable"):
                Settings()
            set_variables(monkeypatch, **{name: ""})
