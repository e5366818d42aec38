"""Tables and picture say what the result says; the README's are those of the committed one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench import tables
from benchmarks.bench.plot import write_plot
from benchmarks.bench.points import Pooled
from benchmarks.bench.results import write
from benchmarks.bench.tables import PICTURE, README, RESULTS, details, readme_block, write_docs

from .bench_points import ABOUT, late, point

pytestmark = pytest.mark.unit

STOCK, HINTS = "voice-llm", "voice-llm hints"
POINTS = [
    late(900, system=HINTS, calls=4, server_first_token_ms=(20.0,) * 100, first_token_ms=(60.0,) * 100),
    point(HINTS, 2, clause_ms=(50.0,) * 100, computed_tokens=12_000.0, commit="abc1234"),
    late(1600, system=STOCK),
    late(800, system="peer", calls=2, cached_tokens=0, errors={"target": 1}, date="2026-02-02T12:00:00+00:00"),
    late(2500, system="peer", calls=4),
    late(1400, system="slower peer"),
    late(9000, system="slower peer", calls=4),
]
SYSTEMS = {"peer": "the other", "slower peer": "a third", STOCK: "our own", HINTS: "with hints"}
RUN: dict[str, Any] = {**ABOUT, "systems": SYSTEMS, "peers": ["peer", "slower peer"]}


@pytest.fixture
def result(tmp_path: Path) -> Path:
    path = tmp_path / "bench.json"
    write(path, RUN, POINTS)
    return path


def test_readme_says_how_many_calls_each_system_holds(result: Path) -> None:
    block = readme_block(result)
    assert "| | 0.5 s | **1 s** | 1.5 s | 2 s | 3 s | 4 s |" in block
    assert "| `voice-llm hints` | 2 | 4 or more | 4 or more | 4 or more | 4 or more | 4 or more |" in block
    assert "| `peer` | 0 | 2 | 2 | 2 | 4 or more | 4 or more |" in block
    assert "| `voice-llm hints` | **400** | **900** |" in block
    assert "| `peer` | **800** | 2500 |" in block
    assert "2 cores of Z80" in block
    assert "2026-01-31 to 2026-02-02: up to 1 rounds" in block


def test_readme_holds_ours_against_the_best_peer_of_each_bound(result: Path) -> None:
    block = readme_block(result)
    assert (
        "| `voice-llm hints` against the best peer "
        "| none | 2.0x or more | 2.0x or more | 2.0x or more | not known | not known |"
    ) in block
    assert "| `voice-llm` against the best peer | none | 0.0x | 0.0x | 1.0x or more | not known | not known |" in block


def test_ratio_is_left_out_where_no_peer_was_measured(tmp_path: Path) -> None:
    write(tmp_path / "bench.json", RUN, [found for found in POINTS if "peer" not in found.system])
    assert "against" not in readme_block(tmp_path / "bench.json")


def test_first_token_is_told_at_the_client_and_by_the_server_where_it_tells(result: Path) -> None:
    block = readme_block(result)
    assert "| `voice-llm hints`, at the client | 100 | 60 |" in block
    assert "| `voice-llm hints`, the server's own | - | 20 |" in block
    assert "| `peer`, at the client | 100 | 100 |" in block
    assert "| `voice-llm hints`, the server's own, against the best peer at the client | - | 0.20 |" in block
    assert "| `voice-llm hints`, at the client, against the best peer at the client | 1.00 | 0.60 |" in block
    assert "`peer`, the server's own" not in block


def test_first_token_is_not_compared_where_every_peer_is_saturated(tmp_path: Path) -> None:
    at_8 = [late(5000, system="peer", calls=8, first_token_ms=(3000.0,) * 100), point(HINTS, 8)]
    write(tmp_path / "bench.json", RUN, [*POINTS, *at_8])
    block = readme_block(tmp_path / "bench.json")
    assert "| `peer` | **800** | 2500 | 5000 |" in block
    assert "| `peer`, at the client | 100 | 100 |\n" in block


def test_systems_come_in_the_order_of_the_comparison(result: Path) -> None:
    page = details(result)
    places = [page.index(f"## {name}\n") for name in SYSTEMS]
    assert places == sorted(places)


def test_details_have_a_row_a_point_and_only_columns_that_a_system_tells(result: Path) -> None:
    page = details(result)
    peer, hints = page.partition("## peer")[2].split("## voice-llm hints")
    assert "first clause" in hints
    assert "50 / 50 / 50" in hints
    assert "10000 / 12000" in hints
    assert "first clause" not in peer
    assert "target 1" in peer
    assert "| 4 | 1 | 100 |" in peer


def test_details_say_how_far_the_percentile_may_be_off_and_which_code_it_was(tmp_path: Path) -> None:
    spread = point(HINTS, first_speech_ms=tuple(float(ms) for ms in range(100, 1100, 10)), commit="abc1234")
    write(tmp_path / "bench.json", RUN, [spread, point("peer")])
    page = details(tmp_path / "bench.json")
    low, high = Pooled((spread,)).speech_interval or (0.0, 0.0)
    assert low < 1050 < high
    assert f"| {low:.0f} to {high:.0f} |" in page
    assert "Code: abc1234 (1 points), unknown (1 points)." in page


def test_details_name_what_was_given_up(tmp_path: Path) -> None:
    missed = [late(5000, system="peer", calls=calls) for calls in (2, 4)]
    write(tmp_path / "bench.json", {**RUN, "calls": [2, 4, 8, 16]}, missed)
    page = details(tmp_path / "bench.json")
    assert "later than 4000 ms" in page
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
    write(tmp_path / "bench.json", ABOUT, [silent])
    write_plot(tmp_path / "bench.json", tmp_path / "bench.png")
    assert "| `ours` | none |" in readme_block(tmp_path / "bench.json")
    assert "| 2 | 1 | 0 |" in details(tmp_path / "bench.json")


def test_before_the_first_run_the_documents_say_so_and_how_to_make_one(tmp_path: Path) -> None:
    for text in (readme_block(tmp_path / "none.json"), details(tmp_path / "none.json")):
        assert "No run has been recorded yet; `make bench`" in text


def test_documents_have_the_figures_of_the_committed_result() -> None:
    """After ``make bench`` they change together; without a result they say that there is none."""
    assert f"<!-- bench -->\n{readme_block()}<!-- /bench -->" in README.read_text()
    assert (tables.DOCS / "bench.md").read_text() == details()
    assert (tables.DOCS / PICTURE).exists() is RESULTS.exists()
