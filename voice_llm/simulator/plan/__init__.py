"""Capacity: how many calls a machine holds."""

from __future__ import annotations

from .plan import Agreement, CapacityPlan, Replicas, find_capacity
from .points import LoadPoint, MeasuredTime, measure_point, simulate_point

__all__ = [
    "Agreement",
    "CapacityPlan",
    "LoadPoint",
    "MeasuredTime",
    "Replicas",
    "find_capacity",
    "measure_point",
    "simulate_point",
]
