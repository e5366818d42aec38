from __future__ import annotations

import datetime

import pytest

from voice_llm.errors import TemplateError
from voice_llm.prompt import ChatTemplate, Content, Literal, Role
from voice_llm.prompt.template import Part

pytestmark = pytest.mark.unit

CHATML = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
STRICT = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "<{{ m.role }}>{{ m.content | trim }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
NESTED = "{% for i in range(600) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
USER = "{% for m in messages %}{{ m.content }}{% endfor %}"


def show(parts: tuple[Part, ...]) -> str:
    return "".join(part.text if isinstance(part, Literal) else f"[{part.message_index}]" for part in parts)


def lay_out(source: str, roles: list[Role], **options: bool) -> str:
    return show(ChatTemplate(source, bos_token="^").render(roles, **options))


def test_contents_are_cut_out_of_the_literal_text() -> None:
    parts = ChatTemplate(CHATML).render(["system", "user"])
    assert parts == (Literal("<system>"), Content(0), Literal("</><user>"), Content(1), Literal("</><assistant>"))


def test_open_ended_stops_after_the_last_content() -> None:
    assert lay_out(CHATML, ["system", "user"], open_ended=True) == "<system>[0]</><user>[1]"


def test_roles_that_must_alternate_are_merged() -> None:
    assert lay_out(STRICT, ["user", "user", "assistant", "assistant", "user"]) == (
        "^<user>[0]\n[1]</><assistant>[2]\n[3]</><user>[4]</><assistant>"
    )
    assert lay_out(CHATML, ["user", "user"]) == "<user>[0]</><user>[1]</><assistant>"


def test_a_refused_system_message_goes_before_the_first_user_message() -> None:
    assert lay_out(STRICT, ["system", "user", "user"]) == "^<user>[0]\n\n[1]\n[2]</><assistant>"


def test_a_dropped_system_message_goes_before_the_first_user_message() -> None:
    drops = "{% for m in messages %}{% if m.role != 'system' %}<{{ m.role }}>{{ m.content }}</>{% endif %}{% endfor %}"
    assert lay_out(drops, ["system", "user"]) == "<user>[0]\n\n[1]</>"


def test_a_system_message_that_moves_with_the_last_turn_is_kept_at_the_start() -> None:
    moves = (
        "{% if messages[0].role == 'system' %}"
        "{% set system = messages[0].content %}{% set messages = messages[1:] %}{% endif %}"
        "{% for m in messages %}{% if loop.last and system is defined %}{{ system }} {% endif %}"
        "<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    )
    assert lay_out(moves, ["system", "user"]) == "<user>[0]\n\n[1]</>"


def test_a_refused_greeting_answers_an_empty_user_message() -> None:
    assert lay_out(STRICT, ["assistant", "user"]) == "^<user></><assistant>[0]</><user>[1]</><assistant>"
    assert lay_out(STRICT, ["system", "assistant", "user"]) == ("^<user>[0]</><assistant>[1]</><user>[2]</><assistant>")
    assert lay_out(CHATML, ["assistant", "user"]) == "<assistant>[0]</><user>[1]</><assistant>"


def test_a_system_message_alone_can_be_prefilled_and_answered() -> None:
    assert lay_out(STRICT, ["system"], open_ended=True) == "^<user>[0]"
    assert lay_out(STRICT, ["system"]) == "^<user>[0]</><assistant>"
    assert lay_out(CHATML, ["system"]) == "<system>[0]</><assistant>"
    needs_user = "{% if messages[-1].role == 'system' %}{{ raise_exception('no user') }}{% endif %}" + CHATML
    assert lay_out(needs_user, ["system"], open_ended=True) == "<system>[0]"


@pytest.mark.parametrize("first", ["user", "system"])
def test_a_greeting_may_be_refused_with_or_without_a_system_message(first: str) -> None:
    """One of the two is enough for a template not to start with the assistant."""
    greets = "(messages | rejectattr('role', 'equalto', 'system') | first | default({'role': ''})).role == 'assistant'"
    has_system = "messages[0].role == 'system'"
    refused = has_system if first == "system" else f"not {has_system}"
    source = f"{{% if {greets} and {refused} %}}{{{{ raise_exception('no greeting') }}}}{{% endif %}}" + CHATML
    assert lay_out(source, ["assistant", "user"]).startswith("<user></><assistant>[0]")
    assert lay_out(source, ["system", "assistant", "user"]).startswith("<system>[0]</><user></><assistant>[1]")


@pytest.mark.parametrize("source", [CHATML, STRICT])
def test_an_open_ended_layout_begins_every_longer_one(source: str) -> None:
    chat: list[Role] = ["system", "assistant", "user", "user", "assistant", "user"]
    for count in range(2, len(chat) + 1):
        start = lay_out(source, chat[:count], open_ended=True)
        assert lay_out(source, chat).startswith(start)
        assert lay_out(source, chat[:count]).startswith(start)


def test_templates_may_look_at_contents() -> None:
    qwen3 = (
        "{% for m in messages %}{% set content = m.content if m.content is string else '' %}"
        "{% if '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
        "{{ '<' + m.role + '>' + content.strip() }}{% endfor %}"
    )
    assert lay_out(qwen3, ["user", "assistant"]) == "<user>[0]<assistant>[1]"


def test_white_space_is_handled_as_hugging_face_does() -> None:
    source = "{% for m in messages %}\n    {% if true %}\n{{ m.content }}!\n    {% endif %}\n{% endfor %}\n"
    assert lay_out(source, ["user", "user"]) == "[0]!\n[1]!\n"


def test_hugging_face_extensions_work() -> None:
    source = (
        "{% for m in messages %}{% if loop.index > 9 %}{% break %}{% endif %}"
        "{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}{{ {'a': '<ğ>'} | tojson }}"
    )
    assert lay_out(source, ["user"]) == '[0]{"a": "<ğ>"}'


def test_the_date_is_an_argument() -> None:
    source = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}" + USER
    assert lay_out(source, ["user"]) == "[0]"
    dated = ChatTemplate(source, date=datetime.date(2025, 3, 9))
    assert show(dated.render(["user"])) == "09 Mar 2025[0]"
    with pytest.raises(TemplateError, match="give it one"):
        ChatTemplate("{{ strftime_now('%d') }}" + USER)


