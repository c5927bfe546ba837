"""Every alarm of infra/observability.yaml, made to fire by a gateway that has the trouble.

Real are the gateway, PostgreSQL, Redis, the upstreams, the clients, the way of each metric and of each
message. Made up are the metrics of AWS that have no counterpart here (CPU, memory, healthy hosts,
connections of RDS); those of the balancer are what the clients of the drill saw. Who judges is
`alarm_oracle`, on data that is read back from the emulator.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import alarm_oracle as oracle
import drill_scenario as scenario
import templates
from drill_judge import Query
from drill_relay import NAMESPACE
from drill_template import Template

SECONDS = 60
RUNBOOK = templates.INFRA / "RUNBOOK.md"
ROWS = scenario.rows()
AUDIENCES = ("datahub-page", "datahub-notify")


@dataclass
class Drill:
    """What came of it."""

    played: list[scenario.Played]
    states: dict[str, dict[int, oracle.State]]
    seconds: float
    troubles: list[str]
    percentiles: list[tuple[Query, int, float | None, float | None]]

    def of(self, act: scenario.Act) -> scenario.Played:
        """When an act was."""
        return next(one for one in self.played if one.act is act)

    def on(self, name: str, one: scenario.Played) -> list[int]:
        """The minutes of an act in which an alarm was on."""
        return [minute for minute in range(one.begins, one.ends) if self.states[name][minute] == "ALARM"]

    def recovered_after(self, name: str, one: scenario.Played) -> int | None:
        """How many minutes after the trouble's end the alarm was off; None: never."""
        minutes = [minute for minute in self.states[name] if minute >= one.ends]
        return next((m - one.ends for m in sorted(minutes) if self.states[name][m] != "ALARM"), None)


@pytest.fixture(scope="module")
def drill() -> Iterator[Drill]:
    """Played once, for all tests."""
    began = time.monotonic()
    with scenario.stage() as stage:
        try:
            played = scenario.play(stage)
        except BaseException:
            print(stage.gateway.log())
            raise
        percentiles = list(compared(stage))
        troubles = [*stage.relay.troubles, *stage.aws.troubles]
        states = dict(stage.judge.states)
    result = Drill(played, states, time.monotonic() - began, troubles, percentiles)
    print(table(result))
    yield result


def compared(stage: scenario.Stage) -> Iterator[tuple[Query, int, float | None, float | None]]:
    """Each p99 that an alarm reads of the gateway, by the emulator and by what passed the relay."""
    read = stage.judge.reader()
    for query in stage.judge.queries():
        if query.namespace == NAMESPACE and query.statistic.startswith("p"):
            passed = stage.relay.samples[query.metric, query.dimensions]
            for minute in range(stage.judge.next_minute):
                sent = oracle.percentile(passed.get(minute, {}), float(query.statistic[1:]))
                yield query, minute, read(query, minute), sent


def table(drill: Drill) -> str:
    """A line for each alarm."""
    lines = [f"{'alarm':36}{'on after':>9}{'off after':>10}  told    trouble"]
    for name, (act, trouble) in ROWS.items():
        one = drill.of(act)
        on, off = drill.on(name, one), drill.recovered_after(name, one)
        told = {message.topic for message in one.heard if message.alarm == name}
        told |= {"page"} if name in scenario.PAGES and pages(one) else set()
        after = f"{on[0] - one.begins + 1} min" if on else "never"
        until = "never" if off is None else f"{off + 1} min"
        lines.append(f"{name:36}{after:>9}{until:>10}  {'page' if 'page' in told else 'team':8}{trouble}")
    minutes = drill.played[-1].ends - drill.played[0].begins
    return "\n".join(["", *lines, f"{len(ROWS)} alarms, {minutes} minutes in {drill.seconds:.1f} s"])


def pages(one: scenario.Played) -> list[str]:
    """What somebody was woken by, or told of its end."""
    return [message.state for message in one.heard if message.topic == "page"]


def test_every_alarm_of_the_template_has_a_row_and_every_row_an_alarm() -> None:
    alarms = Template(scenario.parameters(), {"PageTopic": "arn:page", "NotifyTopic": "arn:notify"}).alarms()
    assert set(ROWS) == set(alarms.metric)
    assert set(AUDIENCES) == set(alarms.composite)


