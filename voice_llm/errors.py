"""The one error tree.

::

    VoiceLLMError                     code
    ├── InvalidRequestError           invalid_request   (also ValueError)
    │   ├── ConfigError               a profile, setting or flag is wrong
    │   ├── GrammarError              a GBNF grammar or JSON schema cannot be used
    │   └── TemplateError             the chat template raised or is missing
    ├── ContextTooLongError           context_too_long
    ├── NotFoundError                 not_found         (also LookupError)
    ├── CallBusyError                 call_busy
    ├── WrongStateError               wrong_state
    ├── UnauthenticatedError          unauthenticated
    ├── ForbiddenError                forbidden
    ├── TooLargeError                 too_large
    ├── AtCapacityError               at_capacity       (carries retry_after_s, as the next two do)
    ├── LoadingError                  loading
    ├── DrainingError                 draining
    ├── ModelFileError                model_file        missing, truncated or not a GGUF file
    ├── SlowConsumerError             slow_consumer     the reader of a reply stopped reading
    └── EngineError                   internal
        ├── BackendError              the inference library reported a failure
        │   └── ContextFullError      no KV cells were left for a batch
        └── EngineDeadError           the engine's thread has ended or stalled

Servers map ``code`` to a status in one place; ``str(error)`` is for people.
"""

from __future__ import annotations

from typing import ClassVar, Self

__all__ = [
    "AtCapacityError",
    "BackendError",
    "CallBusyError",
    "ConfigError",
    "ContextFullError",
    "ContextTooLongError",
    "DrainingError",
    "EngineDeadError",
    "EngineError",
    "ForbiddenError",
    "GrammarError",
    "InvalidRequestError",
    "LoadingError",
    "ModelFileError",
    "NotFoundError",
    "SlowConsumerError",
    "TemplateError",
    "TooLargeError",
    "UnauthenticatedError",
    "VoiceLLMError",
    "WrongStateError",
]


class VoiceLLMError(Exception):
    """Base of every error that this package raises on purpose.

    Attributes:
        code: Stable machine-readable word, the same over every transport.
    """

    code: ClassVar[str] = "internal"

    def as_value(self) -> Self:
        """Return the error without the frames that it was raised through, whose variables it would keep alive."""
        self.__context__ = self.__cause__ = None
        return self.with_traceback(None)


class InvalidRequestError(VoiceLLMError, ValueError):
    """The caller asked for something that cannot be done as written.

    Attributes:
        param: Name of the offending field, where there is one.
    """

    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ConfigError(InvalidRequestError):
    """A profile, setting or flag is wrong; the message names it and what is allowed."""


class GrammarError(InvalidRequestError):
    """A GBNF grammar or JSON schema cannot be compiled or is not honoured in full."""


class TemplateError(InvalidRequestError):
    """The model's chat template is missing, invalid, or refused the messages."""


class ContextTooLongError(VoiceLLMError):
    """Prompt and reserved reply do not fit into a call's context.

    Attributes:
        prompt_tokens: Length of the prompt.
        max_tokens: Tokens reserved for the reply.
        context_tokens: What a call's context holds.
    """

    code = "context_too_long"

    def __init__(self, *, prompt_tokens: int, max_tokens: int, context_tokens: int) -> None:
        super().__init__(prompt_tokens, max_tokens, context_tokens)
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.context_tokens = context_tokens

    def __str__(self) -> str:
        return (
            f"a prompt of {self.prompt_tokens} tokens and a reply of up to {self.max_tokens} do not fit into "
            f"the call's context of {self.context_tokens}; "
            "shorten the prompt, lower max_tokens or raise context_per_call"
        )


class NotFoundError(VoiceLLMError, LookupError):
    """A profile, call or adapter of that name does not exist."""

    code = "not_found"


class CallBusyError(VoiceLLMError):
    """The call already has a running turn."""

    code = "call_busy"


class WrongStateError(VoiceLLMError):
    """The operation is not legal in the object's present state (for example: the call is closed)."""

    code = "wrong_state"


class AtCapacityError(VoiceLLMError):
    """No sequence is free for another call.

    Attributes:
        retry_after_s: When trying again is worth it, in seconds.
    """

    code = "at_capacity"

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnauthenticatedError(VoiceLLMError):
    """Who is asking did not say so, or not in a way that holds."""

    code = "unauthenticated"


class ForbiddenError(VoiceLLMError):
    """Who is asking may not do this, or not in that tenant's name."""

    code = "forbidden"


class TooLargeError(VoiceLLMError):
    """A message is larger than the server takes."""

    code = "too_large"


class LoadingError(VoiceLLMError):
    """The model is not loaded yet.

    Attributes:
        retry_after_s: When trying again is worth it, in seconds.
    """

    code = "loading"

    def __init__(self, message: str = "the model is being loaded", *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DrainingError(VoiceLLMError):
    """The server is about to end and takes nothing new.

    Attributes:
        retry_after_s: When trying again, elsewhere or here, is worth it, in seconds.
    """

    code = "draining"

    def __init__(self, message: str = "the server is shutting down", *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ModelFileError(VoiceLLMError):
    """A model file is missing, truncated, or not a GGUF file that llama.cpp can load."""

    code = "model_file"


class SlowConsumerError(VoiceLLMError):
    """The reader of a reply fell too far behind; its turn was cancelled."""

    code = "slow_consumer"


class EngineError(VoiceLLMError):
    """Something inside the engine failed; the detail is for logs, not for peers."""


class BackendError(EngineError):
    """The inference library reported a failure."""


class ContextFullError(BackendError):
    """The KV cache had no room for a batch."""


class EngineDeadError(EngineError):
    """The engine's thread has ended or is stalled; no call can go on."""
