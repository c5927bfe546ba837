"""infra/CAPACITY.md against what it counts: alarms and series of the templates, and its own sums."""

import re

import pytest
import templates
from contract import alarms, series
from contract.shipped import Place, Shipped

TEXT = (templates.INFRA / "CAPACITY.md").read_text()


def counted(place: Place) -> tuple[int, int]:
    """Alarms of a place, and the metrics that they are paid for."""
    found = alarms.alarms(place)
    return len(found), sum(len(list(series.of_alarm(one))) for one in found.values())


def test_the_alarms_that_are_paid_for_are_those_of_the_template(shipped: Shipped) -> None:
    most = next(place for place in shipped.places if place.whole)
    priced = re.search(r"\| (\d+) alarms on (\d+) metrics, and (\d+) that target tracking makes", TEXT)
    ships = re.search(r"what ships, with one upstream, has (\d+)\s+alarms on (\d+) metrics", TEXT)
    assert priced is not None and ships is not None
    assert (int(priced[1]), int(priced[2])) == counted(most)
    assert (int(ships[1]), int(ships[2])) == counted(shipped.production)
    # High and low for each policy.
    policies = shipped.production.resources("AWS::ApplicationAutoScaling::ScalingPolicy")
    assert int(priced[3]) == 2 * len(policies)
    composites = re.search(r"\| (\d+) composite alarms", TEXT)
    assert composites is not None and int(composites[1]) == len(alarms.composites(most))


def test_the_series_that_are_paid_for_are_those_of_the_catalogue(shipped: Shipped) -> None:
    values = [one["values"] or range(7) for one in shipped.catalogue["metrics"] if len(one["dimensions"]) > 2]
    number = sum(map(len, values)) + len(shipped.catalogue["metrics"]) - len(values)
    assert f"| {number} series at $0.30" in TEXT


def table(head: str) -> list[list[str]]:
    """The cells of the rows below a head."""
    rows = TEXT[TEXT.index(head) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def dollars(cell: str) -> float:
    """A price, in bold or with a sign."""
    return float(re.sub(r"[^\d.\u2212-]", "", cell).replace("\u2212", "-"))


@pytest.mark.parametrize("column", [1, 2])
def test_the_lines_of_cloudwatch_are_its_sum(column: int) -> None:
    *lines, last = [dollars(row[column]) for row in table("| | without free tier")]
    assert sum(lines) == pytest.approx(last, abs=0.005)


def test_the_lines_of_the_architecture_are_its_total() -> None:
    *lines, last = [dollars(row[3]) for row in table("| line of the architecture")]
    assert sum(lines) == last


def test_what_is_in_no_line_is_what_the_text_says() -> None:
    rows = table("| in no line of the table")[:-1]
    assert abs(sum(dollars(row[2]) for row in rows) - 400) < 10
    abroad = [dollars(row[2]) for row in rows if row[0].startswith(("recovery region", "transfer to us-west-2"))]
    assert abs(sum(abroad) - 330) < 5
    assert "That is about $400, $330 of it for the recovery region" in TEXT


def test_the_steps_of_a_failover_add_up_to_the_time_that_is_promised() -> None:
    after = [row[2] for row in table("| step | expected | after |")]
    readme = (templates.INFRA / "README.md").read_text()
    assert f"Expected {after[-1]} from the first failed check" in readme
    assert int(after[-1].split()[0]) < 30
