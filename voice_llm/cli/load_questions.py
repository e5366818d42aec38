"""What the benchmark asks: callers' questions with the instructions and facts that a phone line has."""

from __future__ import annotations

from typing import Final

__all__ = ["FACTS", "QUESTIONS", "SYSTEM"]

SYSTEM: Final = (
    "You answer the phone of a household insurer. Answer in the caller's language, in one to three short spoken "
    "sentences, from the facts you are given. If they do not say, offer to connect the caller to a colleague."
)

FACTS: Final = (
    "Opening hours: Monday to Friday 8:00 to 18:00, Saturday 9:00 to 13:00. "
    "Water damage from burst pipes is covered up to 50,000 euros, with an excess of 150 euros; slow leaks are not. "
    "Glass is covered without an excess. Theft needs a police report within 48 hours. "
    "A claim is reported by phone or in the app; an expert calls back within two working days. "
    "Bisiklet hırsızlığı, bisiklet kilitliyse 1.500 avroya kadar karşılanır. "
    "Sözleşme her yıl uzar; fesih süresi vade bitiminden üç ay öncedir."
)

QUESTIONS: Final = (
    "Hello, a pipe has burst in my kitchen. Is the damage covered?",
    "Merhaba, bisikletim çalındı, sigorta karşılıyor mu?",
    "Until when can I reach you on Saturdays?",
    "My window is broken. Do I have to pay an excess?",
    "Sözleşmemi feshetmek istiyorum, ne zamana kadar bildirmem gerekiyor?",
    "Somebody broke into my flat last night. What do I have to do now?",
    "How long does it take until the expert calls me back?",
    "Hasarı nasıl bildirebilirim, telefonla olur mu?",
)
