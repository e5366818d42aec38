"""StructuralTags: the parts of a reply that have a form, such as tool calls, amid text that has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["StructuralTag", "StructuralTags"]


@dataclass(frozen=True, slots=True)
class StructuralTag:
    """One form: ``begin``, a JSON value, ``end``.

    Attributes:
        begin: Starts with the trigger of the tags that it is one of.
        schema: JSON schema of the value.
        end: What follows the value.
        param: What an error about the schema names as the offending field.
        strict: Whether a keyword that cannot be enforced is refused; else it is left to the model.
    """

    begin: str
    schema: Mapping[str, Any]
    end: str
    param: str = "tools"
    strict: bool = True


@dataclass(frozen=True, slots=True)
class StructuralTags:
    """What a reply must look like from its first tag on: tags without anything between them, then its end.

    Attributes:
        trigger: Text that opens a tag.
        tags: The forms to choose from; at least one.
        at_once: Whether the reply starts with a tag, instead of with free text up to the trigger.
        most: Most tags of a reply.
    """

    trigger: str
    tags: tuple[StructuralTag, ...]
    at_once: bool = False
    most: int = 8
