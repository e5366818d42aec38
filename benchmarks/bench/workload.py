"""The workload: the same calls, person by person, for every system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from voice_llm.backend.llama import LlamaModel
from voice_llm.prompt import ENGLISH, PromptFormatter, resolve_template
from voice_llm.simulator import CallScript, make_scripts

__all__ = ["MAX_TOKENS", "TURNS", "Reader", "Workload", "check", "common_tokens", "formatter_of"]

TURNS: Final = 6
MAX_TOKENS: Final = 48
_SYSTEM_TOKENS: Final = (160, 190)
_OWN_TOKENS: Final = 300
_COUNTED: Final = 50
# Calls of a line that come after each other, before they come again: more than fit into a point.
_CALLS_A_LINE: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Which calls are held.

    Attributes:
        languages: ``en``, ``tr`` or both in turns.
        seed: Makes them repeatable.
    """

    languages: tuple[str, ...] = ("en",)
    seed: int = 5

    def scripts(self, round_: int, calls: int) -> tuple[CallScript, ...]:
        """Return the calls of a point, the same for each system.

        The first one of each caller is cut to between one turn and all, as if the measurement began in the middle of
        the day: calls then open one by one and not all together.
        """
        made = _scripts_of(self._seed(round_, calls), calls * _CALLS_A_LINE, self.languages)
        first = (replace(script, hang_up_after_turn=1 + n % TURNS) for n, script in enumerate(made[:calls]))
        return (*first, *made[calls:])

    def probe(self) -> CallScript:
        """Return a call that is none of any point."""
        return _scripts_of(self._seed(999, 999), 1, self.languages)[0]

    def _seed(self, round_: int, calls: int) -> int:
        return self.seed * 1_000_000 + round_ * 1000 + calls

    def describe(self, model: Path) -> dict[str, Any]:
        """Say what the calls are, with token counts of this model; see ``check``."""
        scripts = [*self.scripts(0, _COUNTED)[:_COUNTED]]
        with Reader(model) as reader:
            openings = [reader.opening(script) for script in scripts]
            turns = [reader.count(turn.text) for script in scripts for turn in script.turns]
        shared = common_tokens(openings)
        own = [len(opening) - shared for opening in openings]
        return {
            "languages": list(self.languages),
            "seed": self.seed,
            "turns": TURNS,
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "system_tokens": shared,
            "own_opening_tokens": _span(own),
            "turn_words": _span([len(turn.text.split()) for script in scripts for turn in script.turns]),
            "turn_tokens": _span(turns),
            "speaking_wpm": _span([script.speaking_wpm for script in scripts]),
            "think_s": _span([script.think_s for script in scripts]),
            "listen_chars_per_s": scripts[0].listen_chars_per_s,
        }


class Reader:
    """Counts tokens as the systems must: with the model's vocabulary and chat template."""

    def __init__(self, model: Path) -> None:
        self._model = LlamaModel(model, vocab_only=True)
        self.formatter = formatter_of(self._model)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self._model.close()

    def count(self, text: str) -> int:
        """Return the tokens of a text."""
        return len(self._model.tokenize(text))

    def opening(self, script: CallScript) -> tuple[int, ...]:
        """Return the tokens of a call's prompt before anything is said."""
        return self._format(script, "", open_ended=True)

    def first_prompt(self, script: CallScript) -> tuple[int, ...]:
        """Return the tokens of the prompt of a call's first turn."""
        return self._format(script, script.turns[0].text, open_ended=False)

    def _format(self, script: CallScript, said: str, *, open_ended: bool) -> tuple[int, ...]:
        messages = [{"role": "system", "content": script.system_prompt}, {"role": "user", "content": said}]
        return self.formatter.format(
            messages,
            rag_context=script.rag_context,
            context_tokens=8192,
            reserve_tokens=MAX_TOKENS,
            open_ended=open_ended,
        ).tokens


def formatter_of(model: LlamaModel) -> PromptFormatter:
    """Return what writes the model's own chat template."""
    template = resolve_template(
        model.chat_template, None, model.control_tokens, bos_token=model.bos_token, eos_token=model.eos_token
    )
    return PromptFormatter(model, template, bos=model.bos_token if model.add_bos else "", headings=ENGLISH)


def _scripts_of(seed: int, calls: int, languages: Sequence[str]) -> tuple[CallScript, ...]:
    """Make calls with replies of at most ``MAX_TOKENS``."""
    made = make_scripts(seed, calls, turns=TURNS, languages=languages)
    return tuple(
        replace(script, turns=tuple(replace(turn, max_tokens=MAX_TOKENS) for turn in script.turns)) for script in made
    )


def check(described: dict[str, Any]) -> None:
    """Hold the token counts against what the workload is meant to be.

    Raises:
        ValueError: They are others, with this model.
    """
    least, most = _SYSTEM_TOKENS
    if not least <= described["system_tokens"] <= most:
        raise ValueError(f"the shared part has {described['system_tokens']} tokens, not {least} to {most}")
    if described["own_opening_tokens"]["least"] < _OWN_TOKENS:
        own = described["own_opening_tokens"]["least"]
        raise ValueError(f"a call's own part has {own} tokens, fewer than {_OWN_TOKENS}")


def common_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts begin with."""
    count = 0
    for tokens in zip(*prompts, strict=False):
        if len(set(tokens)) > 1:
            break
        count += 1
    return count


def _span(values: Sequence[float]) -> dict[str, float]:
    return {"least": min(values), "most": max(values)}
