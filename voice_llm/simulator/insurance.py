"""make_scripts: reproducible calls to an insurance company's phone desk, in English and Turkish."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..errors import InvalidRequestError
from .script import CallerTurn, CallScript

__all__ = ["SYSTEM_PROMPT", "make_scripts"]

SYSTEM_PROMPT: Final = (
    "You are the phone assistant of Northfield Insurance. Answer in the language of the caller, in one or two short "
    "sentences, with the facts from the information for this call. No lists and no markup: what you write is spoken. "
    "If the information does not say it, say that a colleague will call back today. Never guess amounts or dates. "
    "Say amounts in euros and times by the hour, and repeat a number when the caller asks for it. Take your time with "
    "callers who are upset: say first that you are sorry, then what happens next. Do not promise that a damage will be "
    "paid; the claims team decides. Do not talk about other customers or other companies. When the caller has no more "
    "questions, thank them for the call and say goodbye. If you did not understand, ask the caller to say it again."
)


@dataclass(frozen=True, slots=True)
class _Language:
    """Sentences with fields; a question has 8 to 25 words, with and without what leads into it."""

    names: tuple[str, ...]
    streets: tuple[str, ...]
    things: tuple[str, ...]
    rooms: tuple[str, ...]
    days: tuple[str, ...]
    facts: tuple[str, ...]
    greetings: tuple[str, ...]
    lead_ins: tuple[str, ...]
    questions: tuple[str, ...]


_ENGLISH: Final = _Language(
    names=("Ada Clarke", "Brian Holt", "Carol Jensen", "David Okafor", "Emma Lindqvist", "Frank Moreau", "Grace Patel"),
    streets=("Mill Lane", "Station Road", "Orchard Street", "Harbour View", "King's Avenue"),
    things=("bicycle", "laptop", "washing machine", "television", "wedding ring", "sofa"),
    rooms=("kitchen", "bathroom", "cellar", "living room", "garage"),
    days=("Monday", "Tuesday", "Wednesday", "Thursday", "Friday"),
    facts=(
        "The caller is {name}, {street} {house}, and has been a customer since {year}.",
        "The policy is Home Plus, number NH {policy}, with a premium of {premium} euros a month.",
        "Furniture, clothes and electronics are covered up to {cover},000 euros.",
        "The deductible for water damage is {water} euros, for theft {theft} euros.",
        "The last claim was a broken {thing} in {year}; {paid} euros were paid on the {day_number}th of May.",
        "The open claim has the number C {claim}: water in the {room}, reported on {day}.",
        "A plumber of the partner network is booked for {day} between {hour} and {later} o'clock.",
        "Damage must be reported within {report} days, a theft to the police within one day.",
        "Floods from rivers are not covered; the cover can be added for {flood} euros a month.",
        "The policy ends on the {day_number}th of November and can be cancelled with {notice} weeks of notice.",
        "Money arrives within {transfer} working days on the account that ends in {account}.",
        "A bicycle is covered up to {bicycle} euros if it was locked, abroad for {abroad} weeks a year.",
        "Broken windows are covered up to {glass} euros, lost keys up to {keys} euros.",
    ),
    greetings=("", "Hello, good morning.", "Good afternoon."),
    lead_ins=("", "", "Okay, thank you.", "All right, one more thing.", "I see, and"),
    questions=(
        "how much do I have to pay myself for the water in my {room}",
        "could you tell me when exactly the plumber is going to come to my house",
        "is my {thing} still covered when somebody steals it from the {room} at night",
        "what is the number of my claim and has anyone looked at it since {day}",
        "how long does it take until the money for my {thing} is on my account",
        "I would like to know what my policy costs me each month at the moment",
        "until when can I cancel my policy, and does it have to be in writing",
        "my neighbour says floods are never covered, is that also true for my policy",
        "what do I have to do first if there is water in the {room} again on {day}",
        "I am moving to {street} next month, do I need to tell you before that",
    ),
)

_TURKISH: Final = _Language(
    names=("Ayşe Yıldız", "Burak Şahin", "Çiğdem Öztürk", "Deniz Kılıç", "Elif Güneş", "Gökhan Aydın", "İpek Doğan"),
    streets=("Gül Sokak", "İstasyon Caddesi", "Çınar Sokak", "Liman Caddesi", "Öğretmenler Caddesi"),
    things=("bisikletim", "dizüstü bilgisayarım", "çamaşır makinem", "ikinci telefonum", "alyansım", "koltuğum"),
    rooms=("mutfakta", "banyoda", "bodrumda", "salonda", "garajda"),
    days=("pazartesi", "salı", "çarşamba", "perşembe", "cuma"),
    facts=(
        "Arayan kişi {name}, adresi {street} {house}, {year} yılından beri müşterimiz.",
        "Poliçesi Konut Plus, numarası NH {policy}, aylık primi {premium} avro.",
        "Mobilya, giysi ve elektronik eşyalar {cover}.000 avroya kadar güvence altında.",
        "Su hasarında muafiyet {water} avro, hırsızlıkta {theft} avro.",
        "Son hasar dosyası {year} yılında kapandı; {paid} avro {day_number} Mayıs günü ödendi.",
        "Açık hasar dosyasının numarası C {claim}: {room} su hasarı, {day} günü bildirildi.",
        "Anlaşmalı tesisatçı {day} günü saat {hour} ile {later} arasında gelecek.",
        "Hasar {report} gün içinde bize, hırsızlık bir gün içinde polise bildirilmeli.",
        "Nehir taşkınları kapsam dışında; ayda {flood} avroya eklenebilir.",
        "Poliçe {day_number} Kasım günü bitiyor, {notice} hafta önceden haber verilerek iptal edilebilir.",
        "Ödeme {transfer} iş günü içinde sonu {account} olan hesaba geçer.",
        "Kilitli bisiklet {bicycle} avroya kadar, yurt dışında yılda {abroad} hafta güvence altında.",
        "Kırılan camlar {glass} avroya, kaybolan anahtarlar {keys} avroya kadar güvence altında.",
    ),
    greetings=("", "Merhaba, iyi günler.", "İyi akşamlar."),
    lead_ins=("", "", "Tamam, teşekkür ederim.", "Peki, bir şey daha soracağım.", "Anladım, peki"),
    questions=(
        "{room} çıkan su hasarı için benim kendi cebimden ne kadar ödemem gerekiyor",
        "tesisatçının bizim eve tam olarak hangi gün ve saat kaçta geleceğini söyler misiniz",
        "{thing} gece {room} dururken çalınırsa sigortam bu zararı yine de karşılıyor mu",
        "hasar dosyamın numarası neydi ve {day} gününden beri dosyaya bakan oldu mu acaba",
        "{thing} için ödenecek para benim banka hesabıma en geç kaç günde geçer",
        "şu anda poliçem için her ay ne kadar prim ödediğimi öğrenmek istiyorum lütfen",
        "poliçemi en geç ne zamana kadar iptal edebilirim, yazılı olması şart mı",
        "komşum sel hasarının hiç ödenmediğini söylüyor, bu benim poliçem için de doğru mu",
        "{day} günü {room} yine su çıkarsa ilk önce ne yapmam gerekiyor acaba",
        "gelecek ay {street} üzerine taşınıyorum, bunu size önceden haber vermem gerekiyor mu",
    ),
)

_LANGUAGES: Final = {"en": _ENGLISH, "tr": _TURKISH}


def make_scripts(
    seed: int, calls: int, *, turns: int = 6, languages: Sequence[str] = ("en", "tr"), **fields: Any
) -> tuple[CallScript, ...]:
    """Make calls that share a system prompt and nothing else.

    Each has facts of its own, asks questions of 8 to 25 words, and is held by a person with a pace of their own. Call
    ``n`` of a seed is the same however many are made.

    Args:
        seed: Makes the calls repeatable.
        calls: How many.
        turns: Questions of each.
        languages: ``en``, ``tr`` or both; the calls take turns.
        **fields: Fields of ``CallScript`` that are to be the same in all calls.

    Raises:
        InvalidRequestError: A language is unknown, or a number or field is out of range.
    """
    if not languages or not _LANGUAGES.keys() >= set(languages):
        raise InvalidRequestError(f"languages must be of {', '.join(_LANGUAGES)}, not {languages!r}", param="languages")
    return tuple(
        _make_script(random.Random(f"{seed}/{n}"), _LANGUAGES[languages[n % len(languages)]], turns, fields)
        for n in range(calls)
    )


def _make_script(rng: random.Random, language: _Language, turns: int, fields: dict[str, Any]) -> CallScript:
    policy_facts = {
        "name": rng.choice(language.names),
        "street": rng.choice(language.streets),
        **{name: rng.randint(low, high) for name, (low, high) in _NUMBERS.items()},
    }
    facts = [fact.format(**policy_facts, **_circumstances(rng, language)) for fact in language.facts]
    rng.shuffle(facts)
    questions = [
        _question(rng, language, number, language.lead_ins if turn else language.greetings)
        for turn, number in enumerate(_order(rng, language, turns))
    ]
    person = {"speaking_wpm": round(rng.uniform(130, 170), 1), "think_s": round(rng.uniform(0.4, 1.5), 2)}
    return CallScript(
        **{
            "turns": tuple(CallerTurn(question) for question in questions),
            "system_prompt": SYSTEM_PROMPT,
            "rag_context": "\n".join(facts),
            **person,
            **fields,
        }
    )


_NUMBERS: Final = {
    "house": (1, 180),
    "year": (2004, 2024),
    "policy": (10_000_000, 99_999_999),
    "premium": (9, 48),
    "cover": (20, 90),
    "water": (100, 400),
    "theft": (100, 400),
    "paid": (80, 2400),
    "day_number": (10, 20),
    "claim": (100_000, 999_999),
    "hour": (8, 12),
    "later": (13, 18),
    "report": (2, 7),
    "flood": (4, 15),
    "notice": (2, 8),
    "transfer": (2, 9),
    "account": (1000, 9999),
    "bicycle": (500, 3000),
    "abroad": (3, 12),
    "glass": (200, 2000),
    "keys": (100, 500),
}


def _circumstances(rng: random.Random, language: _Language) -> dict[str, str]:
    return {
        "thing": rng.choice(language.things),
        "room": rng.choice(language.rooms),
        "day": rng.choice(language.days),
    }


def _order(rng: random.Random, language: _Language, turns: int) -> list[int]:
    """Choose questions: none comes twice before all have come."""
    order: list[int] = []
    while len(order) < turns:
        order += rng.sample(range(len(language.questions)), len(language.questions))
    return order[:turns]


def _question(rng: random.Random, language: _Language, number: int, lead_ins: Sequence[str]) -> str:
    question = language.questions[number].format(street=rng.choice(language.streets), **_circumstances(rng, language))
    lead_in = rng.choice(lead_ins)
    if lead_in.endswith("."):
        return f"{lead_in} {_capitalize(question, language)}?"
    return f"{lead_in} {question}?" if lead_in else f"{_capitalize(question, language)}?"


def _capitalize(text: str, language: _Language) -> str:
    first = "İ" if language is _TURKISH and text[0] == "i" else text[0].upper()
    return first + text[1:]
