"""Prompts: chat template, tools, retrieved text, history budget, spliced replies, and content that stays content."""

from __future__ import annotations

from .budget import TurnTokens, first_kept_turn
from .families import FAMILIES, resolve_template
from .formatter import Prompt, PromptFormatter
from .layout import ENGLISH, TURKISH, Headings, LaidMessage, arrange, lay_out
from .messages import Message, Role, parse_messages
from .reply import Reply, match_replies, splice
from .template import ChatTemplate, Content, Literal
from .tokenizer import Tokenizer
from .tokens import Sampled, Text, TokenEncoder
from .tool_format import ToolFormat
from .tools import AllowedTools, Tool, ToolChoice, parse_tool_choice, parse_tools

__all__ = [
    "ENGLISH",
    "FAMILIES",
    "TURKISH",
    "AllowedTools",
    "ChatTemplate",
    "Content",
    "Headings",
    "LaidMessage",
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
    "Tool",
    "ToolChoice",
    "ToolFormat",
    "TurnTokens",
    "arrange",
    "first_kept_turn",
    "lay_out",
    "match_replies",
    "parse_messages",
    "parse_tool_choice",
    "parse_tools",
    "resolve_template",
    "splice",
]