def test_no_alarm_is_left_out_by_a_condition() -> None:
    alarms = Template(scenario.parameters(), {"PageTopic": "arn:page", "NotifyTopic": "arn:notify"}).alarms()
    assert len(alarms.metric) + len(alarms.composite) == Template.shipped()


@pytest.mark.parametrize("name", [*ROWS, *AUDIENCES])
def test_an_alarm_has_a_row_in_the_runbook(name: str) -> None:
    rows = [line for line in RUNBOOK.read_text().splitlines() if line.startswith("| `datahub-")]
    # Those of upstreams share one.
    names = {name, re.sub(r"-error-rate-([1-6]|other)$", "-error-rate-1", name)}
    found = [line for line in rows if any(line.startswith(f"| `{one}`") for one in names)]
    assert len(found) == 1 and found[0].count("|") == 6, found


@pytest.mark.parametrize("name", ROWS)
def test_an_alarm_is_quiet_when_all_is_well(drill: Drill, name: str) -> None:
    assert drill.on(name, drill.played[0]) == []
    assert drill.states[name][drill.played[0].ends - 1] == "OK"


@pytest.mark.parametrize("name", ROWS)
def test_an_alarm_fires_for_its_trouble_and_tells_the_team(drill: Drill, name: str) -> None:
    one = drill.of(ROWS[name][0])
    assert drill.on(name, one), f"{ROWS[name][1]}, and it never fired"
    assert drill.states[name][one.begins - 1] == "OK", "it was on before"
    assert ("notify", name, "ALARM") in [(said.topic, said.alarm, said.state) for said in one.heard]


@pytest.mark.parametrize("name", ROWS)
def test_an_alarm_recovers_before_the_next_act_is_over(drill: Drill, name: str) -> None:
    place = drill.played.index(drill.of(ROWS[name][0]))
    following = drill.played[place + 1]
    assert drill.states[name][following.ends - 1] == "OK"
    assert drill.states[name][drill.played[-1].ends - 1] == "OK"


def test_a_trouble_raises_no_alarm_but_its_own(drill: Drill) -> None:
    for before, one in zip([None, *drill.played], drill.played):
        left_over = set(before.act.raises) if before else set()
        fired = {name for name in ROWS if drill.on(name, one)}
        assert fired - left_over <= set(one.act.raises), one.act.name
        assert set(one.act.raises) <= fired, one.act.name


@pytest.mark.parametrize("name", scenario.PAGES)
def test_what_cannot_wait_pages_and_says_when_it_is_over(drill: Drill, name: str) -> None:
    place = drill.played.index(drill.of(ROWS[name][0]))
    assert "ALARM" in pages(drill.played[place])
    assert "OK" in pages(drill.played[place]) + pages(drill.played[place + 1])


def test_nothing_else_pages(drill: Drill) -> None:
    for one in drill.played:
        if not set(one.act.raises) & set(scenario.PAGES):
            assert "ALARM" not in pages(one), one.act.name


def test_the_team_hears_of_the_first_trouble_and_the_all_clear(drill: Drill) -> None:
    said = [
        message.state
        for one in drill.played
        for message in one.heard
        if message.topic == "notify" and message.alarm == "datahub-notify"
    ]
    assert "ALARM" in said and said[-1] == "OK"


def test_the_emulator_judges_the_composites_as_the_oracle_does(drill: Drill) -> None:
    for one in drill.played:
        ours = {name: drill.states[name][one.ends - 1] for name in AUDIENCES}
        assert one.composites == ours, one.act.name


def test_percentiles_that_are_read_back_are_those_of_what_the_gateway_sent(drill: Drill) -> None:
    assert any(sent is not None for _, _, _, sent in drill.percentiles)
    for query, minute, read, sent in drill.percentiles:
        # A minute without requests, or without revocations, has none.
        expected = None if sent is None else pytest.approx(sent, rel=1e-6)
        assert read == expected, (query, minute)


def test_every_batch_was_taken(drill: Drill) -> None:
    assert drill.troubles == []


def test_the_drill_takes_less_than_a_minute(drill: Drill) -> None:
    assert drill.seconds < SECONDS
