"""Prompts: chat template, retrieved text, history budget, spliced replies, and content that stays content."""

from __future__ import annotations

from .budget import TurnTokens, first_kept_turn
from .families import FAMILIES, resolve_template
from .formatter import Prompt, PromptFormatter
from .layout import ENGLISH, TURKISH, Headings, arrange
from .messages import Message, Role, parse_messages
from .reply import Reply, match_replies, splice
from .template import ChatTemplate, Content, Literal
from .tokenizer import Tokenizer
from .tokens import Sampled, Text, TokenEncoder

__all__ = [
    "ENGLISH",
    "FAMILIES",
    "TURKISH",
    "ChatTemplate",
    "Content",
    "Headings",
    "Literal",
    "Message",
    "Prompt",
    "PromptFormatter",
    "Reply",
    "Role",
    "Sampled",
    "Text",
    "TokenEncoder",
    "Tokenizer",
    "TurnTokens",
    "arrange",
    "first_kept_turn",
    "match_replies",
    "parse_messages",
    "resolve_template",
    "splice",
]
