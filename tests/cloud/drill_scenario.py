"""The troubles of the drill, one after the other, and the alarm that each must raise.

A minute of the calendar is a second. Each act makes its troubles at the start of a minute and ends them
at the start of another; the alarms are judged with what has arrived two minutes later.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import drill_gateway
import drill_servers
from drill_balancer import Aws, Balancer, Weather
from drill_judge import Judge, Message
from drill_relay import Calendar, Relay
from emulator import METRICS, Emulator

# How many minutes a minute is given until all of it has arrived.
LATE = 2


@dataclass
class Stage:
    """Everything that runs."""

    emulator: Emulator
    calendar: Calendar
    relay: Relay
    postgres: drill_servers.Postgres
    redis: drill_servers.Redis
    upstreams: dict[str, drill_servers.Upstream]
    gateway: drill_gateway.Gateway
    balancer: Balancer
    aws: Aws
    judge: Judge
    # A key that is revoked in the drill.
    leaked: str


@dataclass(frozen=True)
class Act:
    """A part of the drill."""

    name: str
    minutes: int
    begin: Callable[[Stage], None]
    end: Callable[[Stage], None]
    # By alarm: the trouble that must raise it in this act.
    raises: dict[str, str] = field(default_factory=dict)
    # Nothing may arrive after the end before this act has been judged.
    judged_first: bool = False


@dataclass
class Played:
    """When an act was, in minutes: from `begins`, before `ends`."""

    act: Act
    begins: int
    ends: int
    # The messages of these minutes, and the states of the composites after them, by the emulator.
    heard: list[Message] = field(default_factory=list)
    composites: dict[str, str] = field(default_factory=dict)


def nothing(_: Stage) -> None:
    """All is well."""


def revoke_as_usual(stage: Stage) -> None:
    """So that there are revocations that are fast enough."""
    stage.gateway.run("keys", "revoke", stage.gateway.issue_key().split("_")[2])


FIRST, SECOND = ("billing", "orders", "profiles", "tickets"), ("catalog", "payments", "search")


def fail(names: tuple[str, ...], how: bool) -> Callable[[Stage], None]:
    """These upstreams answer 500 from now on, or do not any more."""

    def act(stage: Stage) -> None:
        for name in names:
            stage.upstreams[name].fails = how

    return act


def upstreams_begin(stage: Stage) -> None:
    fail(FIRST, True)(stage)
    stage.upstreams["search"].delay = 0.6


def upstreams_end(stage: Stage) -> None:
    fail(FIRST, False)(stage)
    stage.upstreams["search"].delay = 0.0


def stores_begin(stage: Stage) -> None:
    stage.redis.stop()
    stage.gateway.save_a_mistake()
    # A transaction that revokes and then stays open: a key that nobody stops for two seconds.
    identity = stage.leaked.split("_")[2]
    stage.postgres.begin(
        f"UPDATE keys SET revoked_at = extract(epoch FROM now())::bigint WHERE id = '{identity}';"
        "WITH next AS (UPDATE revision SET n = n + 1 RETURNING n) INSERT INTO changes (n, kind, id, at)"
        f" SELECT n, 'key', '{identity}', (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM next"
    )
    time.sleep(2)
    stage.postgres.end("COMMIT")


def stores_end(stage: Stage) -> None:
    stage.redis.start()
    stage.gateway.mend_the_mistake()


def aws_begin(stage: Stage) -> None:
    stage.aws.weather = Weather(
        cpu=92, memory=91, healthy=1, connections_primary=1500, connections_replica=1450
    )
    stage.postgres.go_on_from_another_history()


def aws_end(stage: Stage) -> None:
    stage.aws.weather = Weather()


def pools_begin(stage: Stage) -> None:
    fail(SECOND, True)(stage)
    stage.postgres.begin("LOCK TABLE keys IN ACCESS EXCLUSIVE MODE")
    stage.balancer.let_the_crowd_in()


def pools_end(stage: Stage) -> None:
    fail(SECOND, False)(stage)
    stage.balancer.send_the_crowd_away()
    stage.postgres.end("ROLLBACK")


ACTS = (
    Act("all is well", 5, revoke_as_usual, nothing),
    Act(
        "upstreams fail and are slow",
        6,
        upstreams_begin,
        upstreams_end,
        {
            "datahub-high-error-rate": "four of seven upstreams answer 500",
            "datahub-gateway-error-rate": "the same, as the gateway counts it",
            "datahub-upstream-error-rate-1": "billing answers 500",
            "datahub-upstream-error-rate-3": "orders answers 500",
            "datahub-upstream-error-rate-5": "profiles answers 500",
            "datahub-upstream-error-rate-other": "tickets answers 500, which has no name of its own",
            "datahub-high-latency": "search takes 0.6 s",
            "datahub-gateway-latency": "the same, as the gateway measures it",
        },
    ),
    Act(
        "Redis is gone, a file is wrong, a revocation hangs",
        5,
        stores_begin,
        stores_end,
        {
            "datahub-limiter-degraded": "Redis is killed",
            "datahub-reload-failed": "a file with a mistake is saved",
            "datahub-revocation-slow": "the transaction that revokes a key stays open for 2 s",
        },
    ),
    Act(
        "tasks and database are overloaded",
        6,
        aws_begin,
        aws_end,
        {
            "datahub-high-cpu": "made up: 92 %",
            "datahub-high-memory": "made up: 91 %",
            "datahub-low-health": "made up: one healthy task",
            "datahub-db-connections-primary": "made up: 1500 of 1600",
            "datahub-db-connections-replica": "made up: 1450 of 1600",
            "datahub-store-new-history": "PostgreSQL is restarted into a new timeline",
        },
    ),
    Act(
        "a table is locked",
        5,
        pools_begin,
        pools_end,
        {
            "datahub-pool-exhausted-primary": "look-ups wait for a locked table, all connections with them",
            "datahub-pool-exhausted-replica": "the same, in the other pool",
            "datahub-store-failures": "the same look-ups fail",
            "datahub-upstream-error-rate-2": "catalog answers 500",
            "datahub-upstream-error-rate-4": "payments answers 500",
            "datahub-upstream-error-rate-6": "search answers 500",
            # Unknown keys get 503 then, so these are on again.
            "datahub-high-error-rate": "unknown keys get 503",
            "datahub-gateway-error-rate": "unknown keys get 503",
        },
    ),
    Act(
        "the publisher is cut off",
        6,
        lambda stage: stage.relay.cut(),
        lambda stage: stage.relay.mend(),
        {"datahub-publisher-silent": "no batch gets through"},
        judged_first=True,
    ),
    Act("all is well again", 4, nothing, nothing),
)
PAGES = ("datahub-high-error-rate", "datahub-low-health", "datahub-publisher-silent")


def rows() -> dict[str, tuple[Act, str]]:
    """By alarm: where it must fire first, and why."""
    found: dict[str, tuple[Act, str]] = {}
    for act in ACTS:
        for name, trouble in act.raises.items():
            found.setdefault(name, (act, trouble))
    return found


def parameters() -> dict[str, str]:
    """Every upstream of the drill has its alarm."""
    named = {f"Upstream{place}": name for place, name in enumerate(drill_gateway.UPSTREAMS, 1)}
    return named | {"UpstreamOther": "yes", "DatabaseReplica": "yes"}


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Starts everything, and ends it in turn, whatever happens."""
    with contextlib.ExitStack() as stack:
        emulator = stack.enter_context(Emulator())
        redis = drill_servers.Redis()
        stack.callback(redis.close)
        postgres = drill_servers.Postgres()
        stack.callback(postgres.close)
        upstreams = {
            name: drill_servers.Upstream()
            for name in (*drill_gateway.UPSTREAMS, *drill_gateway.OTHERS)
        }
        for upstream in upstreams.values():
            stack.callback(upstream.close)
        emulator.wait_until_ready()
        calendar = Calendar()
        relay = Relay(emulator.port, calendar)
        stack.callback(relay.close)
        ports = {name: upstream.port for name, upstream in upstreams.items()}
        gateway = drill_gateway.Gateway(relay.url, postgres.url, redis.url, ports)
        stack.callback(gateway.close)
        key, leaked = gateway.prepare(), gateway.issue_key()
        judge = Judge(emulator, calendar, parameters())
        gateway.start(METRICS)
        balancer = Balancer(gateway.port, key, calendar)
        stack.callback(balancer.close)
        aws = Aws(emulator.client("cloudwatch", METRICS), balancer, calendar)
        stack.callback(aws.close)
        yield Stage(
            emulator, calendar, relay, postgres, redis, upstreams, gateway, balancer, aws, judge, leaked
        )


def play(on: Stage) -> list[Played]:
    """Plays all acts, one right after the other, and judges each while the next one goes on."""
    calendar, judge = on.calendar, on.judge
    # The minute that goes on is not whole.
    begins = calendar.now() + 1
    judge.next_minute = begins
    played: list[Played] = []
    for act in ACTS:
        calendar.wait_for(begins)
        act.begin(on)
        if played:
            judge_act(on, played[-1])
        one = Played(act, begins, begins + act.minutes)
        played.append(one)
        calendar.wait_for(one.ends)
        if act.judged_first:
            judge_act(on, one)
        act.end(on)
        begins = one.ends
    judge_act(on, played[-1])
    return played


def judge_act(on: Stage, one: Played) -> None:
    """Judges the minutes of an act that is over, once."""
    if on.judge.next_minute >= one.ends:
        return
    on.calendar.wait_for(one.ends - 1 + LATE)
    heard = len(on.judge.messages)
    on.judge.judge_until(one.ends - 1)
    one.heard = on.judge.messages[heard:]
    one.composites = on.judge.composites_of_the_emulator()
