"""Alarms that can fire, and that somebody hears of."""

import re
from collections.abc import Iterator
from typing import Any

from contract import series
from contract.rule import rule, rule_about
from contract.shipped import Place, Shipped

ALARM = "AWS::CloudWatch::Alarm"
COMPOSITE = "AWS::CloudWatch::CompositeAlarm"
DAY = 86_400

# The architecture's table: the alarm; its metrics; how many seconds in all; condition; and whom it tells.
ARCHITECTURE = (
    ("datahub-high-cpu", {"CPUUtilization"}, 300, "> 80", "notify"),
    ("datahub-high-memory", {"MemoryUtilization"}, 300, "> 85", "notify"),
    (
        "datahub-high-error-rate",
        {"HTTPCode_Target_5XX_Count", "HTTPCode_ELB_5XX_Count", "RequestCount"},
        120,
        "> 1",
        "page",
    ),
    ("datahub-high-latency", {"TargetResponseTime"}, 300, "> 0.5", "notify"),
    ("datahub-low-health", {"HealthyHostCount"}, None, "< 2", "page"),
    ("datahub-db-connections-primary", {"DatabaseConnections"}, None, "> 80 %", "notify"),
    ("datahub-db-connections-replica", {"DatabaseConnections"}, None, "> 80 %", "notify"),
)

OPERATORS = {
    "GreaterThanThreshold": ">",
    "GreaterThanOrEqualToThreshold": ">=",
    "LessThanThreshold": "<",
    "LessThanOrEqualToThreshold": "<=",
}


def alarms(place: Place) -> dict[str, dict[str, Any]]:
    """The alarms of a place that read metrics, by name."""
    return {alarm["AlarmName"]: alarm for alarm in place.resources(ALARM).values()}


def composites(place: Place) -> dict[str, dict[str, Any]]:
    """The alarms of a place that read other alarms, by name."""
    return {alarm["AlarmName"]: alarm for alarm in place.resources(COMPOSITE).values()}


def each(shipped: Shipped) -> Iterator[tuple[Place, str, dict[str, Any]]]:
    """Every alarm of every place."""
    for place in shipped.places:
        for name, alarm in alarms(place).items():
            yield place, name, alarm


@rule_about(ALARM)
def every_series_of_an_alarm_has_data(shipped: Shipped) -> Iterator[str]:
    """The gateway publishes it, or AWS does: by name, dimension names and values, statistic and unit."""
    for place, name, alarm in each(shipped):
        for one in series.of_alarm(alarm):
            yield from (f"{place}: {name}: {trouble}" for trouble in series.troubles(one, shipped, place))


@rule_about(ALARM)
def metric_math_is_complete(shipped: Shipped) -> Iterator[str]:
    """Ids resolve, exactly one series is returned, at most ten metrics, equal periods, no search."""
    for place, name, alarm in each(shipped):
        if "Metrics" in alarm:
            yield from (f"{place}: {name}: {trouble}" for trouble in math_troubles(alarm["Metrics"]))


FUNCTIONS = {
    "FILL",
    "IF",
    "SUM",
    "MAX",
    "MIN",
    "AVG",
    "RATE",
    "DIFF",
    "ABS",
    "CEIL",
    "FLOOR",
    "METRICS",
    "PERIOD",
}


