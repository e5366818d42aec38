"""ChatRequest: what a client asks for in OpenAI's words, and what of these words can be honoured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ...config import Profile, SamplingParams, ServerConfig
from ...errors import InvalidRequestError, NotFoundError
from ...prompt import Message, Tool, ToolChoice, parse_messages, parse_tool_choice, parse_tools
from .response_format import json_schema_of

__all__ = ["FIELDS", "ChatRequest", "parse_chat_request"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A chat completion that is asked for.

    Attributes:
        messages: The chat; the profile's system prompt comes first.
        params: How the reply is drawn.
        rag_context: Retrieved text for all of it.
        tools: What the reply may ask for.
        tool_choice: Whether it may, or has to.
        one_tool_call: Whether it may ask for one call at most.
        stream: Whether the reply is sent as it comes.
        include_usage: Whether a stream ends with token counts.
    """

    messages: tuple[Message, ...]
    params: SamplingParams
    rag_context: str | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    one_tool_call: bool = False
    stream: bool = False
    include_usage: bool = False


_HONOURED: Final = frozenset({
    "model", "messages", "tools", "tool_choice", "parallel_tool_calls", "response_format", "stop", "max_tokens",
    "max_completion_tokens", "stream", "stream_options", "rag_context",
})  # fmt: skip
_SAMPLING: Final = frozenset({
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "seed",
    "grammar", "pacing",
})  # fmt: skip

# Notes for whoever keeps records of requests, or routes them between machines: nothing depends on them here.
_NOTES: Final[Mapping[str, type]] = {
    "user": str,
    "safety_identifier": str,
    "metadata": dict,
    "prompt_cache_key": str,
}
_NAMES: Final[Mapping[type, str]] = {str: "text", dict: "an object"}

# Field -> the values that ask for what happens anyway; all others ask for what cannot be had. Null is one of them.
_ONLY: Final[Mapping[str, tuple[object, ...]]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "functions": (),
    "function_call": (),
    "verbosity": (),
    "reasoning_effort": (),
    "lora": (),
    "lora_adapter_id": (),
}

FIELDS: Final = frozenset({*_HONOURED, *_SAMPLING, *_NOTES, *_ONLY})
"""All fields that a request may have."""

# What clients repeat of earlier replies, and of OpenAI's types, without a meaning of its own while it is empty.
_MAY_BE_EMPTY: Final = frozenset(
    {"name", "refusal", "annotations", "audio", "function_call", "reasoning_content", "reasoning", "tool_calls"}
)

# Texts that clients send back as they got them: the name of a tool's message repeats that of the call it answers, and
# what a reply thought is no part of what was said.
_UNTOLD: Final = {"tool": frozenset({"name"}), "assistant": frozenset({"reasoning_content", "reasoning"})}


def parse_chat_request(
    body: Mapping[str, Any], *, profile: Profile, model_names: Sequence[str], config: ServerConfig
) -> ChatRequest:
    """Read the body of a chat completion.

    The profile's system prompt goes first, then the request's, as in ``CallSession``: what all calls begin with is so
    computed once for all of them.

    Args:
        body: The JSON object.
        profile: What is served.
        model_names: What ``model`` may be.
        config: Bounds.

    Raises:
        InvalidRequestError: A field is unknown, or asks for what cannot be had; ``param`` names it.
        NotFoundError: The model is another.
    """
    for name, value in body.items():
        _check_field(name, value)
    _check_model(body.get("model"), model_names)
    tools = parse_tools(_get(body, "tools", list, ()))
    tool_choice = _tool_choice(body.get("tool_choice"), tools)
    stream = _get(body, "stream", bool, False)
    return ChatRequest(
        messages=_messages(body.get("messages"), profile.system_prompt.strip(), config.max_messages),
        params=_params(body, profile.sampling, config.max_reply_tokens),
        rag_context=_get(body, "rag_context", str, None),
        tools=tools,
        tool_choice=tool_choice,
        one_tool_call=not _get(body, "parallel_tool_calls", bool, True),
        stream=stream,
        include_usage=_include_usage(body.get("stream_options"), stream=stream),
    )


def _check_field(name: str, value: object) -> None:
    if name not in FIELDS:
        raise InvalidRequestError(f"unknown field {name!r}", param=name)
    note = _NOTES.get(name)
    if note is not None and value is not None and not isinstance(value, note):
        raise InvalidRequestError(f"{name} must be {_NAMES[note]}", param=name)
    # True is 1 to Python, and no number of choices.
    allowed = _ONLY.get(name)
    if allowed is None or value is None or any(value == a and type(value) is type(a) for a in allowed):
        return
    words = " or ".join([repr(a) for a in allowed] or ["left out"])
    raise InvalidRequestError(f"{name} is not supported here: it must be {words}", param=name)


