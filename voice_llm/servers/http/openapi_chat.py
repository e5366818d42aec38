"""The chat completion's part of the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...config.sampling import MAX_STOP_CHARS, MAX_STOPS

__all__ = ["CHAT_REPLY", "chat_request"]

Schema = Mapping[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_OBJECT: Final[Schema] = {"type": "object"}
_STOP: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARS}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}


def _object(properties: Mapping[str, Schema], *required: str) -> Schema:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | {"required": list(required)} if required else schema


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _number(low: float, high: float, **more: Any) -> Schema:
    return _nullable({"type": "number", "minimum": low, "maximum": high, **more})


def _whole(low: int, high: int, **more: Any) -> Schema:
    return _nullable({"type": "integer", "minimum": low, "maximum": high, **more})


_PARTS: Final[Schema] = {"type": "array", "items": _object({"type": {"const": "text"}, "text": _TEXT}, "type", "text")}
_CONTENT: Final[Schema] = {"anyOf": [_TEXT, _PARTS]}
_NAME: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
_CALL: Final = _object(
    {
        "id": _TEXT,
        "type": {"const": "function"},
        "function": _object({"name": _NAME, "arguments": {"anyOf": [_TEXT, _OBJECT]}}, "name", "arguments"),
    },
    "id",
    "function",
)
_MESSAGE: Final[Schema] = {
    "oneOf": [
        _object({"role": {"enum": ["system", "developer"]}, "content": _CONTENT}, "role", "content"),
        _object({"role": {"const": "user"}, "content": _CONTENT, "rag_context": _nullable(_TEXT)}, "role", "content"),
        _object(
            {
                "role": {"const": "assistant"},
                "content": _nullable(_CONTENT),
                "tool_calls": {"type": "array", "items": _CALL},
            },
            "role",
        ),
        _object({"role": {"const": "tool"}, "content": _CONTENT, "tool_call_id": _TEXT}, "role", "content"),
    ]
}
_TOOL: Final = _object(
    {
        "type": {"const": "function"},
        "function": _object(
            {
                "name": _NAME,
                "description": _TEXT,
                "parameters": {"type": "object", "description": "JSON schema of the arguments, an object."},
                "strict": _nullable({"type": "boolean"}),
            },
            "name",
        ),
    },
    "type",
    "function",
)
_TOOL_CHOICE: Final[Schema] = {
    "anyOf": [
        {"enum": ["auto", "none", "required"]},
        _object({"type": {"const": "function"}, "function": _object({"name": _NAME}, "name")}, "type", "function"),
    ]
}
_RESPONSE_FORMAT: Final[Schema] = {
    "oneOf": [
        _object({"type": {"enum": ["text", "json_object"]}}, "type"),
        _object(
            {
                "type": {"const": "json_schema"},
                "json_schema": _object(
                    {
                        "name": _TEXT,
                        "description": _TEXT,
                        "schema": _OBJECT,
                        "strict": _nullable({"type": "boolean"}),
                    },
                    "name",
                ),
            },
            "type",
            "json_schema",
        ),
    ]
}
_STREAM_OPTIONS: Final = _object({"include_usage": {"type": "boolean"}, "include_obfuscation": {"const": False}})


def chat_request(model: str, *, max_messages: int, max_tokens: int) -> Schema:
    """Return the schema of a request's body.

    Args:
        model: Name of the served profile.
        max_messages: Most messages.
        max_tokens: Most tokens of a reply.
    """
    tokens = _whole(1, max_tokens)
    return _object(
        {
            "model": {"type": "string", "enum": [model]},
            "messages": {"type": "array", "items": _MESSAGE, "minItems": 1, "maxItems": max_messages},
            "stream": {"type": "boolean"},
            "stream_options": _nullable(_STREAM_OPTIONS),
            "max_tokens": tokens,
            "max_completion_tokens": tokens,
            "temperature": _number(0, 10),
            "top_p": _number(0, 1),
            "top_k": _whole(0, 10_000_000),
            "min_p": _number(0, 1),
            "repetition_penalty": _number(0.01, 10),
            "presence_penalty": _number(-10, 10),
            "frequency_penalty": _number(-10, 10),
            "seed": _whole(-(2**63), 2**63 - 1),
            "stop": {"anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": MAX_STOPS}, {"type": "null"}]},
            "tools": {"type": "array", "items": _TOOL, "maxItems": 128},
            "tool_choice": _TOOL_CHOICE,
            "parallel_tool_calls": {"type": "boolean"},
            "response_format": _RESPONSE_FORMAT,
            "rag_context": _nullable(_TEXT),
            "grammar": _nullable({"type": "string", "description": "GBNF, with a root rule."}),
            "pacing": {"enum": ["voice", "off", None]},
            "n": {"enum": [1, None]},
            "logprobs": {"enum": [False, None]},
            "modalities": {"enum": [["text"], None]},
            "user": _nullable(_TEXT),
            "safety_identifier": _nullable(_TEXT),
            "prompt_cache_key": _nullable(_TEXT),
            "metadata": _nullable(_OBJECT),
            "store": {"enum": [False, None]},
            "service_tier": {"enum": ["auto", "default", None]},
        },
        "messages",
    )


CHAT_REPLY: Final[Schema] = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices", "usage"],
    "properties": {
        "id": _TEXT,
        "object": {"const": "chat.completion"},
        "created": _COUNT,
        "model": _TEXT,
        "choices": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["index", "message", "finish_reason"],
                "properties": {
                    "index": {"const": 0},
                    "finish_reason": {"enum": ["stop", "length", "tool_calls"]},
                    "message": {
                        "type": "object",
                        "required": ["role", "content"],
                        "properties": {
                            "role": {"const": "assistant"},
                            "content": _nullable(_TEXT),
                            "reasoning_content": _TEXT,
                            "tool_calls": {"type": "array", "items": _CALL},
                        },
                    },
                },
            },
        },
        "usage": {
            "type": "object",
            "required": ["prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"],
            "properties": {
                "prompt_tokens": _COUNT,
                "completion_tokens": _COUNT,
                "total_tokens": _COUNT,
                "prompt_tokens_details": {
                    "type": "object",
                    "required": ["cached_tokens"],
                    "properties": {"cached_tokens": _COUNT},
                },
            },
        },
    },
}
"""The schema of a reply that is not streamed."""
