"""Environment variables as such: which there are, where each is set, and which names nobody reads."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource

from ..errors import ConfigError

__all__ = ["ENV_PREFIX", "Origin", "misnamed", "origins", "variable_of"]

ENV_PREFIX: Final = "LLM_LLAMA_SERVICE_"

Origin = Literal["environment", ".env"]

_PLACES: Final[dict[Origin, str]] = {"environment": "the environment", ".env": ".env"}

# What the service that this one replaces reads and this one does not, and why.
_WITHOUT_EFFECT: Final = {
    "LORA_DIR": "adapters are not supported yet",
    "DEFAULT_RAG_PROMPT_LOW": "reasoning effort is not supported yet",
    "DEFAULT_RAG_PROMPT_HIGH": "reasoning effort is not supported yet",
    "ENABLE_BATCHING": "calls are always computed together; MAX_BATCH_SIZE says how many",
    "BATCH_TIMEOUT_MS": "nothing waits for a batch to fill",
    "ENABLE_WARM_UP": "the engine always warms up before it is ready",
    "MODEL_URL_TEMPLATE": "models come from Hugging Face or from a file",
    "NUMA": "memory is not placed by NUMA node",
}


def variable_of(settings: type[BaseSettings], field: str) -> str:
    """Return the name of the variable that sets a field."""
    alias = settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else ENV_PREFIX + field.upper()


def origins(settings: type[BaseSettings]) -> dict[str, Origin]:
    """Return where each variable is set that is not empty, in ``.env`` or in the environment, which goes first.

    Raises:
        ConfigError: There is a ``.env`` and it cannot be read.
    """
    try:
        dotenv = DotEnvSettingsSource(settings).env_vars
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f".env cannot be read: {reason}") from None
    found: dict[str, Origin] = {name.upper(): ".env" for name in dotenv}
    return found | {name.upper(): "environment" for name in EnvSettingsSource(settings).env_vars}


def misnamed(given: Mapping[str, Origin], known: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of a variable with our prefix that has no effect, and what to say of it. Values stay unsaid."""
    names = sorted(known)
    return [
        (name, _what_of(name, names, where))
        for name, where in sorted(given.items())
        if name.startswith(ENV_PREFIX) and name not in names
    ]


def _what_of(name: str, known: list[str], where: Origin) -> str:
    reason = _WITHOUT_EFFECT.get(name.removeprefix(ENV_PREFIX))
    if reason is not None:
        return f"has no effect here, since {reason}; it is set in {_PLACES[where]}"
    # The prefix apart: it would make all names alike.
    short = {n.removeprefix(ENV_PREFIX): n for n in known}
    nearest = difflib.get_close_matches(name.removeprefix(ENV_PREFIX), short, n=1)
    hint = f"did you mean {short[nearest[0]]}?" if nearest else "voice-llm config --json names those that there are"
    return f"unknown variable, set in {_PLACES[where]}; {hint}"