def _check_model(model: object, names: Sequence[str]) -> None:
    if model is None or model in names:
        return
    if not isinstance(model, str):
        raise InvalidRequestError("model must be a name", param="model")
    raise NotFoundError(f"there is no model {model!r} here; there is {names[0]!r}")


def _messages(messages: object, system_prompt: str, most: int) -> tuple[Message, ...]:
    if not isinstance(messages, list):
        raise InvalidRequestError("messages must be a list of messages", param="messages")
    if len(messages) > most:
        raise InvalidRequestError(f"there are {len(messages)} messages, more than {most}", param="messages")
    parsed = parse_messages([_without_empty(message) for message in messages])
    own = parsed[0].content if parsed[0].role == "system" else ""
    prompts = "\n\n".join(prompt for prompt in (system_prompt, own) if prompt)
    rest = parsed[1:] if parsed[0].role == "system" else parsed
    if not rest:
        raise InvalidRequestError("messages must hold more than a system message", param="messages")
    return (Message("system", prompts), *rest) if prompts else rest


def _without_empty(message: Any) -> Any:
    if not isinstance(message, Mapping):
        return message
    left_out = _UNTOLD.get(str(message.get("role")), frozenset())
    return {
        name: value
        for name, value in message.items()
        if (value or name not in _MAY_BE_EMPTY) and not (name in left_out and isinstance(value, str))
    }


def _params(body: Mapping[str, Any], sampling: SamplingParams, most_tokens: int) -> SamplingParams:
    overrides: dict[str, Any] = {name: body.get(name) for name in _SAMPLING}
    if isinstance(overrides["seed"], bool):
        raise InvalidRequestError("seed must be a whole number", param="seed")
    overrides["stop"] = body.get("stop")
    overrides["json_schema"] = json_schema_of(body.get("response_format"))
    overrides["max_tokens"] = _max_tokens(body, most_tokens)
    return sampling.replace(**overrides)


def _max_tokens(body: Mapping[str, Any], most: int) -> int | None:
    given = {name: body[name] for name in ("max_tokens", "max_completion_tokens") if body.get(name) is not None}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise InvalidRequestError(f"{name} must be a whole number from 1 to {most}", param=name)
    if len(set(given.values())) > 1:
        raise InvalidRequestError("max_tokens and max_completion_tokens differ; give one", param="max_tokens")
    return next(iter(given.values()), None)


def _tool_choice(choice: Any, tools: Sequence[Tool]) -> ToolChoice:
    if choice is None:
        return "auto"
    if isinstance(choice, Mapping):
        function = choice.get("function")
        plain = isinstance(function, Mapping) and {*choice, *function} <= {"type", "function", "name"}
        if not plain or choice.get("type") != "function":
            raise InvalidRequestError(
                'tool_choice must be a word or {"type": "function", "function": {"name": ...}}', param="tool_choice"
            )
    elif not isinstance(choice, str):
        raise InvalidRequestError("tool_choice must be a word or an object", param="tool_choice")
    parse_tool_choice(choice, tools)
    chosen: ToolChoice = choice
    return chosen


def _include_usage(options: object, *, stream: bool) -> bool:
    if options is None:
        return False
    if not stream or not isinstance(options, Mapping):
        raise InvalidRequestError("stream_options must be an object, and goes with stream only", param="stream_options")
    for name, value in options.items():
        if name not in ("include_usage", "include_obfuscation") or not isinstance(value, bool | None):
            raise InvalidRequestError(f"stream_options.{name} is not supported here", param=f"stream_options.{name}")
    if options.get("include_obfuscation"):
        raise InvalidRequestError(
            "stream_options.include_obfuscation must be false", param="stream_options.include_obfuscation"
        )
    return bool(options.get("include_usage"))


_KINDS: Final[Mapping[type, str]] = {bool: "true or false", str: "text", list: "a list"}


def _get(body: Mapping[str, Any], name: str, kind: Callable[..., Any], default: Any) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):  # type: ignore[arg-type]
        raise InvalidRequestError(f"{name} must be {_KINDS[kind]}", param=name)  # type: ignore[index]
    return value