def math_troubles(metrics: list[dict[str, Any]]) -> Iterator[str]:
    """What CloudWatch refuses in the list of an alarm, or would work out wrongly."""
    ids = [metric.get("Id", "") for metric in metrics]
    for one in ids:
        if not re.fullmatch(r"[a-z][A-Za-z0-9_]*", one):
            yield f"`{one}` is no id"
    if len(set(ids)) != len(ids):
        yield "an id stands twice"
    if len(metrics) > 10:
        yield f"{len(metrics)} metrics: an alarm takes ten"
    # Unless told otherwise, a metric is returned.
    returned = [metric["Id"] for metric in metrics if str(metric.get("ReturnData", True)).lower() == "true"]
    if len(returned) != 1:
        yield f"returns {returned or 'nothing'}: it must be one series"
    periods = {int(metric["MetricStat"]["Period"]) for metric in metrics if "MetricStat" in metric}
    if len(periods) != 1:
        yield f"periods {sorted(periods)}: they must be equal"
    read: set[str] = set()
    for metric in metrics:
        words = set(re.findall(r"[A-Za-z_]\w*", metric.get("Expression", "")))
        read |= words
        for word in sorted(words - FUNCTIONS - {"AND", "OR", "REPEAT", "LINEAR"} - set(ids)):
            yield f"`{word}` in `{metric['Expression']}` is no id"
    for one in sorted(set(ids) - read - set(returned)):
        if "METRICS" not in read:
            yield f"`{one}` is not used"


@rule_about(ALARM)
def periods_are_valid(shipped: Shipped) -> Iterator[str]:
    """All evaluated periods within a day; minutes, since nothing here is published faster."""
    for place, name, alarm in each(shipped):
        count = int(alarm["EvaluationPeriods"])
        if int(alarm.get("DatapointsToAlarm", count)) > count:
            yield f"{place}: {name}: wants more datapoints than it looks at"
        for one in series.of_alarm(alarm):
            if one.period % 60 or one.period <= 0:
                yield f"{place}: {name}: a period of {one.period} s"
            if one.period * count > DAY:
                yield f"{place}: {name}: looks at {one.period * count} s, more than a day"


@rule_about(ALARM)
def missing_data_is_decided(shipped: Shipped) -> Iterator[str]:
    """Each alarm says what silence means, and none freezes when traffic is low."""
    for place, name, alarm in each(shipped):
        if alarm.get("TreatMissingData") not in ("breaching", "notBreaching", "ignore", "missing"):
            yield f"{place}: {name}: does not say what missing data means"
        if alarm.get("EvaluateLowSampleCountPercentile", "evaluate") != "evaluate":
            yield f"{place}: {name}: a p99 of under 1 000 requests a minute would keep its state"
        if not alarm.get("AlarmDescription"):
            yield f"{place}: {name}: has no description"


@rule_about(ALARM, COMPOSITE)
def every_alarm_reaches_a_composite(shipped: Shipped) -> Iterator[str]:
    """Composites name alarms that exist, and no alarm is left out."""
    for place in shipped.places:
        below = composites(place)
        known = set(alarms(place)) | set(below)
        heard: set[str] = set()
        for name, composite in below.items():
            named = children(composite)
            heard |= named
            for child in sorted(named - known):
                yield f"{place}: {name} names {child}, which does not exist"
            if len(named) > 100 or len(composite["AlarmRule"]) > 10_240:
                yield f"{place}: {name}: more than a composite takes"
        for name in sorted(set(alarms(place)) - heard):
            yield f"{place}: {name} is in no composite"


def children(composite: dict[str, Any]) -> set[str]:
    """The names of the alarms in a rule; an alarm may be named by its ARN."""
    atoms = re.findall(r"\b(?:ALARM|OK|INSUFFICIENT_DATA)\s*\(\s*([^()]*?)\s*\)", composite["AlarmRule"])
    return {atom.strip("'\"").split(":alarm:")[-1] for atom in atoms}


def told(place: Place, name: str) -> set[str]:
    """The topics that hear of an alarm: by its own action, or by that of a composite it is in."""
    topics = {place.export(f"datahub-{topic}"): topic for topic in ("PageTopic", "NotifyTopic")}
    heard = set()
    for owner, alarm in {**alarms(place), **composites(place)}.items():
        acts = str(alarm.get("ActionsEnabled", True)).lower() == "true"
        if acts and (owner == name or ("AlarmRule" in alarm and name in children(alarm))):
            heard |= set(alarm.get("AlarmActions", []))
    return {topics[arn] for arn in heard if arn in topics}


