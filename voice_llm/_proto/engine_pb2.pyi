from . import call_pb2 as _call_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("profile", "healthy", "open_calls", "max_calls", "max_command_bytes")
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    OPEN_CALLS_FIELD_NUMBER: _ClassVar[int]
    MAX_CALLS_FIELD_NUMBER: _ClassVar[int]
    MAX_COMMAND_BYTES_FIELD_NUMBER: _ClassVar[int]
    profile: str
    healthy: bool
    open_calls: int
    max_calls: int
    max_command_bytes: int
    def __init__(self, profile: _Optional[str] = ..., healthy: _Optional[bool] = ..., open_calls: _Optional[int] = ..., max_calls: _Optional[int] = ..., max_command_bytes: _Optional[int] = ...) -> None: ...

class CallCommand(_message.Message):
    __slots__ = ("open", "prefill", "generate", "cancel")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    PREFILL_FIELD_NUMBER: _ClassVar[int]
    GENERATE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    open: Open
    prefill: Prefill
    generate: Generate
    cancel: Cancel
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., prefill: _Optional[_Union[Prefill, _Mapping]] = ..., generate: _Optional[_Union[Generate, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("call_id", "one_shot", "language")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    ONE_SHOT_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    one_shot: bool
    language: str
    def __init__(self, call_id: _Optional[str] = ..., one_shot: _Optional[bool] = ..., language: _Optional[str] = ...) -> None: ...

class Prompt(_message.Message):
    __slots__ = ("messages", "rag_context", "tools")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    RAG_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    messages: str
    rag_context: str
    tools: str
    def __init__(self, messages: _Optional[str] = ..., rag_context: _Optional[str] = ..., tools: _Optional[str] = ...) -> None: ...

class Prefill(_message.Message):
    __slots__ = ("request_id", "prompt", "open_ended", "age_s")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    OPEN_ENDED_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    prompt: Prompt
    open_ended: bool
    age_s: float
    def __init__(self, request_id: _Optional[int] = ..., prompt: _Optional[_Union[Prompt, _Mapping]] = ..., open_ended: _Optional[bool] = ..., age_s: _Optional[float] = ...) -> None: ...

class Generate(_message.Message):
    __slots__ = ("request_id", "prompt", "params", "tool_choice", "age_s", "language")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    TOOL_CHOICE_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    prompt: Prompt
    params: str
    tool_choice: str
    age_s: float
    language: str
    def __init__(self, request_id: _Optional[int] = ..., prompt: _Optional[_Union[Prompt, _Mapping]] = ..., params: _Optional[str] = ..., tool_choice: _Optional[str] = ..., age_s: _Optional[float] = ..., language: _Optional[str] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("request_id", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    reason: str
    def __init__(self, request_id: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class CallEvent(_message.Message):
    __slots__ = ("request_id", "opened", "text_delta", "sentence_chunk", "thought", "tool_call", "finished", "prefilled", "error")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    TEXT_DELTA_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_CHUNK_FIELD_NUMBER: _ClassVar[int]
    THOUGHT_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    PREFILLED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    opened: Opened
    text_delta: str
    sentence_chunk: SentenceChunk
    thought: str
    tool_call: RequestedTool
    finished: Finished
    prefilled: Prefilled
    error: RequestError
    def __init__(self, request_id: _Optional[int] = ..., opened: _Optional[_Union[Opened, _Mapping]] = ..., text_delta: _Optional[str] = ..., sentence_chunk: _Optional[_Union[SentenceChunk, _Mapping]] = ..., thought: _Optional[str] = ..., tool_call: _Optional[_Union[RequestedTool, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ..., prefilled: _Optional[_Union[Prefilled, _Mapping]] = ..., error: _Optional[_Union[RequestError, _Mapping]] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("call_id", "tenant")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    tenant: str
    def __init__(self, call_id: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class SentenceChunk(_message.Message):
    __slots__ = ("index", "text", "final")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    index: int
    text: str
    final: bool
    def __init__(self, index: _Optional[int] = ..., text: _Optional[str] = ..., final: _Optional[bool] = ...) -> None: ...

class RequestedTool(_message.Message):
    __slots__ = ("tool_call_id", "name", "arguments")
    TOOL_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    tool_call_id: str
    name: str
    arguments: str
    def __init__(self, tool_call_id: _Optional[str] = ..., name: _Optional[str] = ..., arguments: _Optional[str] = ...) -> None: ...

class OptionalTimings(_message.Message):
    __slots__ = ("queue_ms", "prefill_ms", "first_token_ms", "first_chunk_ms", "total_ms")
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_MS_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_MS_FIELD_NUMBER: _ClassVar[int]
    FIRST_CHUNK_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    queue_ms: float
    prefill_ms: float
    first_token_ms: float
    first_chunk_ms: float
    total_ms: float
    def __init__(self, queue_ms: _Optional[float] = ..., prefill_ms: _Optional[float] = ..., first_token_ms: _Optional[float] = ..., first_chunk_ms: _Optional[float] = ..., total_ms: _Optional[float] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("finish_reason", "usage", "timings")
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    finish_reason: str
    usage: _call_pb2.Usage
    timings: OptionalTimings
    def __init__(self, finish_reason: _Optional[str] = ..., usage: _Optional[_Union[_call_pb2.Usage, _Mapping]] = ..., timings: _Optional[_Union[OptionalTimings, _Mapping]] = ...) -> None: ...

class Prefilled(_message.Message):
    __slots__ = ("usage", "prefill_ms", "complete")
    USAGE_FIELD_NUMBER: _ClassVar[int]
    PREFILL_MS_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    usage: _call_pb2.Usage
    prefill_ms: float
    complete: bool
    def __init__(self, usage: _Optional[_Union[_call_pb2.Usage, _Mapping]] = ..., prefill_ms: _Optional[float] = ..., complete: _Optional[bool] = ...) -> None: ...

class RequestError(_message.Message):
    __slots__ = ("code", "message", "param", "retry_after_s", "context_too_long", "engine_dead")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PARAM_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOO_LONG_FIELD_NUMBER: _ClassVar[int]
    ENGINE_DEAD_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    param: str
    retry_after_s: float
    context_too_long: ContextTooLong
    engine_dead: bool
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., param: _Optional[str] = ..., retry_after_s: _Optional[float] = ..., context_too_long: _Optional[_Union[ContextTooLong, _Mapping]] = ..., engine_dead: _Optional[bool] = ...) -> None: ...

class ContextTooLong(_message.Message):
    __slots__ = ("prompt_tokens", "max_tokens", "context_tokens")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    max_tokens: int
    context_tokens: int
    def __init__(self, prompt_tokens: _Optional[int] = ..., max_tokens: _Optional[int] = ..., context_tokens: _Optional[int] = ...) -> None: ...
