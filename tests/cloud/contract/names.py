"""Names that are written out, because no reference reaches: into scripts, policies and the other region."""

import re
from collections.abc import Iterator
from typing import Any

import templates
from contract.access import policies
from contract.resolve import ACCOUNTS
from contract.rule import rule, rule_about
from contract.secrets import listed
from contract.shipped import Place, Shipped
from contract.tasks import TASKS

# What a script may call so, and the property that has the name: (type, property).
SCRIPT_WORDS = {
    "cluster": ("AWS::ECS::Cluster", "ClusterName"),
    "service": ("AWS::ECS::Service", "ServiceName"),
    "repository": ("AWS::ECR::Repository", "RepositoryName"),
    "database": ("AWS::RDS::DBInstance", "DBInstanceIdentifier"),
    "compose": ("AWS::Lambda::Function", "FunctionName"),
}

# The last part of an ARN: a pattern for the name in it, and where that name is given.
IN_ARNS = (
    (r":ecs:[^:]*:\d+:cluster/([\w-]+)$", "AWS::ECS::Cluster", "ClusterName"),
    (r":ecs:[^:]*:\d+:service/[\w-]+/([\w-]+)$", "AWS::ECS::Service", "ServiceName"),
    (r":ecs:[^:]*:\d+:(?:service|task)/([\w-]+)/", "AWS::ECS::Cluster", "ClusterName"),
    (r":ecs:[^:]*:\d+:task-definition/([\w-]+):\*$", TASKS, "Family"),
    (r":iam::\d+:role/([\w-]+)$", "AWS::IAM::Role", "RoleName"),
    (r":logs:[^:]*:\d+:log-group:([^:*]+)", "AWS::Logs::LogGroup", "LogGroupName"),
    (r":s3:::([\w-]+)(?:/\*)?$", "AWS::S3::Bucket", "BucketName"),
    (
        r":elasticache:[^:]*:\d+:replicationgroup:([\w-]+)$",
        "AWS::ElastiCache::ReplicationGroup",
        "ReplicationGroupId",
    ),
    (r":backup:[^:]*:\d+:backup-vault:([\w-]+)$", "AWS::Backup::BackupVault", "BackupVaultName"),
    (r":rds:[^:]*:\d+:db:([\w-]+)$", "AWS::RDS::DBInstance", "DBInstanceIdentifier"),
)

# Buckets and roles of AWS's own.
FOREIGN = re.compile(r"starport-layer-bucket|:iam::aws:")


def named(shipped: Shipped, environment: str, kind: str, word: str) -> set[str]:
    """The names of resources of a type, in all regions of an environment."""
    return {
        str(one[word])
        for place in shipped.places
        if place.environment == environment
        for one in place.resources(kind).values()
        if word in one
    }


@rule
def scripts_call_things_by_their_names(shipped: Shipped) -> Iterator[str]:
    """`cluster=datahub-cluster` in a script is the cluster that a template makes; stacks and secrets as well."""
    for script, text in shipped.scripts.items():
        for word, (kind, property_name) in SCRIPT_WORDS.items():
            known = named(shipped, "production", kind, property_name)
            for name in re.findall(rf"\b{word}=(datahub[\w-]*)", text):
                if name not in known:
                    yield f"infra/{script}: {word} is {name}, the templates have {sorted(known)}"
        for name in re.findall(r"--stack-name \"?datahub-([a-z]+)|\bstack=datahub-([a-z]+)", text):
            if "".join(name) not in shipped.templates:
                yield f"infra/{script}: there is no stack datahub-{''.join(name)}"
        for name in re.findall(
            r"output_of datahub-[a-z]+ (\w+)|OutputKey=='(\w+)'|OutputKey == \"(\w+)\"", text
        ):
            if not any(
                "".join(name) in template.get("Outputs", {}) for template in shipped.templates.values()
            ):
                yield f"infra/{script}: no stack has an output {''.join(name)}"


@rule_about("AWS::IAM::Role")
def arns_that_are_written_out_exist(shipped: Shipped) -> Iterator[str]:
    """In policies and copies: each cluster, service, role, log group, bucket and vault is one that is made."""
    for place in shipped.places:
        for where, arn in _written_out(place):
            if FOREIGN.search(arn):
                continue
            for pattern, kind, word in IN_ARNS:
                found = re.search(pattern, arn)
                if found and "*" not in found[1] and "<" not in found[1]:
                    known = named(shipped, place.environment, kind, word)
                    if found[1] not in known:
                        yield f"{place}: {where}: {arn} does not exist; there is {sorted(known)}"


def _written_out(place: Place) -> Iterator[tuple[str, str]]:
    for where, statement in policies(place):
        for resource in listed(statement.get("Resource")):
            yield where, str(resource)
    for name, stack in place.stacks.items():
        for path, value in templates.walk(stack.resources):
            if (
                isinstance(value, str)
                and value.startswith("arn:")
                and path[-1] in ("Bucket", "DestinationBackupVaultArn")
            ):
                yield f"{name}/{path[0]}", value
            if (
                path
                and path[-1] == "SourceDBInstanceIdentifier"
                and isinstance(value, str)
                and "arn:" in value
            ):
                yield f"{name}/{path[0]}", value


@rule_about("AWS::Lambda::Function")
def functions_know_their_cluster_and_service(shipped: Shipped) -> Iterator[str]:
    """The variables of the function that starts new tasks after a rotation."""
    for place in shipped.places:
        clusters = named(shipped, place.environment, "AWS::ECS::Cluster", "ClusterName")
        services = named(shipped, place.environment, "AWS::ECS::Service", "ServiceName")
        for key, function in place.resources("AWS::Lambda::Function").items():
            variables = function.get("Environment", {}).get("Variables", {})
            if variables.get("CLUSTER", next(iter(clusters))) not in clusters:
                yield f"{place}: {key}: CLUSTER is {variables['CLUSTER']}"
            if variables.get("SERVICE", next(iter(services))) not in services:
                yield f"{place}: {key}: SERVICE is {variables['SERVICE']}"


@rule
def the_recovery_region_names_secrets_that_are_copied_to_it(shipped: Shipped) -> Iterator[str]:
    """Each `Primary…Secret` is a secret of data, and that one has a copy in us-west-2."""
    copied = {
        one.get("Name")
        for one in shipped.production.resources("AWS::SecretsManager::Secret").values()
        if "us-west-2" in str(one.get("ReplicaRegions"))
    }
    recovery = shipped.place("production", "us-west-2").stacks.get("recovery")
    given: dict[str, Any] = recovery.parameters if recovery else {}
    found = {
        name: value
        for name, value in given.items()
        if name.startswith("Primary") and name.endswith("Secret")
    }
    if not found:
        yield "recovery is given no secret"
    for name, arn in found.items():
        secret = re.search(r":secret:([\w/-]+)-[A-Za-z0-9]{6}$", str(arn))
        if secret is None or secret[1] not in copied:
            yield f"recovery: {name} is {arn}; copied are {sorted(map(str, copied))}"


@rule
def policies_of_a_region_stay_in_their_account(shipped: Shipped) -> Iterator[str]:
    """No template carries the number of an account: the same file makes staging and production."""
    for name, template in shipped.templates.items():
        for path, value in templates.walk(template["Resources"]):
            if isinstance(value, str) and re.search(r":\d{12}:", value):
                yield f"{name}: {'/'.join(map(str, path))} names an account"
    assert len(set(ACCOUNTS.values())) == len(ACCOUNTS)
