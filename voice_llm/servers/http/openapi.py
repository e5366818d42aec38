"""The OpenAPI document of the HTTP interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from ...config import ServerConfig
from ..edge import Edge
from .openapi_chat import CHAT_REPLY, chat_request

__all__ = ["OpenApi", "openapi_document"]

_ERROR_STATUSES: Final = {
    400: "The request cannot be answered as written; `param` names the field.",
    401: "A key is missing or unknown.",
    403: "The tenant is another's.",
    404: "There is no such model, profile or call.",
    409: "The call has a running request, or was ended.",
    413: "The body is too large.",
    429: "No room; `Retry-After` says when to try again.",
    500: "The engine failed.",
    503: "The model is being loaded, or the server ends; `Retry-After` says when to try again.",
}
_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_ERROR: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": _TEXT,
                "type": {"enum": ["invalid_request_error", "server_error"]},
                "code": _TEXT,
                "param": {"type": ["string", "null"]},
            },
        }
    },
}
_EVENT: Final[Mapping[str, Any]] = {
    "type": "object",
    "description": "A chat.completion.chunk as JSON, and [DONE] at the end.",
    "required": ["data"],
    "properties": {"data": _TEXT},
}
_HEALTH: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["status", "model_ready", "current_profile", "capacity"],
    "properties": {
        "status": {"enum": ["healthy", "loading", "draining", "unhealthy"]},
        "model_ready": {"type": "boolean"},
        "current_profile": _TEXT,
        "capacity": {
            "type": "object",
            "required": ["active", "total", "available"],
            "properties": {"active": _COUNT, "total": _COUNT, "available": _COUNT},
        },
    },
}
_ANY: Final[Mapping[str, Any]] = {"type": "object"}
_TENANT: Final = {"name": "x-tenant-id", "in": "header", "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"}}
_CALL_ID: Final = {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"}
_CALL_HEADER: Final = {"name": "x-call-id", "in": "header", "schema": _CALL_ID}


class OpenApi:
    """Serves the document.

    Args:
        edge: What all servers share.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def document(self, request: web.Request) -> web.Response:
        """Return the document."""
        return web.json_response(openapi_document(self._edge.host.profile_name, self._edge.config))


def openapi_document(profile: str, config: ServerConfig) -> dict[str, Any]:
    """Return the document of a server.

    Args:
        profile: Name of the served profile.
        config: Its bounds.
    """
    chat = chat_request(profile, max_messages=config.max_messages, max_tokens=config.max_reply_tokens)
    switch = {
        "type": "object",
        "required": ["profile"],
        "properties": {"profile": _TEXT},
        "additionalProperties": False,
    }
    model = {"name": "model", "in": "path", "required": True, "schema": _TEXT}
    call = {"name": "call_id", "in": "path", "required": True, "schema": _CALL_ID}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "voice_llm", "version": "1", "description": "A language-model engine for phone calls."},
        "paths": {
            "/health": {
                "get": {"responses": {"200": _json("Takes calls.", _HEALTH), "503": _json("Not now.", _HEALTH)}}
            },
            "/openapi.json": {"get": _operation("This document.", _ANY)},
            "/v1/models": {"get": _operation("The one model, named as its profile.", _ANY)},
            "/v1/models/{model}": {"get": _operation("One model.", _ANY, parameters=[model])},
            "/v1/models/switch": {"post": _operation("The profile is served already.", _ANY, body=switch)},
            "/v1/profiles": {"get": _operation("Profiles, and which is served.", _ANY)},
            "/v1/calls/{call_id}": {"delete": _operation("The call is ended.", None, parameters=[call])},
            "/v1/chat/completions": {
                "post": _operation("The reply; a stream of its pieces.", CHAT_REPLY, [_CALL_HEADER], body=chat)
            },
        },
    }
    if config.api_keys is not None:
        document["components"] = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}
        document["security"] = [{"key": []}]
    answer = document["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]
    answer["content"]["text/event-stream"] = {"schema": _EVENT}
    return document


def _operation(
    summary: str,
    answer: Mapping[str, Any] | None,
    parameters: Sequence[Mapping[str, Any]] = (),
    *,
    body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    good = {"204": {"description": summary}} if answer is None else {"200": _json(summary, answer)}
    errors = {str(status): _json(text, _ERROR) for status, text in _ERROR_STATUSES.items()}
    operation: dict[str, Any] = {"summary": summary, "parameters": [_TENANT, *parameters], "responses": good | errors}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _json(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
