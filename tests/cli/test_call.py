"""``voice-llm call``: what a newcomer and a script see of a call, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from voice_llm.cli.app import app, main
from voice_llm.errors import BackendError
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

Serve = Callable[[FakeBackend], dict[str, Any]]


def voice_llm(*arguments: str | Path, stdin: str = "") -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], input=stdin, catch_exceptions=False)


def events(result: Result) -> list[dict[str, Any]]:
    """Standard output as JSON lines, and nothing else in it."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def types(result: Result) -> list[str]:
    return [event["type"] for event in events(result)]


def assert_clear(result: Result, exit_code: int, *phrases: str) -> None:
    """The command says what is wrong in one line, and how it ends."""
    assert result.exit_code == exit_code
    (line,) = result.stderr.splitlines()
    assert line.startswith("voice-llm: ")
    for phrase in phrases:
        assert phrase in line
    assert "Traceback" not in result.output


class TestHelp:
    def test_root_names_its_commands(self) -> None:
        result = voice_llm("--help")
        assert result.exit_code == 0
        assert "The language-model engine for phone calls" in result.output
        assert "Hold a phone call in text and show how fast it is." in result.output

    def test_call_names_every_option_of_the_contract(self) -> None:
        result = voice_llm("call", "-h")
        assert result.exit_code == 0
        for option in ("--say", "--system", "--rag-context", "--no-prefill", "--json"):
            assert option in result.output
        for option in ("--profile", "--model", "--calls", "--context-per-call", "--threads", "--gpu-layers", "--kv"):
            assert option in result.output
        assert "Ctrl-D hangs up" in result.output
        assert 'voice-llm call --say "Hello?"' in result.output

    def test_version_is_one_line(self) -> None:
        result = voice_llm("--version")
        assert result.exit_code == 0
        assert result.stdout.split()[0] == "voice-llm"
        assert len(result.stdout.splitlines()) == 1

    def test_nothing_asked_shows_the_help(self) -> None:
        assert "Commands" in voice_llm().output


