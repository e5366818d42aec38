"""Languages by their codes of BCP 47, such as ``tr`` or ``en-GB``."""

from __future__ import annotations

import re
from typing import Final

from ..errors import InvalidRequestError

__all__ = ["check_language", "primary_language"]

# A language, then what narrows it down: script, region, variants. An underscore is how locales write the hyphen.
_CODE: Final = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{1,8})*")
_MAX_CHARS: Final = 35


def check_language(code: str) -> str:
    """Return a language's code, if it is written as one. Whether there are rules for the language plays no part.

    Raises:
        InvalidRequestError: It is no code of BCP 47; ``param`` is ``language``.
    """
    if not isinstance(code, str) or len(code) > _MAX_CHARS or not _CODE.fullmatch(code):
        raise InvalidRequestError(
            f"language must be a code of BCP 47, such as 'tr' or 'en-GB', not {str(code)[:_MAX_CHARS]!r}",
            param="language",
        )
    return code


def primary_language(code: str) -> str:
    """Return the language itself, in lower case: ``tr`` of ``tr-TR``."""
    return re.split("[-_]", code)[0].lower()
