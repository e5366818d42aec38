"""What a ``GenerateStream`` request asks: its prompt and how the reply is drawn. Protobuf stops here."""

from __future__ import annotations

import re
from typing import Final, cast

from ..._proto import llama_pb2 as pb
from ...config import Profile, SamplingParams
from ...config.sampling import MAX_STOPS
from ...errors import InvalidRequestError, NotFoundError
from ...prompt import Message, Role
from .struct import plain_struct

__all__ = ["check", "history_of", "params_of", "system_prompt_of", "user_turn_of"]

_HEADING: Final = "Instructions for this call:"
_HEADING_TURKISH: Final = "Bu görüşme için talimatlar:"
_PLACEHOLDER: Final = re.compile(r"\{\{(rag_context|user_prompt)\}\}")
# The system prompt has a field of its own.
_HISTORY_ROLES: Final = ("user", "assistant", "tool")
_SPECIFIC: Final = ("min_p", "presence_penalty", "frequency_penalty", "grammar", "json_schema")
_PLAIN: Final = ("temperature", "top_k", "top_p", "repetition_penalty", "seed")


def check(request: pb.GenerateStreamRequest, *, max_messages: int, max_reply_tokens: int) -> None:
    """Refuse what no engine could answer, before one is asked for.

    Raises:
        InvalidRequestError: The question is empty, the history is too long or has an unknown role, there are too many
            stop sequences, or the reply that is asked for is too long.
        NotFoundError: There is no such adapter.
    """
    if not request.user_prompt.strip():
        raise InvalidRequestError("user_prompt is empty", param="user_prompt")
    if len(request.history) > max_messages:
        raise InvalidRequestError(
            f"history has {len(request.history)} messages; allowed are {max_messages}", param="history"
        )
    if len(request.params.stop_sequences) > MAX_STOPS:
        raise InvalidRequestError(
            f"stop_sequences has {len(request.params.stop_sequences)} strings; allowed are {MAX_STOPS}",
            param="stop_sequences",
        )
    for place, turn in enumerate(request.history):
        if turn.role not in _HISTORY_ROLES:
            param = f"history[{place}].role"
            raise InvalidRequestError(f"{param} must be one of {', '.join(_HISTORY_ROLES)}", param=param)
    tokens = request.params.max_new_tokens
    if request.params.HasField("max_new_tokens") and not 1 <= tokens <= max_reply_tokens:
        raise InvalidRequestError(
            f"max_new_tokens must be between 1 and {max_reply_tokens}, not {tokens}", param="max_new_tokens"
        )
    if request.lora_adapter_id:
        raise NotFoundError("there is no adapter of that lora_adapter_id")


def system_prompt_of(request: pb.GenerateStreamRequest, profile: Profile) -> str:
    """Return the profile's system prompt and, under a heading, the request's."""
    own, asked = profile.system_prompt.strip(), request.system_prompt.strip()
    if not (own and asked):
        return own or asked
    turkish = profile.language.partition("-")[0] == "tr"
    return f"{own}\n\n{_HEADING_TURKISH if turkish else _HEADING}\n{asked}"


def user_turn_of(request: pb.GenerateStreamRequest, profile: Profile) -> str:
    """Return the user's turn: the bare question or, with retrieved text, the profile's ``rag_prompt`` filled in.

    Both are filled in at once, so that a placeholder in a document or a question stays what it is: text.
    """
    texts = {"rag_context": request.rag_context.strip(), "user_prompt": request.user_prompt.strip()}
    if not texts["rag_context"]:
        return texts["user_prompt"]
    return _PLACEHOLDER.sub(lambda found: texts[found[1]], profile.rag_template)


def history_of(request: pb.GenerateStreamRequest) -> list[Message]:
    """Return the earlier messages, as bare texts."""
    return [Message(cast(Role, turn.role), turn.content.strip()) for turn in request.history]


def params_of(request: pb.GenerateStreamRequest, sampling: SamplingParams) -> SamplingParams:
    """Return how the reply is drawn: as the profile says, but for what the request says.

    Raises:
        InvalidRequestError: A parameter is unknown or out of range.
    """
    params = request.params
    overrides = {name: getattr(params, name) for name in _PLAIN if params.HasField(name)}
    if params.HasField("max_new_tokens"):
        overrides["max_tokens"] = params.max_new_tokens
    if params.stop_sequences:
        overrides["stop"] = tuple(params.stop_sequences)
    for name, value in plain_struct(params.engine_specific_params).items():
        where = f"engine_specific_params.{name}"
        if name not in _SPECIFIC:
            raise InvalidRequestError(f"{where} is unknown; there are {', '.join(_SPECIFIC)}", param=where)
        if value is None:
            raise InvalidRequestError(f"{where} has no value", param=where)
        overrides[name] = value
    return sampling.replace(**overrides)