def test_variables_reach_the_template() -> None:
    template = ChatTemplate(
        USER + "{% if enable_thinking is false %}<no>{% endif %}", variables={"enable_thinking": False}
    )
    assert show(template.render(["user"])) == "[0]<no>"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{% for m in messages %}", "cannot be compiled"),
        ("{{ raise_exception('only cats') }}", "only cats"),
        ("{{ messages[0].content }}{{ 1 / 0 }}", "division by zero"),
        ("{{ messages.clear() }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}" + USER, "unsafe"),
        ("{% for i in range(10000000) %}{% endfor %}" + USER, "(?i)range"),
        ("{% set r = range(5000) %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}" + USER, "loops more than"),
        (
            "{% macro f() %}" + NESTED + "{% endmacro %}{{ f() }}" + USER,
            "loops more",
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}" + USER, "recursion"),
        ("nothing", "0 times"),
        (USER + USER, "2 times"),
        ("{{ messages[0].content[1:] }}", "0 times"),
    ],
)
def test_a_template_that_cannot_be_used_is_an_error_that_says_why(source: str, says: str) -> None:
    with pytest.raises(TemplateError, match=says) as refusal:
        ChatTemplate(source)
    assert "chat_template in the profile" in str(refusal.value)


def test_a_chat_that_the_template_refuses_is_an_error() -> None:
    with pytest.raises(TemplateError, match="roles must alternate"):
        ChatTemplate(STRICT).render(["user", "assistant", "tool"])


def test_a_reply_follows_what_it_followed_when_it_was_sampled() -> None:
    mistral = (
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>"
        "{% endif %}{% endfor %}"
    )
    assert ChatTemplate(mistral).as_sampled(" [/INST] ") == " [/INST]"
    thinking = CHATML.replace("<assistant>{% endif", "<assistant><think></think>{% endif")
    assert ChatTemplate(thinking).as_sampled("</><assistant>") == "</><assistant><think></think>"
    assert ChatTemplate(thinking).as_sampled("<user>") == "<user>"
    channels = CHATML.replace("{{ m.content }}", "<final>{{ m.content }}")
    assert ChatTemplate(channels).as_sampled("</><assistant><final>") == "</><assistant>"
    assert ChatTemplate(CHATML).as_sampled("</><assistant>") == "</><assistant>"