class TestRefusals:
    """What the user asked wrongly is exit code 2, what went wrong is 1; each is said in one line."""

    @pytest.mark.parametrize("arguments", [["--bogus"], ["--kv", "sideways"], ["--calls", "many"], ["extra"]])
    def test_unknown_option_or_value_is_a_usage_error(self, arguments: list[str]) -> None:
        result = voice_llm("call", *arguments)
        assert result.exit_code == 2
        assert arguments[0] in result.stderr
        assert "Traceback" not in result.output

    def test_unknown_profile_lists_those_that_there_are(self) -> None:
        assert_clear(voice_llm("call", "--profile", "nope"), 2, "'nope'", "smollm2_135m_demo")

    def test_unknown_key_of_a_profile_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.json"
        path.write_text(json.dumps({"name": "mine", "model": {"path": "m.gguf"}, "sistem": "x"}), encoding="utf-8")
        assert_clear(voice_llm("call", "--profile", path), 2, str(path), "'sistem'")

    @pytest.mark.parametrize(
        ("content", "phrase"), [(None, "model.gguf"), (b"garbage" * 99, "GGUF"), (b"GGUF\x03\0\0\0", "model.gguf")]
    )
    @pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
    def test_model_file_that_cannot_be_used_is_named(
        self, tmp_path: Path, content: bytes | None, phrase: str, as_json: bool
    ) -> None:
        """Missing, not a model, cut off."""
        path = tmp_path / "model.gguf"
        if content is not None:
            path.write_bytes(content)
        result = voice_llm("call", "--model", path, "--say", "x", *(["--json"] if as_json else []))
        if not as_json:
            assert_clear(result, 1, phrase)
            return
        assert result.exit_code == 1
        (error,) = events(result)
        assert (error["type"], error["code"], error["fatal"]) == ("error", "model_file", True)
        assert phrase in error["message"]
        assert result.stderr == ""

    def test_the_variables_model_file_goes_before_the_profiles(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("LLM_LLAMA_SERVICE_MODEL_PATH", str(tmp_path / "of-the-variable.gguf"))
        assert_clear(voice_llm("call", "--say", "x"), 1, "of-the-variable.gguf")
        assert_clear(voice_llm("call", "--model", tmp_path / "of-the-flag.gguf", "--say", "x"), 1, "of-the-flag.gguf")

    @pytest.mark.parametrize(
        ("arguments", "phrase"),
        [
            (["--threads", "two"], "--threads"),
            (["--threads", "0"], "threads"),
            (["--calls", "0"], "sequences"),
            (["--temperature", "99"], "temperature"),
            (["--max-tokens", "0"], "max_tokens"),
            (["--rag-context", "@gone.txt"], "gone.txt"),
            (["--system", "@gone.txt"], "gone.txt"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_value_that_is_not_allowed_is_named_before_anything_is_loaded(
        self, monkeypatch: pytest.MonkeyPatch, arguments: list[str], phrase: str
    ) -> None:
        monkeypatch.setattr("voice_llm.runtime.loading.load_backend", lambda *_: pytest.fail("a model was loaded"))
        assert_clear(voice_llm("call", *arguments, "--say", "x"), 2, phrase)

    def test_variable_that_is_not_allowed_is_named(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("LLM_LLAMA_SERVICE_THREADS", "two")
        monkeypatch.setattr("sys.argv", ["voice-llm", "call", "--say", "x"])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 2
        assert "LLM_LLAMA_SERVICE_THREADS" in capsys.readouterr().err


class TestOptions:
    def test_flags_reach_the_engine(self, serve: Serve, tmp_path: Path) -> None:
        asked = serve(FakeBackend())
        flags = ["--model", "m.gguf", "--calls", "3", "--context-per-call", "512", "--threads", "2", "--kv", "split"]
        assert voice_llm("call", "--say", "x", "--gpu-layers", "0", *flags).exit_code == 0
        assert asked["model"] == Path("m.gguf")
        engine = asked["profile"].engine
        assert (engine.sequences, engine.context_per_call, engine.gpu_layers) == (3, 512, 0)
        assert (engine.threads, engine.threads_batch, engine.kv_layout) == (2, 2, "split")

    def test_environment_goes_over_the_profile(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LLM_LLAMA_SERVICE_CONTEXT_SIZE", "1024")
        asked = serve(FakeBackend())
        assert voice_llm("call", "--say", "x").exit_code == 0
        assert asked["profile"].engine.context_per_call == 1024
        asked = serve(FakeBackend())
        assert voice_llm("call", "--say", "x", "--context-per-call", "512").exit_code == 0
        assert asked["profile"].engine.context_per_call == 512, "a flag goes over the environment"

    def test_texts_reach_the_prompt_from_the_line_and_from_files(self, serve: Serve, tmp_path: Path) -> None:
        prompts: list[str] = []

        def reply(prompt: str) -> str:
            prompts.append(prompt)
            return "Evet."

        (tmp_path / "facts.txt").write_text("Kargo yarın gelir.\n", encoding="utf-8")
        serve(FakeBackend(reply=reply))
        arguments = ["--system", "Arayan: Ayşe.", "--rag-context", "@facts.txt", "--say", "Nerede?"]
        assert voice_llm("call", *arguments).exit_code == 0
        assert all("Arayan: Ayşe." in p and "Kargo yarın gelir.<|im_end|>" in p for p in prompts)

    def test_longest_reply_is_cut_and_said_so(self, serve: Serve) -> None:
        serve(FakeBackend())
        end = events(voice_llm("call", "--say", "x", "--max-tokens", "3", "--json"))[-2]
        assert (end["finish_reason"], end["usage"]["completion_tokens"]) == ("length", 3)
        serve(FakeBackend())
        assert "cut at --max-tokens" in voice_llm("call", "--say", "x", "--max-tokens", "3").output


class TestJson:
    def test_lines_are_the_events_of_the_call_in_order(self, serve: Serve) -> None:
        serve(FakeBackend(reply=lambda _: "Tamam, şimdi bakıyorum. Yarın gelir."))
        result = voice_llm("call", "--json", "--say", "Nerede?", "--say", "Ne zaman?")
        assert result.exit_code == 0
        turn = ["chunk", "chunk", "turn_end"]
        assert types(result) == ["ready", *turn, *turn, "ended"]
        texts = [e["text"] for e in events(result) if e["type"] == "chunk"]
        assert "".join(texts[:2]) == "Tamam, şimdi bakıyorum. Yarın gelir."
        assert "şimdi" in result.stdout, "people read these lines too"
        ended = events(result)[-1]
        assert (ended["turns"], ended["reason"]) == (2, "hangup")
        assert result.stderr == ""

    def test_without_prefill_the_first_turn_pays(self, serve: Serve) -> None:
        runs = []
        for flag in ("--prefill", "--no-prefill"):
            serve(FakeBackend())
            runs.append(events(voice_llm("call", "--json", "--say", "x", "--system", "Kısa konuş. " * 20, flag)))
        warm, cold = runs
        assert warm[0]["usage"]["prompt_tokens"] > 240
        assert cold[0]["usage"]["prompt_tokens"] == 0
        computed = [
            next(e["usage"]["prompt_tokens"] - e["usage"]["cached_tokens"] for e in run if e["type"] == "turn_end")
            for run in runs
        ]
        assert computed[0] < 40
        assert computed[1] > 200

    def test_failed_turn_is_an_error_line_and_the_call_goes_on(self, serve: Serve) -> None:
        class Unlucky(FakeBackend):
            def sample(self, *arguments: Any) -> int:
                token = super().sample(*arguments)
                if self.counters.sampled_tokens == 1:
                    self.fail_next(BackendError("out of luck"))
                return token

        serve(Unlucky())
        result = voice_llm("call", "--json", "--say", "bir", "--say", "iki")
        assert result.exit_code == 1
        assert types(result) == ["ready", "error", "turn_end", "chunk", "chunk", "turn_end", "ended"]
        assert events(result)[1]["code"] == "internal"
        assert events(result)[2]["finish_reason"] == "error"

    def test_call_that_cannot_start_says_why_and_then_that_it_ended(self, serve: Serve) -> None:
        serve(FakeBackend())
        result = voice_llm("call", "--json", "--say", "x", "--system", "x" * 3000)
        assert result.exit_code == 1
        assert types(result) == ["error", "ended"]
        assert events(result)[0]["code"] == "context_too_long"


class TestText:
    def test_shows_both_sides_and_the_figures(self, serve: Serve) -> None:
        serve(FakeBackend(reply=lambda _: "Tamam, [bold] bakıyorum :smile:. Yarın gelir."))
        result = voice_llm("call", "--say", "Nerede?", "--say", "Ya [b]bu[/b]?")
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        assert "caller  Nerede?" in lines
        assert "caller  Ya [b]bu[/b]?" in lines
        assert lines.count("agent   Tamam, [bold] bakıyorum :smile:. Yarın gelir.") == 2
        figures = lines[lines.index("caller  Nerede?") + 2]
        assert figures.startswith("        first token ")
        assert "tokens reused" in figures
        assert any(line.startswith("ready in ") for line in lines)
        assert lines[-1].startswith("2 turns in ")

    def test_failed_turn_is_told_between_the_lines(self, serve: Serve) -> None:
        backend = FakeBackend()
        serve(backend)
        result = voice_llm("call", "--say", "x" * 3000, "--say", "iki")
        assert result.exit_code == 1
        assert "do not fit" in result.stderr
        assert "        failed" in result.stdout.splitlines()
        assert "agent   You said iki. That makes 1." in result.stdout

    def test_reply_without_words_is_no_empty_line(self, serve: Serve) -> None:
        serve(FakeBackend(reply=lambda _: ""))
        assert "agent   (no words)" in voice_llm("call", "--say", "x").stdout

    def test_long_reply_and_long_path_stay_on_one_line(
        self, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """For whoever copies them out of a narrow terminal."""
        monkeypatch.setenv("COLUMNS", "30")
        serve(FakeBackend(reply=lambda _: "uzun " * 15 + "son."))
        assert "uzun " * 15 + "son." in voice_llm("call", "--say", "x").stdout
        path = tmp_path / ("uzun-" * 10 + "facts.txt")
        assert str(path) in voice_llm("call", "--say", "x", "--rag-context", f"@{path}").stderr


class TestTyping:
    def test_each_line_is_a_turn_and_the_end_of_input_hangs_up(self, serve: Serve) -> None:
        serve(FakeBackend())
        result = voice_llm("call", stdin="Alo?\n\n  \nNerede?")
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        for line in (
            "caller  Alo?",
            "agent   You said Alo?. That makes 1.",
            "caller  Nerede?",
            "agent   You said Nerede?. That makes 2.",
        ):
            assert line in lines

    def test_no_prompt_disturbs_the_json_lines(self, serve: Serve) -> None:
        serve(FakeBackend())
        result = voice_llm("call", "--json", stdin="Alo?\n")
        assert types(result) == ["ready", "chunk", "chunk", "turn_end", "ended"]

    def test_no_input_at_all_is_a_short_call(self, serve: Serve) -> None:
        serve(FakeBackend())
        result = voice_llm("call", "--json")
        assert result.exit_code == 0
        assert types(result) == ["ready", "ended"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
class TestCtrlC:
    @pytest.fixture(autouse=True)
    def listens(self) -> Iterator[None]:
        """Shells start background jobs with SIGINT ignored, and then nothing would be tested."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    def test_hangs_up_while_a_line_is_awaited(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without waiting for that line: its thread sits in ``input`` still."""
        enter, left = threading.Event(), threading.Event()

        def no_line_comes() -> str:
            os.kill(os.getpid(), signal.SIGINT)
            enter.wait(60)
            left.set()
            raise EOFError

        monkeypatch.setattr("builtins.input", no_line_comes)
        serve(FakeBackend())
        result = voice_llm("call", "--json")
        assert not left.is_set()
        enter.set()
        assert left.wait(60)
        assert result.exit_code == 0
        assert types(result) == ["ready", "ended"]

    def test_stops_a_scripted_call_as_failed(self, serve: Serve) -> None:
        class Endless(FakeBackend):
            def sample(self, *arguments: Any) -> int:
                super().sample(*arguments)
                if self.counters.sampled_tokens == 100:
                    os.kill(os.getpid(), signal.SIGINT)
                return ord("a")

        backend = Endless(context_per_call=100_000)
        serve(backend)
        result = voice_llm("call", "--json", "--max-tokens", "90000", "--say", "bir", "--say", "iki")
        assert result.exit_code == 1
        assert types(result) == ["ready", "ended"]
        assert backend.closed
        assert backend.open_samplers == 0


def test_runs_as_a_module_and_without_a_model() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "voice_llm.cli", "call", "--model", "gone.gguf", "--say", "x"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert done.returncode == 1
    assert "gone.gguf" in done.stderr
    assert "Traceback" not in done.stderr
