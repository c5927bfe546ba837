"""Secrets: given to the container that needs them, by the role that may read them, and to nobody else."""

import json
from collections.abc import Iterator
from typing import Any

import templates
from contract.resolve import ACCOUNTS
from contract.rule import rule, rule_about
from contract.shipped import Place, Shipped
from contract.tasks import TASKS, container, family, with_service

# What the gateway reads from the environment without being told in its files.
READ_ANYWAY = {"DATAHUB_CONF", "DATAHUB_ZONE", "DATABASE_REPLICA_URL"}


def statements(place: Place, role: str) -> list[dict[str, Any]]:
    """Everything that a role is allowed: inline and attached policies of the templates. By ARN or name."""
    found: list[dict[str, Any]] = []
    for key, properties in place.resources("AWS::IAM::Role").items():
        if role in (properties.get("RoleName"), f"<{key}.Arn>", _arn(place, properties)):
            for policy in properties.get("Policies", []):
                found += policy["PolicyDocument"]["Statement"]
            name = properties.get("RoleName", f"<{key}>")
            for kind in ("AWS::IAM::Policy", "AWS::IAM::RolePolicy", "AWS::IAM::ManagedPolicy"):
                for policy in place.resources(kind).values():
                    if name in policy.get("Roles", []) or policy.get("RoleName") == name:
                        found += policy["PolicyDocument"]["Statement"]
    return found


def _arn(place: Place, role: dict[str, Any]) -> str:
    return f"arn:aws:iam::{ACCOUNTS[place.environment]}:role/{role.get('RoleName', '?')}"


def listed(value: Any) -> list[Any]:
    """A policy may leave out the brackets of a list of one."""
    return value if isinstance(value, list) else [] if value is None else [value]


def granted(place: Place, role: str, action: str) -> list[str]:
    """The resources on which a role may do an action, as written."""
    return [
        resource
        for statement in statements(place, role)
        if statement["Effect"] == "Allow" and action in listed(statement.get("Action"))
        for resource in listed(statement.get("Resource"))
    ]


def given(definition: dict[str, Any]) -> dict[str, str]:
    """Name of the variable and where its secret lies."""
    return {
        one["Name"]: one["ValueFrom"]
        for inside in definition.get("ContainerDefinitions", [])
        for one in inside.get("Secrets", [])
    }


@rule_about(TASKS)
def secrets_are_granted_exactly(shipped: Shipped) -> Iterator[str]:
    """The execution role reads the secrets of its tasks and no other, with the key they lie under."""
    for place in with_service(shipped):
        wanted: dict[str, set[str]] = {}
        for definition in place.resources(TASKS).values():
            wanted.setdefault(definition.get("ExecutionRoleArn", "?"), set()).update(
                given(definition).values()
            )
        for role, arns in wanted.items():
            readable = set(granted(place, role, "secretsmanager:GetSecretValue"))
            for arn in sorted(arns - readable):
                yield f"{place}: {role} may not read {arn}, which its task is given"
            for arn in sorted(readable - arns):
                yield f"{place}: {role} may read {arn}, which no task is given"
            keys = granted(place, role, "kms:Decrypt")
            if place.export("datahub-KeyArn") not in keys or len(set(keys)) != 1:
                yield f"{place}: {role} decrypts with {keys}, not with exactly the key of the secrets"


@rule_about(TASKS)
def the_gateway_itself_reads_no_secret_and_no_key(shipped: Shipped) -> Iterator[str]:
    """What a task is given at its start is all: the role that it runs with cannot fetch more."""
    for place in with_service(shipped):
        roles = {definition.get("TaskRoleArn") for definition in place.resources(TASKS).values()}
        for role in sorted(filter(None, roles)):
            for statement in statements(place, role):
                for action in listed(statement.get("Action")):
                    if action.split(":")[0] in ("secretsmanager", "kms", "ssm", "iam", "sts"):
                        yield f"{place}: {role} may {action}"
        if family(place, "datahub-gateway").get("TaskRoleArn") == family(place, "datahub-gateway").get(
            "ExecutionRoleArn", ""
        ):
            yield f"{place}: the gateway runs with the role that reads its secrets"


