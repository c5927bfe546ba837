"""The alarms of infra/observability.yaml as CloudFormation would make them in production."""

import json
from dataclasses import dataclass, field
from typing import Any

import templates

# What the other stacks export.
EXPORTS = {
    "datahub-ClusterName": "datahub-cluster",
    "datahub-ServiceName": "datahub-gateway",
    "datahub-LoadBalancer": "app/datahub/0123456789abcdef",
    "datahub-TargetGroup": "targetgroup/datahub/fedcba9876543210",
    "datahub-DatabaseInstance": "datahub-primary",
    "datahub-ReplicaInstance": "datahub-replica",
    "datahub-MaxConnections": str(templates.load("data")["Parameters"]["MaxConnections"]["Default"]),
}
NO_VALUE = object()
KINDS = {"AWS::CloudWatch::Alarm": "metric", "AWS::CloudWatch::CompositeAlarm": "composite"}


@dataclass
class Alarms:
    """What PutMetricAlarm and PutCompositeAlarm take, by name."""

    metric: dict[str, dict[str, Any]] = field(default_factory=dict)
    composite: dict[str, dict[str, Any]] = field(default_factory=dict)


class Template:
    """The template with values for its parameters; imports become EXPORTS, topics the given ARNs."""

    def __init__(self, parameters: dict[str, str], topics: dict[str, str]) -> None:
        self._template = templates.load("observability")
        shipped = templates.INFRA / "parameters" / "production" / "observability.json"
        given = json.loads(shipped.read_text())["Parameters"] | parameters
        declared = self._template["Parameters"]
        unknown = set(given) - set(declared)
        assert not unknown, f"no such parameters: {unknown}"
        self._values = {
            name: str(given.get(name, body.get("Default", ""))) for name, body in declared.items()
        }
        self._topics = topics

    @staticmethod
    def shipped() -> int:
        """How many alarms the template has, whatever their conditions."""
        return sum(body["Type"] in KINDS for body in templates.load("observability")["Resources"].values())

    def alarms(self) -> Alarms:
        """All alarms whose condition holds."""
        alarms = Alarms()
        for body in self._template["Resources"].values():
            kind = KINDS.get(body["Type"])
            if kind and self._holds(body.get("Condition")):
                properties = _numbers(self._value(body["Properties"]))
                getattr(alarms, kind)[properties["AlarmName"]] = properties
        return alarms

    def _holds(self, condition: str | None) -> bool:
        return condition is None or self._value(self._template["Conditions"][condition]) is True

    def _value(self, written: Any) -> Any:
        if isinstance(written, list):
            return [value for value in map(self._value, written) if value is not NO_VALUE]
        if not isinstance(written, dict):
            return written
        if len(written) == 1:
            ((function, argument),) = written.items()
            if function in ("Ref", "Condition") or function.startswith("Fn::"):
                return self._call(function, argument)
        return {str(key): self._value(value) for key, value in written.items()}

    def _call(self, function: str, argument: Any) -> Any:
        match function:
            case "Ref":
                return self._ref(argument)
            case "Condition":
                return self._holds(argument)
            case "Fn::ImportValue":
                return EXPORTS[self._value(argument)]
            case "Fn::Sub":
                text, more = argument if isinstance(argument, list) else (argument, {})
                return self._sub(text, more)
            case "Fn::Join":
                return argument[0].join(self._value(argument[1]))
            case "Fn::If":
                return self._value(argument[1] if self._holds(argument[0]) else argument[2])
            case "Fn::Equals":
                return self._value(argument[0]) == self._value(argument[1])
            case "Fn::Not":
                return self._value(argument[0]) is not True
        raise NotImplementedError(function)

    def _ref(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return NO_VALUE
        if name in self._values:
            return self._values[name]
        if name in self._topics:
            return self._topics[name]
        return self._value(self._template["Resources"][name]["Properties"]["AlarmName"])

    def _sub(self, text: str, more: dict[str, Any]) -> str:
        for key, value in more.items():
            text = text.replace(f"${{{key}}}", str(self._value(value)))
        while "${" in text:
            name = text.split("${", 1)[1].split("}", 1)[0]
            text = text.replace(f"${{{name}}}", str(self._ref(name)))
        return text


def _numbers(alarm: dict[str, Any]) -> dict[str, Any]:
    """CloudFormation turns the text of a parameter into what the property is; so here."""
    for name, kind in (("Threshold", float), ("EvaluationPeriods", int), ("DatapointsToAlarm", int)):
        if name in alarm:
            alarm[name] = kind(alarm[name])
    return alarm
