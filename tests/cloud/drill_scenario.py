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
    # Gets all requests, and has the troubles of a task.
    gateway: drill_gateway.Gateway
    # Publishes too, so that a statistic which lets it outvote the other one is found out.
    idle: drill_gateway.Gateway
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
    # What may come with it and need not.
    may_raise: frozenset[str] = frozenset()
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
    stage.aws.weather = Weather(memory=91, connections_replica=430, replica_behind=900)
    # A transaction that revokes and then stays open: a key that nobody stops for two seconds.
    identity = stage.leaked.split("_")[2]
    stage.postgres.begin(
        f"UPDATE keys SET revoked_at = extract(epoch FROM now())::bigint WHERE id = '{identity}';"
        "WITH next AS (UPDATE revision SET n = n + 1 RETURNING n) INSERT INTO changes (n, kind, id, at)"
        f" SELECT n, 'key', '{identity}', (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM next"
    )
    time.sleep(2)
    stage.postgres.end("COMMIT")


def upstreams_end(stage: Stage) -> None:
    fail(FIRST, False)(stage)
    stage.upstreams["search"].delay = 0.0
    stage.aws.weather = Weather()


def limits_begin(stage: Stage) -> None:
    stage.redis.stop()
    stage.gateway.save_a_mistake()
    stage.postgres.go_on_from_another_history()


def limits_end(stage: Stage) -> None:
    stage.redis.start()
    stage.gateway.mend_the_mistake()


def health_begin(stage: Stage) -> None:
    stage.aws.weather = Weather(healthy=(3, 1, 3), rotation_errors=1)


def health_end(stage: Stage) -> None:
    stage.aws.weather = Weather()


def pools_begin(stage: Stage) -> None:
    fail(SECOND, True)(stage)
    stage.postgres.begin("LOCK TABLE keys IN ACCESS EXCLUSIVE MODE")
    stage.balancer.let_the_crowd_in()
    stage.aws.weather = Weather(cpu=92, connections_primary=450, not_received=2e9)


def pools_end(stage: Stage) -> None:
    fail(SECOND, False)(stage)
    stage.balancer.send_the_crowd_away()
    stage.postgres.end("ROLLBACK")
    stage.aws.weather = Weather()


# Alarms that want five minutes get six. What pages has not paged in the two minutes before.
ACTS = (
    Act("all is well", 5, revoke_as_usual, nothing),
    Act(
        "upstreams fail and are slow, a revocation hangs",
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
            "datahub-revocation-slow": "the transaction that revokes a key stays open for 2 s",
            "datahub-high-memory": "made up: 91 %",
            "datahub-db-connections-replica": "made up: 430 of 500",
            # What it shows gets old, and it receives all the same.
            "datahub-replica-behind": "made up: 900 s, with nothing that it has not received",
        },
    ),
    Act(
        "Redis is gone, a file is wrong, the database has another history",
        5,
        limits_begin,
        limits_end,
        {
            "datahub-limiter-degraded": "Redis is killed",
            "datahub-reload-failed": "a file with a mistake is saved",
            "datahub-store-new-history": "PostgreSQL is restarted into a new timeline",
        },
        # PostgreSQL is away for a moment, which is several minutes if the machine is slow.
        may_raise=frozenset({"datahub-store-failures"}),
    ),
    Act(
        "tasks are missing, a rotation fails",
        3,
        health_begin,
        health_end,
        {
            "datahub-low-health": "made up: a node of the balancer finds one healthy task",
            "datahub-secrets-failed": "made up: datahub-rotate fails",
        },
    ),
    Act(
        "a table is locked, the database is overloaded",
        6,
        pools_begin,
        pools_end,
        {
            "datahub-pool-exhausted-primary": "look-ups wait for a locked table, all connections with them",
            "datahub-pool-exhausted-replica": "the same, in the other pool",
            "datahub-store-failures": "the same look-ups fail",
            "datahub-upstream-error-rate-2": "catalog answers 500",
            "datahub-upstream-error-rate-4": "payments answers 500",
            "datahub-upstream-error-rate-6": "search answers 500",
            "datahub-high-cpu": "made up: 92 %",
            "datahub-db-connections-primary": "made up: 450 of 500",
            "datahub-replication-stalled": "made up: 2 GB",
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
    Act("all is well again", 3, nothing, nothing),
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
        gateway, idle = (
            drill_gateway.Gateway(relay.url, postgres.url, redis.url, ports) for _ in range(2)
        )
        stack.callback(gateway.close)
        stack.callback(idle.close)
        key, leaked = gateway.prepare(), gateway.issue_key()
        judge = Judge(emulator, calendar, parameters())
        gateway.start(METRICS)
        idle.start(METRICS)
        balancer = Balancer(gateway.port, key, calendar)
        stack.callback(balancer.close)
        aws = Aws(emulator.client("cloudwatch", METRICS), balancer, calendar)
        stack.callback(aws.close)
        yield Stage(
            emulator,
            calendar,
            relay,
            postgres,
            redis,
            upstreams,
            gateway,
            idle,
            balancer,
            aws,
            judge,
            leaked,
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