@rule_about(TASKS)
def every_secret_is_one_that_the_stacks_make(shipped: Shipped) -> Iterator[str]:
    """By its whole value: no key into JSON, and an ARN that data or recovery exports."""
    for place in with_service(shipped):
        known = {
            value
            for stack in place.stacks.values()
            for name, value in stack.exports.items()
            if name.endswith("Secret")
        }
        for key, definition in place.resources(TASKS).items():
            for name, arn in given(definition).items():
                if arn not in known:
                    yield f"{place}: {key}: {name} comes from {arn}, which is no secret of these stacks"


@rule
def variables_and_configuration_agree(shipped: Shipped) -> Iterator[str]:
    """Every `env:NAME` of conf/environments is given to the task, and nothing is given that nobody reads."""
    for place in with_service(shipped):
        conf = shipped.configuration(place)
        read = {
            value[4:]
            for _, value in templates.walk(conf)
            if isinstance(value, str) and value.startswith("env:")
        }
        inside = container(place)
        have = {one["Name"] for one in inside.get("Environment", []) + inside.get("Secrets", [])}
        for name in sorted(read - have):
            yield f"{place}: conf/environments/{place.folder} reads env:{name}, which the task is not given"
        for name in sorted(have - read - READ_ANYWAY):
            yield f"{place}: the task is given {name}, which conf/environments/{place.folder} does not read"
        plain = {one["Name"]: one["Value"] for one in inside.get("Environment", [])}
        if plain.get("DATAHUB_CONF") != f"/app/conf/environments/{place.folder}":
            yield f"{place}: DATAHUB_CONF is {plain.get('DATAHUB_CONF')}"
        for name in sorted(set(plain) - READ_ANYWAY):
            yield f"{place}: {name} is given in plain text"
        if "COPY conf conf" not in shipped.dockerfile and "/app/conf" not in shipped.dockerfile:
            yield "the image does not carry conf/ to /app/conf"


@rule
def a_migration_knows_only_the_database(shipped: Shipped) -> Iterator[str]:
    """`gateway migrate`, with the configuration of the service and no secret but DATABASE_URL."""
    for place in with_service(shipped):
        migrate = container(place, "datahub-migrate")
        if migrate.get("Command") != ["migrate"]:
            yield f"{place}: datahub-migrate runs {migrate.get('Command')}"
        if [one["Name"] for one in migrate.get("Secrets", [])] != ["DATABASE_URL"]:
            yield f"{place}: datahub-migrate is given {[one['Name'] for one in migrate.get('Secrets', [])]}"
        if migrate.get("Environment") != container(place).get("Environment"):
            yield f"{place}: datahub-migrate has {migrate.get('Environment')}"
        if family(place, "datahub-migrate").get("TaskRoleArn"):
            yield f"{place}: datahub-migrate has a role, and calls nothing of AWS"


@rule
def no_secret_is_written_down(shipped: Shipped) -> Iterator[str]:
    """No value of a secret in a template or a parameter file: they are made by AWS, or by hand there."""
    for name, template in shipped.templates.items():
        for key, resource in template["Resources"].items():
            properties = resource.get("Properties", {})
            for word in ("SecretString", "MasterUserPassword", "AuthToken"):
                value = properties.get(word)
                if isinstance(value, str) and not value.startswith("{{resolve:secretsmanager:"):
                    yield f"{name}/{key}: {word} is written in the template"
        for parameter, declaration in template.get("Parameters", {}).items():
            hidden = str(declaration.get("NoEcho", "false")).lower() == "true"
            if hidden and declaration.get("Default"):
                yield f"{name}: {parameter} is secret, and has a default"
    for key, content in shipped.parameters.items():
        for parameter, value in content.get("Parameters", {}).items():
            if any(word in parameter.lower() for word in ("password", "authtoken", "webhook")) and value:
                yield f"infra/parameters/{key}.json: {parameter} stands there: {json.dumps(value)[:8]}…"
