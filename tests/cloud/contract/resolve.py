"""CloudFormation's intrinsic functions, worked out far enough to compare what stacks say of each other.

A parameter becomes its value, an import what the other stack exports, and a resource a token such as
`<data/Key.Arn>` (or its name, where the template gives one), so that two ways to write one thing are equal.
"""

import ipaddress
import json
import re
from dataclasses import dataclass, field
from typing import Any

ACCOUNTS = {"staging": "111111111111", "production": "222222222222"}

# What `Ref` gives, where the template itself decides it: the property with the name.
NAMED_BY = {
    "AWS::CloudWatch::Alarm": "AlarmName",
    "AWS::CloudWatch::CompositeAlarm": "AlarmName",
    "AWS::ECR::Repository": "RepositoryName",
    "AWS::ECS::Cluster": "ClusterName",
    "AWS::ElastiCache::ReplicationGroup": "ReplicationGroupId",
    "AWS::IAM::Role": "RoleName",
    "AWS::Lambda::Function": "FunctionName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::RDS::DBInstance": "DBInstanceIdentifier",
    "AWS::S3::Bucket": "BucketName",
}


class Absent:
    """`AWS::NoValue`: the property is not there."""


ABSENT = Absent()


@dataclass
class Stack:
    """A template with its values: what CloudFormation would make of it."""

    name: str
    template: dict[str, Any]
    parameters: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, bool] = field(default_factory=dict)
    # Only those whose condition holds.
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    exports: dict[str, Any] = field(default_factory=dict)
    # Every import: (name, where it stands). Whether somebody exports it is for a check to say.
    imports: list[str] = field(default_factory=list)


def resolve(
    name: str,
    template: dict[str, Any],
    given: dict[str, Any],
    environment: str,
    region: str,
    stacks: dict[str, Stack],
) -> None:
    """Adds the stack to `stacks`, which holds those that were made before it."""
    stack = Stack(name, template)
    work = _Resolution(stack, environment, region, stacks)
    for key, declared in template.get("Parameters", {}).items():
        if key == "Environment":
            value = environment
        else:
            value = given.get(key, declared.get("Default", f"<{name}?{key}>"))
        if str(declared.get("Type", "")).startswith(("CommaDelimitedList", "List<")):
            value = [part.strip() for part in str(value).split(",")] if value != "" else []
        stack.parameters[key] = value if isinstance(value, list) else str(value)
    for key in template.get("Conditions", {}):
        work.condition(key)
    for key, resource in template.get("Resources", {}).items():
        if "Condition" not in resource or work.condition(resource["Condition"]):
            kept = {part: value for part, value in resource.items() if part != "Condition"}
            stack.resources[key] = work.value(kept)
    for key, output in template.get("Outputs", {}).items():
        if "Condition" not in output or work.condition(output["Condition"]):
            stack.outputs[key] = work.value(output["Value"])
            if "Export" in output:
                stack.exports[str(work.value(output["Export"]["Name"]))] = stack.outputs[key]
    stacks[name] = stack


