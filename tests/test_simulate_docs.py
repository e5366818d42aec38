"""The examples of docs/simulate.md hold."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from voice_llm.simulator import parse_objective
from voice_llm.simulator.arrivals import parse_arrivals
from voice_llm.simulator.metrics import SHARES, TIMES
from voice_llm.simulator.scenario import find_scenarios

pytestmark = pytest.mark.unit

DOCS = (Path(__file__).parent.parent / "docs" / "simulate.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)


def test_scenario_of_the_page_can_be_read(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    path = tmp_path / "bakery.yaml"
    path.write_text(text)
    (scenario,) = find_scenarios([str(path)])
    assert [bool(turn.user) for turn in scenario.turns] == [True, True, False, True]
    assert scenario.turns[0].partials[1] == "What does a right"


def test_objectives_and_arrivals_of_the_page_can_be_read() -> None:
    objectives = set(re.findall(r'--objective "([^"]+)"', DOCS)) | set(re.findall(r'parse_objective\("([^"]+)"', DOCS))
    assert len(objectives) >= 2
    for text in objectives:
        parse_objective(text)
    for text in re.findall(r"`((?:poisson|ramp|bursts|spread):[\d:]+)`", DOCS):
        parse_arrivals(text)


def test_page_explains_every_figure() -> None:
    for name in (*TIMES, *SHARES):
        assert name == "total" or f"`{name}`" in DOCS, name


def test_python_of_the_page_imports_what_there_is() -> None:
    (text,) = blocks("python")
    imports: list[ast.stmt] = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), "docs/simulate.md", "exec"), {})
