"""Every figure of the architecture is kept by what ships, or settled in infra/README.md."""

import re

import pytest
import templates
from architecture import Figure
from architecture_figures import FIGURES
from contract.shipped import Shipped

README = templates.INFRA / "README.md"


@pytest.mark.parametrize(
    "figure", [one for one in FIGURES if one.check], ids=lambda figure: f"{figure.where}: {figure.says}"
)
def test_a_figure_of_the_architecture_is_kept(shipped: Shipped, figure: Figure) -> None:
    assert figure.check is not None and figure.check(shipped), f"{figure.where} says: {figure.says}"


def settlements() -> dict[str, list[str]]:
    """The lines of the README that settle something: name, then the other cells."""
    found = {}
    for line in README.read_text().splitlines():
        match = re.match(r"\| \*\*(.+?)\*\* \|(.*)\|$", line)
        if match:
            found[match[1]] = [cell.strip() for cell in match[2].split("|")]
    return found


def test_what_is_settled_otherwise_says_why_and_what_it_costs() -> None:
    lines = settlements()
    for figure in FIGURES:
        if figure.settled:
            assert figure.settled in lines, f"{figure.where}: {figure.says}: no line **{figure.settled}**"
    for name, cells in lines.items():
        assert len(cells) == 3 and all(cells), f"{name}: what it says, what is built and why, and its cost"


def test_no_line_settles_what_no_figure_asks() -> None:
    asked = {figure.settled for figure in FIGURES if figure.settled}
    assert set(settlements()) - asked - FURTHER == set()


# Not figures of the architecture, but decisions that a reader of it would ask about.
FURTHER = {"Passwords", "One database user", "Migrations", "Audit of AWS"}


def test_no_figure_stands_twice() -> None:
    rows = [(figure.where, figure.says) for figure in FIGURES]
    assert len(set(rows)) == len(rows)


@pytest.fixture(scope="module")
def nothing(shipped: Shipped) -> Shipped:
    """The same templates without a single resource in them."""
    bare = shipped.copy()
    for template in bare.templates.values():
        template["Resources"], template["Outputs"] = {}, {}
    bare.workflows.clear()
    bare.catalogue["metrics"] = [
        {"name": f"M{place}", "dimensions": [1, 2], "values": None} for place in range(36)
    ]
    return bare


@pytest.mark.parametrize(
    "figure", [one for one in FIGURES if one.check], ids=lambda figure: f"{figure.where}: {figure.says}"
)
def test_nothing_keeps_no_figure(nothing: Shipped, figure: Figure) -> None:
    """A check that passes where nothing is built would pass whatever is built."""
    try:
        kept = figure.check is not None and figure.check(nothing)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, StopIteration):
        kept = False
    assert not kept
