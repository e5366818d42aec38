"""Capacity: how many calls a machine holds."""

from __future__ import annotations

from .plan import Agreement, CapacityPlan, Replicas, agreements, find_capacity
from .points import LoadPoint, MeasuredTime, measure_point, settled, simulate_point

__all__ = [
    "Agreement",
    "CapacityPlan",
    "LoadPoint",
    "MeasuredTime",
    "Replicas",
    "agreements",
    "find_capacity",
    "measure_point",
    "settled",
    "simulate_point",
]
