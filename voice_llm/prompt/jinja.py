"""Jinja as chat templates expect it, within bounds: a template comes with a model file and is not trusted."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..errors import TemplateError

MAX_ITERATIONS = 1_000_000
"""Most loop iterations of one rendering, nested ones counted each: a fraction of a second of work.

``range`` and recursion are bounded by the sandbox and by Python. Recursion that branches, and arithmetic on huge
strings, are not.
"""

HINT = "name another one as chat_template in the profile"
"""What to do about a template that cannot be used."""

_BUDGET = "_iterations_left"


def compile_template(source: str, date: datetime.date | None) -> jinja2.Template:
    """Compile a chat template the way Hugging Face does.

    Raises:
        TemplateError: The text is no Jinja template.
    """
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
    env.filters["tojson"] = _to_json
    env.filters[_BUDGET] = _count_iterations
    env.globals["raise_exception"] = _raise_exception
    if date is not None:
        env.globals["strftime_now"] = date.strftime
    try:
        tree = env.parse(source)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = nodes.Filter(loop.iter, _BUDGET, [], [], None, None, lineno=loop.lineno)
        return env.from_string(tree)
    except (jinja2.TemplateError, RecursionError, ValueError, OverflowError) as error:
        raise TemplateError(f"the chat template cannot be compiled: {error}; {HINT}") from error


def render(template: jinja2.Template, variables: Mapping[str, Any], **more: Any) -> str:
    """Render a template.

    Raises:
        TemplateError: The template raised, with its own message, or did more work than is allowed.
    """
    try:
        return template.render({**variables, **more, _BUDGET: [MAX_ITERATIONS]})
    except Exception as error:  # A template can raise whatever Python can; the caller of a prompt expects one error.
        message = str(error) or type(error).__name__
        hint = "it prints the date: give it one" if "'strftime_now' is undefined" in message else HINT
        raise TemplateError(f"the chat template failed: {message}; {hint}") from error


class _Generation(Extension):
    """``{% generation %}``, which marks replies for training and prints its body here."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it as a plain set

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@jinja2.pass_context
def _count_iterations(context: Context, iterable: Iterable[Any]) -> list[Any]:
    items = list(iterable)
    left = context[_BUDGET]
    left[0] -= len(items)
    if left[0] < 0:
        raise OverflowError(f"it loops more than {MAX_ITERATIONS} times")
    return items


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes for HTML, which no model was trained on.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
