"""Judges every alarm at every minute, as CloudWatch does, and sees to it that its message goes out.

The data are read back from the emulator, percentiles too (test_drill checks them against what passed the
relay). The emulator holds the states and carries the messages; `alarm_oracle` says what the states are.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import alarm_oracle as oracle
from drill_relay import Calendar
from drill_template import Alarms, Template
from emulator import ALARMS, METRICS, Emulator

TOPICS = {"PageTopic": "page", "NotifyTopic": "notify"}
# CloudWatch looks further back than an alarm says, in case of gaps.
LOOKS_BACK = 2


@dataclass(frozen=True)
class Query:
    """One statistic of one series."""

    namespace: str
    metric: str
    dimensions: tuple[tuple[str, str], ...]
    statistic: str


@dataclass
class Message:
    """What came out of a queue."""

    topic: str
    alarm: str
    state: str


@dataclass
class Judge:
    """The alarms, what was said of them minute by minute, and what was received."""

    emulator: Emulator
    calendar: Calendar
    parameters: dict[str, str]
    alarms: Alarms = field(init=False)
    # By alarm and minute; composites too.
    states: dict[str, dict[int, oracle.State]] = field(default_factory=lambda: defaultdict(dict))
    messages: list[Message] = field(default_factory=list)
    next_minute: int = 0

    def __post_init__(self) -> None:
        self._metrics = self.emulator.client("cloudwatch", METRICS)
        self._alarms = self.emulator.client("cloudwatch", ALARMS)
        self._sqs = self.emulator.client("sqs", ALARMS)
        self._queues: dict[str, str] = {}
        topics = {logical: self._topic(name) for logical, name in TOPICS.items()}
        self.alarms = Template(self.parameters, topics).alarms()
        for alarm in self.alarms.metric.values():
            self._alarms.put_metric_alarm(**alarm)
        for alarm in self.alarms.composite.values():
            self._alarms.put_composite_alarm(**alarm)
        self._held: dict[str, oracle.State] = {}

    def _topic(self, name: str) -> str:
        """A topic, and a queue that takes what comes out of it."""
        sns = self.emulator.client("sns", ALARMS)
        topic = sns.create_topic(Name=f"datahub-{name}")["TopicArn"]
        self._queues[name] = self._sqs.create_queue(QueueName=f"datahub-{name}")["QueueUrl"]
        asked = {"QueueUrl": self._queues[name], "AttributeNames": ["QueueArn"]}
        arn = self._sqs.get_queue_attributes(**asked)["Attributes"]["QueueArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        return topic

    def judge_until(self, last: int) -> None:
        """Judges each minute that was not judged yet, up to and with `last`, and collects the messages."""
        first = self.next_minute
        longest = max(int(alarm["EvaluationPeriods"]) for alarm in self.alarms.metric.values())
        read = Reader(self._metrics, self.calendar, first - longest - LOOKS_BACK, last)
        for minute in range(first, last + 1):
            self._judge(minute, read)
        self.next_minute = last + 1
        self._collect()

    def _judge(self, minute: int, read: "Reader") -> None:
        now: dict[str, oracle.State] = {}
        for name, alarm in self.alarms.metric.items():
            previous = self.states[name].get(minute - 1, "INSUFFICIENT_DATA")
            now[name] = _state(alarm, minute, read, previous)
        # A composite may name another one, so it waits until all that it names is known.
        waiting = dict(self.alarms.composite)
        while waiting:
            known = len(now)
            for name, alarm in list(waiting.items()):
                try:
                    now[name] = oracle.composite(alarm["AlarmRule"], now)
                    del waiting[name]
                except KeyError:
                    continue
            assert len(now) > known, f"composites name what does not exist: {list(waiting)}"
        for name, state in now.items():
            self.states[name][minute] = state
        self._set(now, minute)

    def _set(self, now: dict[str, oracle.State], minute: int) -> None:
        """Tells the emulator, which judges the composites; what begins goes first, so that none flickers."""
        for name in sorted(self.alarms.metric, key=lambda name: now[name] != "ALARM"):
            if self._held.get(name) != now[name]:
                reason = f"minute {minute} of the drill"
                self._alarms.set_alarm_state(AlarmName=name, StateValue=now[name], StateReason=reason)
                self._held[name] = now[name]

    def reader(self) -> "Reader":
        """Reads what was judged."""
        return Reader(self._metrics, self.calendar, 0, self.next_minute - 1)

    def queries(self) -> set[Query]:
        """Every statistic that an alarm reads."""
        found = set()
        for alarm in self.alarms.metric.values():
            if "Metrics" not in alarm:
                found.add(_query(alarm, alarm.get("ExtendedStatistic") or alarm["Statistic"]))
            for metric in alarm.get("Metrics", []):
                if "MetricStat" in metric:
                    found.add(_query(metric["MetricStat"]["Metric"], metric["MetricStat"]["Stat"]))
        return found

    def composites_of_the_emulator(self) -> dict[str, str]:
        """What the emulator makes of the rules."""
        found = self._alarms.describe_alarms(AlarmTypes=["CompositeAlarm"])["CompositeAlarms"]
        return {alarm["AlarmName"]: alarm["StateValue"] for alarm in found}

    def _collect(self) -> None:
        for topic, queue in self._queues.items():
            while received := self._sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
                for message in received:
                    said = json.loads(json.loads(message["Body"])["Message"])
                    self.messages.append(Message(topic, said["AlarmName"], said["NewStateValue"]))
                    self._sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])


def _state(alarm: dict[str, Any], minute: int, read: "Reader", previous: oracle.State) -> oracle.State:
    periods = int(alarm["EvaluationPeriods"])
    minutes = range(minute - periods - LOOKS_BACK + 1, minute + 1)
    return oracle.state(
        [value_of(alarm, one, read) for one in minutes],
        periods=periods,
        to_alarm=int(alarm.get("DatapointsToAlarm", periods)),
        treat_missing=alarm.get("TreatMissingData", "missing"),
        comparison=alarm["ComparisonOperator"],
        threshold=float(alarm["Threshold"]),
        previous=previous,
    )


def value_of(alarm: dict[str, Any], minute: int, read: "Reader") -> oracle.Point:
    """What an alarm compares with its threshold."""
    if "Metrics" not in alarm:
        statistic = alarm.get("ExtendedStatistic") or alarm["Statistic"]
        return read(_query(alarm, statistic), minute)
    values, expressions = {}, []
    for metric in alarm["Metrics"]:
        if "MetricStat" in metric:
            stat = metric["MetricStat"]
            values[metric["Id"]] = read(_query(stat["Metric"], stat["Stat"]), minute)
        else:
            expressions.append(metric["Expression"])
    (expression,) = expressions
    return oracle.math(expression, values)


def _query(metric: dict[str, Any], statistic: str) -> Query:
    dimensions = sorted((pair["Name"], pair["Value"]) for pair in metric.get("Dimensions", []))
    return Query(metric["Namespace"], metric["MetricName"], tuple(dimensions), statistic)


class Reader:
    """Reads each statistic once, for a span of minutes."""

    def __init__(self, cloudwatch: Any, calendar: Calendar, first: int, last: int) -> None:
        self._cloudwatch, self._calendar, self._first, self._last = cloudwatch, calendar, first, last
        self._known: dict[Query, dict[int, float]] = {}

    def __call__(self, query: Query, minute: int) -> oracle.Point:
        if query not in self._known:
            self._known[query] = self._read(query)
        return self._known[query].get(minute)

    def _read(self, query: Query) -> dict[int, float]:
        start = self._calendar.starts(self._first)
        is_percentile = query.statistic.startswith("p")
        answer = self._cloudwatch.get_metric_statistics(
            Namespace=query.namespace,
            MetricName=query.metric,
            Dimensions=[{"Name": name, "Value": value} for name, value in query.dimensions],
            Period=60,
            StartTime=datetime.fromtimestamp(start, timezone.utc),
            EndTime=datetime.fromtimestamp(self._calendar.starts(self._last + 1), timezone.utc),
            **{"ExtendedStatistics" if is_percentile else "Statistics": [query.statistic]},
        )
        found = {}
        for point in answer["Datapoints"]:
            minute = self._first + round((point["Timestamp"].timestamp() - start) / 60)
            values = point["ExtendedStatistics"] if is_percentile else point
            found[minute] = float(values[query.statistic])
        return found
