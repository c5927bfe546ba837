"""The load balancer of the drill and its clients: bounded traffic, and what an ALB would count of it.

What AWS publishes of the rest (tasks, database, targets) is made up, minute by minute, since there is no AWS.
"""

import http.client
import random
import string
import threading
import time
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import drill_gateway
from drill_relay import Calendar
from drill_template import EXPORTS

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
TIMEOUT = 5.0
# Each visits all quick upstreams in turn, so often a second.
VISITORS, VISITS = 3, 12
# Those of the one that may be slow: each waits for its answer.
SEEKERS, SEEKS = 6, 2
# Strangers bring keys that nobody issued, so each costs a look-up. One a second: on a machine that is
# busy a look-up may miss its deadline of 100 ms, and one error a minute is none to the alarms.
STRANGERS, STRANGE = 1, 1
# Strangers that come when the pools are to be exhausted, and never pause: a few more than connections.
CROWD = 10


def invented_key() -> str:
    """A key in all but that nobody has issued it."""
    start = f"dh_live_{''.join(random.choices(ALPHABET, k=16))}_{'7' * 27}"
    number, digits = zlib.crc32(start.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = ALPHABET[digit] + digits
    return start + digits


@dataclass
class Minute:
    """What the balancer counts in a minute."""

    requests: int = 0
    target_errors: int = 0
    own_errors: int = 0
    times: Counter[float] = field(default_factory=Counter)


class Balancer:
    """Traffic, from threads of its own, until it is closed."""

    def __init__(self, port: int, key: str, calendar: Calendar) -> None:
        self._port, self._key, self._calendar = port, key, calendar
        self._lock = threading.Lock()
        self._minutes: dict[int, Minute] = defaultdict(Minute)
        self._ended = threading.Event()
        self._crowd = threading.Event()
        quick = [name for name in (*drill_gateway.UPSTREAMS, *drill_gateway.OTHERS) if name != "search"]
        jobs: list[tuple[Any, ...]] = [(self._visit, quick, VISITS)] * VISITORS
        jobs += [(self._visit, ["search"], SEEKS)] * SEEKERS
        jobs += [(self._knock, STRANGE, None)] * STRANGERS
        jobs += [(self._knock, 0, self._crowd)] * CROWD
        self._threads = [threading.Thread(target=job, args=args, daemon=True) for job, *args in jobs]
        for thread in self._threads:
            thread.start()

    def let_the_crowd_in(self) -> None:
        """Strangers come in numbers."""
        self._crowd.set()

    def send_the_crowd_away(self) -> None:
        """The usual strangers are left."""
        self._crowd.clear()

    def minute(self, number: int) -> Minute:
        """What was counted in a minute that is over."""
        with self._lock:
            return self._minutes[number]

    def close(self) -> None:
        """Ends the traffic."""
        self._ended.set()
        self._crowd.set()
        for thread in self._threads:
            thread.join(timeout=TIMEOUT + 1)

    def _visit(self, upstreams: list[str], rate: float) -> None:
        caller = _Caller(self._port)
        turn, due = random.randrange(len(upstreams)), time.monotonic() + random.random() / rate
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            due = max(due + 1 / rate, time.monotonic())
            turn = (turn + 1) % len(upstreams)
            self._count(caller.get(f"/{upstreams[turn]}/", self._key))
        caller.close()

    def _knock(self, rate: float, when: threading.Event | None) -> None:
        caller = _Caller(self._port)
        while not self._ended.wait(1 / rate if rate else 0):
            if when:
                when.wait()
            if not self._ended.is_set():
                self._count(caller.get("/billing/", invented_key()))
        caller.close()

    def _count(self, answer: tuple[int | None, float]) -> None:
        status, seconds = answer
        with self._lock:
            minute = self._minutes[self._calendar.now()]
            minute.requests += 1
            if status is None:
                minute.own_errors += 1
                return
            minute.target_errors += status >= 500
            minute.times[round(seconds, 3)] += 1


class _Caller:
    """One kept-alive connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)

    def get(self, path: str, key: str) -> tuple[int | None, float]:
        """The status, None when there was no answer, and how long it took."""
        began = time.monotonic()
        try:
            self._connection.request("GET", path, headers={"X-API-Key": key})
            answer = self._connection.getresponse()
            answer.read()
            status: int | None = answer.status
        except (OSError, http.client.HTTPException):
            self._connection.close()
            status = None
        return status, time.monotonic() - began

    def close(self) -> None:
        self._connection.close()


@dataclass
class Weather:
    """What AWS would publish besides: of a healthy service, unless told otherwise."""

    cpu: float = 40
    memory: float = 45
    # Each node of the balancer says how many it finds healthy.
    healthy: tuple[float, ...] = (3, 3, 3)
    connections_primary: float = 60
    connections_replica: float = 50
    # Seconds, and bytes.
    replica_behind: float = 2
    not_received: float = 20e6
    rotation_errors: float = 0


class Aws:
    """Publishes AWS's own metrics of each minute that is over."""

    def __init__(self, cloudwatch: Any, balancer: Balancer, calendar: Calendar) -> None:
        self._cloudwatch, self._balancer, self._calendar = cloudwatch, balancer, calendar
        self.weather = Weather()
        self.troubles: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Publishes nothing any more."""
        self._ended.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        minute = self._calendar.now()
        while not self._ended.is_set():
            self._calendar.wait_for(minute + 1)
            try:
                self._publish(minute, self.weather)
            except Exception as error:  # noqa: BLE001: the drill reports it, whatever it is
                self.troubles.append(f"{type(error).__name__}: {error}")
            minute += 1

    def _publish(self, minute: int, weather: Weather) -> None:
        counted = self._balancer.minute(minute)
        balancer, targets = ("LoadBalancer",), ("LoadBalancer", "TargetGroup")
        of_balancer = [_datum("HealthyHostCount", targets, one) for one in weather.healthy]
        # AWS publishes these only when there is something to count.
        for name, number in (
            ("RequestCount", counted.requests),
            ("HTTPCode_Target_5XX_Count", counted.target_errors),
            ("HTTPCode_ELB_5XX_Count", counted.own_errors),
        ):
            if number:
                of_balancer.append(_datum(name, balancer, number))
        if counted.times:
            values = {"Values": list(counted.times), "Counts": list(counted.times.values())}
            of_balancer.append(_datum("TargetResponseTime", targets) | values)
        service = ("ClusterName", "ServiceName")
        of_tasks = [
            _datum("CPUUtilization", service, weather.cpu),
            _datum("MemoryUtilization", service, weather.memory),
        ]
        of_databases = [
            _datum("DatabaseConnections", ("DatabaseInstance",), weather.connections_primary),
            _datum("DatabaseConnections", ("ReplicaInstance",), weather.connections_replica),
            _datum("ReplicaLag", ("ReplicaInstance",), weather.replica_behind),
            _datum("OldestReplicationSlotLag", ("DatabaseInstance",), weather.not_received),
        ]
        # Of the function that ran.
        of_functions = [
            {
                "MetricName": "Errors",
                "Dimensions": [{"Name": "FunctionName", "Value": "datahub-rotate"}],
                "Value": weather.rotation_errors,
            }
        ]
        at = datetime.fromtimestamp(self._calendar.starts(minute), timezone.utc)
        for namespace, data in (
            ("AWS/ApplicationELB", of_balancer),
            ("AWS/ECS", of_tasks),
            ("AWS/RDS", of_databases),
            ("AWS/Lambda", of_functions),
        ):
            dated = [datum | {"Timestamp": at} for datum in data]
            self._cloudwatch.put_metric_data(Namespace=namespace, MetricData=dated)


def _datum(name: str, exports: tuple[str, ...], value: float | None = None) -> dict[str, Any]:
    """A datum whose dimensions are what other stacks export."""
    instances = ("DatabaseInstance", "ReplicaInstance")
    dimensions = [
        {"Name": "DBInstanceIdentifier" if one in instances else one, "Value": EXPORTS[f"datahub-{one}"]}
        for one in exports
    ]
    datum: dict[str, Any] = {"MetricName": name, "Dimensions": dimensions}
    return datum if value is None else datum | {"Value": value}
