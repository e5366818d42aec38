"""Capacity: how many calls a machine holds."""

from __future__ import annotations

from .plan import Agreement, CapacityPlan, Replicas, agreements, find_capacity
from .points import EngineModel, LoadPoint, MeasuredTime, SimulatedRun, measure_point, simulate_points

__all__ = [
    "Agreement",
    "CapacityPlan",
    "EngineModel",
    "LoadPoint",
    "MeasuredTime",
    "Replicas",
    "SimulatedRun",
    "agreements",
    "find_capacity",
    "measure_point",
    "simulate_points",
]
