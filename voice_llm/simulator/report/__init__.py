"""Reports of simulated calls: in the terminal, as JSON, and as one HTML page."""

from __future__ import annotations

from .build import build_report
from .compare import Change, compare, worse
from .live import LiveView
from .model import Report, read_report
from .page import render_page
from .terminal import comparison_table, render_report, verdict

__all__ = [
    "Change",
    "LiveView",
    "Report",
    "build_report",
    "compare",
    "comparison_table",
    "read_report",
    "render_page",
    "render_report",
    "verdict",
    "worse",
]