@rule_about(ALARM)
def somebody_hears_of_every_alarm(shipped: Shipped) -> Iterator[str]:
    """By a topic of ours, when it begins; the composites say as well when it is over."""
    for place in shipped.places:
        for name in alarms(place):
            if not told(place, name):
                yield f"{place}: {name} tells nobody"
        for name, composite in composites(place).items():
            if not composite.get("OKActions"):
                yield f"{place}: {name} does not say when it is over"


@rule
def every_upstream_has_an_alarm(shipped: Shipped) -> Iterator[str]:
    """The six names that the gateway publishes by name are those that alarms are made for."""
    for place in shipped.places:
        if "observability" not in place.stacks or place.whole:
            continue
        conf = shipped.configuration(place)
        published = conf.get("cloudwatch", {}).get("upstreams") or sorted(conf.get("upstreams", {}))[:6]
        watched = {
            one.dimensions["Upstream"]
            for alarm in alarms(place).values()
            for one in series.of_alarm(alarm)
            if "Upstream" in one.dimensions
        } - {"other"}
        if watched != set(published):
            yield f"{place}: the gateway publishes {published}, alarms watch {sorted(watched)}"


@rule_about("AWS::SNS::Topic")
def a_topic_has_readers(shipped: Shipped) -> Iterator[str]:
    """Each topic of alarms is encrypted, CloudWatch may publish to it, and a parameter says who reads it."""
    for place in shipped.places:
        topics = {
            key: topic
            for key, topic in place.resources("AWS::SNS::Topic").items()
            if "observability" in key
        }
        named = {
            f"<{name}/{one['Properties']['TopicArn']['Ref']}>"
            for name, stack in place.stacks.items()
            for one in stack.template["Resources"].values()
            if one["Type"] == "AWS::SNS::Subscription" and "Ref" in one["Properties"]["Endpoint"]
        }
        granted: set[str] = set()
        for policy in place.resources("AWS::SNS::TopicPolicy").values():
            for statement in policy["PolicyDocument"]["Statement"]:
                if "cloudwatch.amazonaws.com" in str(statement.get("Principal")):
                    granted |= set(policy["Topics"])
        for key, topic in topics.items():
            if f"<{key}>" not in named:
                yield f"{place}: {key} has no subscription whose endpoint is a parameter"
            if "KmsMasterKeyId" not in topic:
                yield f"{place}: {key} is not encrypted"
            if f"<{key}>" not in granted:
                yield f"{place}: {key}: CloudWatch may not publish to it"


@rule
def the_alarms_of_the_architecture_are_as_it_says(shipped: Shipped) -> Iterator[str]:
    """Each line of its table: metric, threshold, how long, and whom it tells."""
    place = shipped.production
    found = alarms(place)
    for name, metrics, seconds, condition, whom in ARCHITECTURE:
        alarm = found.get(name)
        if alarm is None:
            yield f"{name} is missing"
            continue
        read = list(series.of_alarm(alarm))
        if {one.metric for one in read} != metrics:
            yield f"{name} reads {sorted({one.metric for one in read})}, not {sorted(metrics)}"
        span = max((one.period for one in read), default=0) * int(alarm["EvaluationPeriods"])
        if seconds is not None and span != seconds:
            yield f"{name} looks at {span} s, not {seconds}"
        says = f"{OPERATORS.get(alarm['ComparisonOperator'])} {_threshold(alarm, place)}"
        if says != condition:
            yield f"{name} fires at {says}, not {condition}"
        if f"{whom.title()}Topic" not in told(place, name):
            yield f"{name} does not {whom}"


def _threshold(alarm: dict[str, Any], place: Place) -> str:
    """The threshold; `%` if it is a share of what the database allows."""
    value, allowed = float(alarm["Threshold"]), place.export("datahub-MaxConnections")
    expressions = [metric.get("Expression", "").split() for metric in alarm.get("Metrics", [])]
    share = f"100 * c / {allowed}".split() in expressions
    return f"{value:g} %" if share else f"{value:g}"
