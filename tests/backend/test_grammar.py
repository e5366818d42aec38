from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.backend.llama.grammar import check_grammar
from voice_llm.errors import GrammarError

pytestmark = pytest.mark.unit

EXPONENTIAL = "root ::= a0\n" + "".join(f"a{i} ::= a{i + 1} | a{i + 1}\n" for i in range(40)) + 'a40 ::= "x"'

ACCEPTED = [
    'root ::= "yes" | "no"',
    'root ::= "evet" | "hayır" | "\\u0131şık"',
    "root ::= [a-z]+ [^0-9]? . # a comment\n\nunused ::= [a\\]\\-]",
    'root ::= (\n  "a" |\n  "b"\n)* item{2,3} "c"{4} "d"{1,}\nitem ::= "-" root',
    'root ::=\n  "a"\r\nb ::= "("\n',
    'root ::= "a" root | ""',
    'root ::= (("x"?){50} "y"?){2}',
    'root ::= "x"{0,2000}',
]

REFUSED = {
    "empty": (" \n\t", "is empty"),
    "only a comment": ("# nothing\n", "no rule 'root'"),
    "a NUL": ('root ::= "a\0b"', "no NUL"),
    "half a surrogate pair": ('root ::= "\ud800"', "surrogate"),
    "huge": ('root ::= "' + "a" * 70_000 + '"', "at most 65536 bytes"),
    "no root": ('start ::= "a"', "no rule 'root'"),
    "an undefined rule": ("root ::= answer", "no rule 'answer'"),
    "left recursion": ('root ::= root "a" | "b"', "left-recursive: root -> root"),
    "left recursion by way of others": ('root ::= a\na ::= b "x"\nb ::= root', "left-recursive"),
    "left recursion behind an empty rule": ('root ::= s\ns ::= b s "z" | "y"\nb ::= e e\ne ::= "x" | ""', "left-rec"),
    "left recursion that never reaches a text": ('root ::= b root\nb ::= e e\ne ::= ""', "left-recursive"),
    "left recursion behind a group": ('root ::= ("x"? []){3} root', "left-recursive"),
    "nothing twice": ('root ::= ""{2}', "repeats what is empty"),
    "nothing after none": ('root ::= "a"{0}*', "repeats what is empty"),
    "endlessly nothing": ('root ::= x*\nx ::= "a"? y{0,2}\ny ::= "b"', "repeats without limit what may be empty"),
    "endlessly nothing in a group": ('root ::= ("a"* "b"*)+', "repeats without limit what may be empty"),
    "endlessly nothing at once": ('root ::= "a"?{3,}', "repeats without limit what may be empty"),
    "an endless search for left recursion": (EXPONENTIAL, "too many ways"),
    "deep nesting": ("root ::= " + "(" * 200 + '"a"' + ")" * 200, "at most 64 groups"),
    "deep nesting hidden by brackets in a literal": (
        'root ::= "' + ")" * 20_000 + '" ' + "(" * 20_000 + '"a"' + ")" * 20_000,
        "at most 64 groups",
    ),
    "a repetition that ends before it begins": ('root ::= "a"{5,2}', "repetition of 5 to 2"),
    "more repetitions than llama.cpp counts": ('root ::= "a"{0,3000}', "at most 2000 times"),
    "a number beyond any machine": ('root ::= "a"{99999999999999999999999}', "at most 2000 times"),
    "gigabytes once written out": ('root ::= "' + "a" * 60_000 + '"{0,2000}', "elements"),
    "tokens by id": ('root ::= "a" !<[5]>', "may not name tokens"),
    "tokens by name": ("root ::= <think>", "may not name tokens"),
    "an open quote": ('root ::= "a', "line 1"),
    "an unknown escape": ('root ::= "a"\nb ::= "\\q"', "line 2"),
    "an open group": ('root ::= ("a"', "its end where ')' must be"),
    "a stray bracket": ('root ::= "a" )', "')' where"),
    "a repetition of nothing": ("root ::= *", "a repetition where"),
    "an alternative on a new line": ('root ::= "a"\n  | "b"', "'|' where a rule's name must be"),
    "no definition": ("root", "its end where '::=' must be"),
}


@pytest.mark.parametrize("text", ACCEPTED)
def test_a_sound_grammar_passes(text: str) -> None:
    check_grammar(text)


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_grammar_that_would_harm_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(reason)) as caught:
        check_grammar(text)
    assert caught.value.param == "grammar"


def test_the_error_names_the_field_that_the_grammar_came_from() -> None:
    with pytest.raises(GrammarError) as caught:
        check_grammar("", param="json_schema")
    assert caught.value.param == "json_schema"


def test_a_long_chain_of_rules_is_no_recursion() -> None:
    chain = "".join(f"r{i} ::= r{i + 1}\n" for i in range(1000))
    check_grammar("root ::= r0\n" + chain + 'r1000 ::= "x"')


@given(st.text(alphabet='abr o t:=|()[]{}*+?".,0123456789#^-\\\n<!ı', max_size=60))
def test_any_text_is_either_passed_or_refused(text: str) -> None:
    with contextlib.suppress(GrammarError):
        check_grammar("root ::= " + text)
