"""Mistakes that people make in templates: each is a small edit of what ships, and has a rule that catches it.

A mistake is planted in a copy of the shipped templates, so the list tests the rules and not a toy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from contract.shipped import Shipped

Plant = Callable[[Shipped], None]


@dataclass(frozen=True)
class Mistake:
    """What somebody did, and the rule that must say so."""

    name: str
    caught_by: str
    plant: Plant


MISTAKES: list[Mistake] = []


def mistake(caught_by: str) -> Callable[[Plant], Plant]:
    """Makes a function one of the mistakes; its name says what was done."""

    def add(plant: Plant) -> Plant:
        assert all(known.name != plant.__name__ for known in MISTAKES), plant.__name__
        MISTAKES.append(Mistake(plant.__name__, caught_by, plant))
        return plant

    return add


def resource(shipped: Shipped, stack: str, kind: str, **having: Any) -> dict[str, Any]:
    """The first resource of a type in a template, whose properties are as told."""
    for one in shipped.templates[stack]["Resources"].values():
        properties = one.get("Properties", {})
        if one["Type"] == kind and all(properties.get(name) == value for name, value in having.items()):
            return one
    raise AssertionError(f"{stack} has no {kind} with {having}")


def properties(shipped: Shipped, stack: str, kind: str, **having: Any) -> dict[str, Any]:
    """The properties of that resource."""
    return resource(shipped, stack, kind, **having)["Properties"]


def alarm(shipped: Shipped, name: str) -> dict[str, Any]:
    """The properties of an alarm, by its name without `datahub-`."""
    for kind in ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm"):
        for one in shipped.templates["observability"]["Resources"].values():
            if one["Type"] == kind and one["Properties"]["AlarmName"] == f"datahub-{name}":
                return one["Properties"]
    raise AssertionError(f"no alarm is called {name}")


def container(shipped: Shipped, family: str = "datahub-gateway") -> dict[str, Any]:
    """The container of a task definition."""
    return properties(shipped, "service", "AWS::ECS::TaskDefinition", Family=family)[
        "ContainerDefinitions"
    ][0]


def attribute(owner: dict[str, Any], word: str, key: str, value: str) -> None:
    """Gives an attribute of a load balancer or a target group another value."""
    pair = next(pair for pair in owner[word] if pair["Key"] == key)
    pair["Value"] = value


def statement(shipped: Shipped, stack: str, action: str) -> dict[str, Any]:
    """The first statement of a role's or an attached policy that allows an action."""
    for one in shipped.templates[stack]["Resources"].values():
        found = one.get("Properties", {})
        documents = [
            policy["PolicyDocument"] for policy in found.get("Policies", []) if "PolicyDocument" in policy
        ]
        if one["Type"] in ("AWS::IAM::Policy", "AWS::IAM::RolePolicy", "AWS::IAM::ManagedPolicy"):
            documents.append(found["PolicyDocument"])
        for document in documents:
            for candidate in document["Statement"]:
                actions = candidate.get("Action", [])
                if action in ([actions] if isinstance(actions, str) else actions):
                    return candidate
    raise AssertionError(f"{stack} allows {action} nowhere")


def dashboard(shipped: Shipped, old: str, new: str) -> None:
    """Replaces a piece of the dashboard's text."""
    body = properties(shipped, "observability", "AWS::CloudWatch::Dashboard")["DashboardBody"]
    holder = body["Fn::Sub"]
    text = holder if isinstance(holder, str) else holder[0]
    assert old in text, f"the dashboard does not say {old}"
    changed = text.replace(old, new, 1)
    if isinstance(holder, str):
        body["Fn::Sub"] = changed
    else:
        holder[0] = changed
