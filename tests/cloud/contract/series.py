"""The series of CloudWatch that alarms and widgets read, whichever way they are written."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from contract.aws_metrics import AWS_METRICS
from contract.shipped import Place, Shipped

STATISTICS = {"Average", "Maximum", "Minimum", "SampleCount", "Sum"}


@dataclass(frozen=True)
class Series:
    """One metric with its dimensions, as an alarm or a widget names it."""

    namespace: str
    metric: str
    dimensions: dict[str, str]
    statistic: str
    period: int
    unit: str | None = None


def of_alarm(alarm: dict[str, Any]) -> Iterator[Series]:
    """What an alarm reads."""
    for metric in alarm.get("Metrics", []):
        if "MetricStat" in metric:
            yield of_stat(metric["MetricStat"])
    if "MetricName" in alarm:
        yield Series(
            alarm.get("Namespace", ""),
            alarm["MetricName"],
            _pairs(alarm.get("Dimensions", [])),
            alarm.get("Statistic") or alarm.get("ExtendedStatistic", ""),
            int(alarm.get("Period", 0)),
            alarm.get("Unit"),
        )


def of_stat(stat: dict[str, Any]) -> Series:
    """A `MetricStat`."""
    metric = stat["Metric"]
    return Series(
        metric.get("Namespace", ""),
        metric.get("MetricName", ""),
        _pairs(metric.get("Dimensions", [])),
        stat.get("Stat", ""),
        int(stat.get("Period", 0)),
        stat.get("Unit"),
    )


def _pairs(dimensions: list[dict[str, Any]]) -> dict[str, str]:
    return {pair["Name"]: str(pair["Value"]) for pair in dimensions}


def troubles(series: Series, shipped: Shipped, place: Place) -> Iterator[str]:
    """Why a series can have no data, or is read wrongly."""
    yield from statistic_troubles(series.statistic)
    if series.namespace == shipped.catalogue["namespace"]:
        yield from _own(series, shipped, place)
        return
    known = AWS_METRICS.get((series.namespace, series.metric))
    if known is None:
        yield f"{series.namespace} {series.metric} is neither published by the gateway nor in AWS_METRICS"
    elif frozenset(series.dimensions) not in known:
        yield f"{series.metric} does not exist under {sorted(series.dimensions)}, but {_sets(known)}"
    yield from _identity(series, place)


def statistic_troubles(statistic: str) -> Iterator[str]:
    """A statistic that CloudWatch does not know: a percentile is p0 to p100."""
    percentile = re.fullmatch(r"(?:p|tm|wm|tc|ts)(\d{1,3}(?:\.\d{1,10})?)", statistic)
    if statistic in STATISTICS or (percentile and float(percentile[1]) <= 100):
        return
    yield f"`{statistic}` is no statistic"


def _own(series: Series, shipped: Shipped, place: Place) -> Iterator[str]:
    """A series of the gateway's: all three dimensions as the catalogue has them."""
    metric = next((one for one in shipped.catalogue["metrics"] if one["name"] == series.metric), None)
    if metric is None:
        yield f"the gateway publishes no metric {series.metric}"
        return
    if sorted(series.dimensions) != sorted(metric["dimensions"]):
        yield f"{series.metric} is published under {metric['dimensions']}, not {sorted(series.dimensions)}"
    if series.unit is not None and series.unit != metric["unit"]:
        yield f"{series.metric} is published in {metric['unit']}, not {series.unit}"
    conf = shipped.configuration(place).get("cloudwatch", {})
    expected = {"Service": conf.get("service", "datahub-gateway"), "Environment": conf.get("environment")}
    for name, value in series.dimensions.items():
        if name in expected and value != expected[name]:
            yield f"{series.metric}: the gateway says {name}={expected[name]}, not {value}"
        closed = metric.get("values")
        if name not in expected and closed is not None and value not in (*closed, "*"):
            yield f"{series.metric}: {name} is one of {closed}, not {value}"


# What a dimension's value must be: the identity of a resource of this place, as AWS publishes it.
_VALUES = {
    "ClusterName": ("AWS::ECS::Cluster", ""),
    "ServiceName": ("AWS::ECS::Service", ".Name"),
    "LoadBalancer": ("AWS::ElasticLoadBalancingV2::LoadBalancer", ".LoadBalancerFullName"),
    "TargetGroup": ("AWS::ElasticLoadBalancingV2::TargetGroup", ".TargetGroupFullName"),
    "DBInstanceIdentifier": ("AWS::RDS::DBInstance", ""),
}


def _identity(series: Series, place: Place) -> Iterator[str]:
    for name, value in series.dimensions.items():
        if name in _VALUES and value not in identities(place, name):
            yield f"{series.metric}: {name} is {value}, but the stacks have {sorted(identities(place, name))}"


def identities(place: Place, dimension: str) -> set[str]:
    """Every value that a dimension can have here: tokens, and names that the templates give."""
    kind, attribute = _VALUES[dimension]
    found = set()
    for key, properties in place.resources(kind).items():
        found.add(f"<{key}{attribute}>")
        for named in ("ClusterName", "ServiceName", "DBInstanceIdentifier"):
            if named in properties and named == dimension:
                found.add(properties[named])
    return found


def _sets(known: tuple[frozenset[str], ...]) -> str:
    return " or ".join(str(sorted(names)) for names in known)
