"""Tables and picture say what the result says; the README's are those of the committed one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bench import tables
from benchmarks.bench.plot import write_plot
from benchmarks.bench.results import write
from benchmarks.bench.tables import README, RESULTS, details, readme_block, write_docs

from .bench_points import ABOUT, late, point

pytestmark = pytest.mark.unit

POINTS = [
    point("ours", 2, clause_ms=(50.0,) * 100, computed_tokens=12_000.0),
    late(900, system="ours", calls=4),
    late(800, system="peer", calls=2, cached_tokens=0, errors={"target": 1}),
    late(2500, system="peer", calls=4),
]


@pytest.fixture
def result(tmp_path: Path) -> Path:
    path = tmp_path / "bench.json"
    write(path, ABOUT, POINTS, [{"system": "peer", "round": 0, "not_measured": [8, 16]}])
    return path


def test_readme_says_how_many_calls_each_system_holds(result: Path) -> None:
    block = readme_block(result)
    assert "| | 0.5 s | **1 s** | 1.5 s | 2 s | 3 s | 4 s |" in block
    assert "| `ours` | 2 | 4 or more | 4 or more | 4 or more | 4 or more | 4 or more |" in block
    assert "| `peer` | 0 | 2 | 2 | 2 | 4 or more | 4 or more |" in block
    assert "| `ours` | **400** | **900** |" in block
    assert "| `peer` | **800** | 2500 |" in block
    assert "2 cores of Z80" in block


def test_details_have_a_row_a_point_and_only_columns_that_a_system_tells(result: Path) -> None:
    page = details(result)
    ours, peer = page.partition("## ours")[2].split("## peer")
    assert "first clause" in ours
    assert "50 / 50 / 50" in ours
    assert "10000 / 12000" in ours
    assert "first clause" not in peer
    assert "target 1" in peer
    assert "| 4 | 100 |" in peer
    assert "- `peer`, round 1: 8, 16 calls" in page


def test_write_docs_puts_the_table_between_the_markers(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n")
    monkeypatch.setattr(tables, "README", readme)
    monkeypatch.setattr(tables, "DOCS", tmp_path / "docs")
    assert write_docs(result)
    assert readme.read_text() == f"before\n<!-- bench -->\n{readme_block(result)}<!-- /bench -->\nafter\n"
    assert (tmp_path / "docs" / "bench.md").read_text() == details(result)
    readme.write_text("no markers\n")
    assert not write_docs(result)
    assert readme.read_text() == "no markers\n"


def test_picture_is_drawn_for_every_system(result: Path, tmp_path: Path) -> None:
    picture = tmp_path / "made" / "bench.png"
    write_plot(result, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 10_000


def test_run_in_which_nobody_spoke_has_a_picture_and_a_table_too(tmp_path: Path) -> None:
    silent = point(turns=0, first_token_ms=(), first_speech_ms=(), gap_s=())
    write(tmp_path / "bench.json", ABOUT, [silent], [])
    write_plot(tmp_path / "bench.json", tmp_path / "bench.png")
    assert "| `ours` | none |" in readme_block(tmp_path / "bench.json")
    assert "| 2 | 0 |" in details(tmp_path / "bench.json")


@pytest.mark.skipif(not RESULTS.exists(), reason="no run is committed")
def test_readme_has_the_figures_of_the_committed_result() -> None:
    """After ``make bench`` both change together."""
    assert readme_block() in README.read_text()
    assert (tables.DOCS / "bench.md").read_text() == details()
