"""The README's figures are those of the committed results."""

import pytest

from benchmarks.tables import README, readme_block

pytestmark = pytest.mark.unit


def test_figures_are_those_of_the_results() -> None:
    """After ``make acceptance`` both change together."""
    assert readme_block() in README.read_text()