class _Resolution:
    """The values of one stack while it is being read."""

    def __init__(self, stack: Stack, environment: str, region: str, stacks: dict[str, Stack]) -> None:
        self.stack, self.stacks = stack, stacks
        self.pseudo = {
            "AWS::AccountId": ACCOUNTS[environment],
            "AWS::Region": region,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::StackName": f"datahub-{stack.name}",
            "AWS::StackId": f"<{stack.name}>",
            "AWS::NoValue": ABSENT,
        }

    def condition(self, name: str) -> bool:
        """The value of a named condition; one that nobody wrote is false (the linter names it)."""
        if name not in self.stack.conditions:
            self.stack.conditions[name] = False  # A circle ends here; the linter names that as well.
            written = self.stack.template.get("Conditions", {}).get(name, False)
            self.stack.conditions[name] = self.value(written) is True
        return self.stack.conditions[name]

    def value(self, written: Any) -> Any:
        """The value with every intrinsic function in it worked out."""
        if isinstance(written, list):
            return [value for value in map(self.value, written) if value is not ABSENT]
        if not isinstance(written, dict):
            return written
        if len(written) == 1:
            ((name, argument),) = written.items()
            if name == "Ref":
                return self._ref(argument)
            if name == "Condition" and isinstance(argument, str):
                return self.condition(argument)
            if name.startswith("Fn::"):
                function = getattr(self, "_" + re.sub(r"(?<!^)(?=[A-Z])", "_", name[4:]).lower(), None)
                return written if function is None else function(argument)
        whole = {key: self.value(value) for key, value in written.items()}
        return {key: value for key, value in whole.items() if value is not ABSENT}

    def _ref(self, name: str) -> Any:
        if name in self.pseudo:
            return self.pseudo[name]
        if name in self.stack.parameters:
            return self.stack.parameters[name]
        return self._name(name) or f"<{self.stack.name}/{name}>"

    def _name(self, resource: str) -> str | None:
        """The name of a resource, where the template gives one."""
        written = self.stack.template["Resources"].get(resource, {})
        name = self.value(written.get("Properties", {}).get(NAMED_BY.get(written.get("Type")), ABSENT))
        return name if isinstance(name, str) else None

    def _get_att(self, argument: str | list[Any]) -> Any:
        resource, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
        kind = self.stack.template["Resources"].get(resource, {}).get("Type")
        named, account, region = (self._name(resource), *self._where())
        if attribute == "Arn" and named:
            if kind == "AWS::IAM::Role":
                return f"arn:aws:iam::{account}:role/{named}"
            if kind == "AWS::S3::Bucket":
                return f"arn:aws:s3:::{named}"
            if kind in ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm"):
                return f"arn:aws:cloudwatch:{region}:{account}:alarm:{named}"
            if kind == "AWS::Logs::LogGroup":
                return f"arn:aws:logs:{region}:{account}:log-group:{named}:*"
            if kind == "AWS::Lambda::Function":
                return f"arn:aws:lambda:{region}:{account}:function:{named}"
            if kind == "AWS::ECR::Repository":
                return f"arn:aws:ecr:{region}:{account}:repository/{named}"
        return f"<{self.stack.name}/{resource}.{attribute}>"

    def _where(self) -> tuple[str, str]:
        return self.pseudo["AWS::AccountId"], self.pseudo["AWS::Region"]

    def _sub(self, argument: str | list[Any]) -> str:
        text, own = (argument, {}) if isinstance(argument, str) else argument
        own = {key: self.value(value) for key, value in own.items()}

        def one(match: re.Match[str]) -> str:
            name = match[1]
            if name.startswith("!"):
                return "${" + name[1:] + "}"
            if name in own:
                return _text(own[name])
            return _text(self._get_att(name) if "." in name else self._ref(name))

        return re.sub(r"\$\{\s*([^}]+?)\s*\}", one, text)

    def _import_value(self, argument: Any) -> Any:
        name = str(self.value(argument))
        self.stack.imports.append(name)
        for stack in self.stacks.values():
            if name in stack.exports:
                return stack.exports[name]
        return f"<?{name}>"

    def _join(self, argument: list[Any]) -> str:
        between, parts = argument
        return str(between).join(_text(part) for part in _list(self.value(parts)))

    def _split(self, argument: list[Any]) -> list[str]:
        return str(self.value(argument[1])).split(argument[0])

    def _select(self, argument: list[Any]) -> Any:
        place, choice = int(self.value(argument[0])), _list(self.value(argument[1]))
        return choice[place] if place < len(choice) else f"<{self.stack.name}?Select>"

    def _if(self, argument: list[Any]) -> Any:
        return self.value(argument[1] if self.condition(argument[0]) else argument[2])

    def _equals(self, argument: list[Any]) -> bool:
        left, right = (self.value(side) for side in argument)
        return _text(left) == _text(right)

    def _and(self, argument: list[Any]) -> bool:
        return all(self.value(one) is True for one in argument)

    def _or(self, argument: list[Any]) -> bool:
        return any(self.value(one) is True for one in argument)

    def _not(self, argument: list[Any]) -> bool:
        return self.value(argument[0]) is not True

    def _find_in_map(self, argument: list[Any]) -> Any:
        table, row, column = (self.value(part) for part in argument[:3])
        found = self.stack.template.get("Mappings", {}).get(table, {}).get(row, {})
        return found.get(column, f"<{self.stack.name}?{table}>")

    def _get_a_zs(self, argument: Any) -> list[str]:
        region = self.value(argument) or self.pseudo["AWS::Region"]
        return [f"{region}{zone}" for zone in "abc"]

    def _cidr(self, argument: list[Any]) -> list[str]:
        block, count, bits = (self.value(part) for part in argument)
        try:
            networks = ipaddress.ip_network(block).subnets(new_prefix=32 - int(bits))
            return [str(network) for network, _ in zip(networks, range(int(count)))]
        except ValueError:
            return []

    def _base64(self, argument: Any) -> Any:
        return self.value(argument)


def _text(value: Any) -> str:
    """A value as it reads inside a string."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return (
        value
        if isinstance(value, str)
        else ",".join(value) if _strings(value) else json.dumps(value, default=str)
    )


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
