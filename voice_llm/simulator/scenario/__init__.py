"""Scenarios: phone calls as files tell them, with what is expected of each reply."""

from __future__ import annotations

from .casting import cast, script_of
from .load import LoadedScenario, find_scenarios, list_scenarios, load_scenarios, scenario_schema
from .model import Expectation, ExpectedCall, Pause, Person, Reference, Scenario, ScenarioTool, ScenarioTurn, SendAfter

__all__ = [
    "Expectation",
    "ExpectedCall",
    "LoadedScenario",
    "Pause",
    "Person",
    "Reference",
    "Scenario",
    "ScenarioTool",
    "ScenarioTurn",
    "SendAfter",
    "cast",
    "find_scenarios",
    "list_scenarios",
    "load_scenarios",
    "scenario_schema",
    "script_of",
]
