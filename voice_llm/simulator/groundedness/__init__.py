"""Groundedness: whether replies say only what the call's facts bear out."""

from __future__ import annotations

from .ask import ask_all
from .load import load_questions
from .score import Answer, GroundedQuestion, Grounding, Scores, score

__all__ = ["Answer", "GroundedQuestion", "Grounding", "Scores", "ask_all", "load_questions", "score"]
