"""Dashboards whose widgets show something."""

import json
import re
from collections.abc import Iterator
from typing import Any

from contract import alarms, series
from contract.rule import rule, rule_about
from contract.shipped import Place, Shipped

# The architecture's six panels, by the metric that each shows, and its list of alarms.
PANELS = {
    "Request rate": {"RequestCount"},
    "Error rate": {"ServerErrors", "HTTPCode_Target_5XX_Count"},
    "P99 latency": {"RequestLatency", "TargetResponseTime"},
    "CPU utilization": {"CPUUtilization"},
    "Active connections": {"ActiveConnections"},
    "Rate limit hits": {"RateLimitHits"},
}


def bodies(place: Place) -> dict[str, Any]:
    """The dashboards of a place; one that does not parse is None."""
    found = {}
    for key, dashboard in place.resources("AWS::CloudWatch::Dashboard").items():
        try:
            found[key] = json.loads(dashboard["DashboardBody"])
        except (KeyError, TypeError, ValueError):
            found[key] = None
    return found


@rule_about("AWS::CloudWatch::Dashboard")
def dashboards_parse(shipped: Shipped) -> Iterator[str]:
    """CloudWatch takes a body that does not parse only to say so; the stack then fails."""
    for place in shipped.places:
        for key, body in bodies(place).items():
            if not isinstance(body, dict) or not isinstance(body.get("widgets"), list):
                yield f"{place}: {key} is not JSON with a list of widgets"
                continue
            for widget in body["widgets"]:
                if widget.get("x", 0) + widget.get("width", 6) > 24:
                    yield f"{place}: {key}: a widget is wider than the grid of 24"


@rule
def every_series_of_a_dashboard_has_data(shipped: Shipped) -> Iterator[str]:
    """As for alarms; and what is computed names ids that exist."""
    for place, key, widget in _widgets(shipped):
        title = widget.get("properties", {}).get("title", "?")
        for one in widget_series(widget):
            yield from (
                f"{place}: {key}: {title}: {trouble}" for trouble in series.troubles(one, shipped, place)
            )
        yield from (f"{place}: {key}: {title}: {trouble}" for trouble in _math(widget))


@rule
def alarm_widgets_name_alarms_that_exist(shipped: Shipped) -> Iterator[str]:
    """By their ARN, of this account and region."""
    for place, key, widget in _widgets(shipped):
        known = set(alarms.alarms(place)) | set(alarms.composites(place))
        for arn in widget.get("properties", {}).get("alarms", []):
            if arn.split(":alarm:")[-1] not in known:
                yield f"{place}: {key}: names {arn}, which does not exist"


@rule
def the_panels_of_the_architecture_are_there(shipped: Shipped) -> Iterator[str]:
    """Its six, and the recent alarms."""
    place = shipped.production
    shown: list[set[str]] = []
    kinds = set()
    for _, _, widget in _widgets(shipped, place):
        kinds.add(widget.get("type"))
        shown.append({one.metric for one in widget_series(widget)})
    for panel, metrics in PANELS.items():
        if not any(metrics & read for read in shown):
            yield f"no panel shows {panel}: {sorted(metrics)}"
    if "alarm" not in kinds:
        yield "no widget shows the recent alarms"


def _widgets(shipped: Shipped, only: Place | None = None) -> Iterator[tuple[Place, str, dict[str, Any]]]:
    for place in shipped.places if only is None else [only]:
        for key, body in bodies(place).items():
            for widget in (body or {}).get("widgets", []):
                yield place, key, widget


def widget_series(widget: dict[str, Any]) -> Iterator[series.Series]:
    """The series of a widget, with its short forms: `.` is the word above, `...` all words above."""
    properties = widget.get("properties", {})
    above: list[str] = []
    for row in properties.get("metrics", []):
        options = row[-1] if isinstance(row[-1], dict) else {}
        words = [word for word in row if isinstance(word, str)]
        if not words:
            yield from _searched(options.get("expression", ""))
            continue
        if words[0] == "...":
            kept = len(above) - len(words) + 1
            words = above[:kept] + words[1:]
        words = [
            above[place] if word == "." and place < len(above) else word for place, word in enumerate(words)
        ]
        above = words
        yield series.Series(
            words[0],
            words[1],
            dict(zip(words[2::2], words[3::2])),
            options.get("stat", properties.get("stat", "Average")),
            int(options.get("period", properties.get("period", 300))),
        )


def _searched(expression: str) -> Iterator[series.Series]:
    """What a SEARCH looks for: `{Namespace,Dimension,..} MetricName="Name" Dimension="value"`."""
    for match in re.finditer(r"SEARCH\('\{([^}]*)\}([^']*)', *'([^']*)', *(\d+)\)", expression):
        namespace, *names = (word.strip() for word in match[1].split(","))
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
        for metric in re.findall(r'MetricName="([^"]*)"', match[2]):
            dimensions = {name: pairs.get(name, "*") for name in names}
            yield series.Series(namespace, metric, dimensions, match[3], int(match[4]))


def _math(widget: dict[str, Any]) -> Iterator[str]:
    rows = [row[-1] for row in widget.get("properties", {}).get("metrics", []) if isinstance(row[-1], dict)]
    ids = {row["id"] for row in rows if "id" in row}
    for row in rows:
        if "expression" in row and "SEARCH(" not in row["expression"]:
            metrics = [{"Id": name, "Expression": ""} for name in sorted(ids)] + [
                {"Id": "result", "Expression": row["expression"]}
            ]
            yield from (trouble for trouble in alarms.math_troubles(metrics) if "is no id" in trouble)
