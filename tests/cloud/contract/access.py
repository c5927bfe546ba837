"""Who may do what: no action and no resource in general, unless a reason stands here."""

from collections.abc import Iterator
from typing import Any

import templates
from contract.rule import rule, rule_about
from contract.secrets import granted, listed
from contract.shipped import Place, Shipped
from contract.tasks import family, with_service

# Actions for which AWS knows no narrower resource than `*`, and what limits them instead.
KNOWS_NO_RESOURCE = {
    "cloudwatch:PutMetricData": "narrowed by the condition on the namespace",
    "ecr:GetAuthorizationToken": "a login to the account's registry",
    "ecs:DescribeTaskDefinition": "reads; AWS does not support a resource",
    "ecs:RegisterTaskDefinition": "AWS supports none; PassRole says with which roles",
    "elasticloadbalancing:DescribeLoadBalancers": "reads; AWS does not support a resource",
    "elasticloadbalancing:DescribeTargetGroups": "reads; AWS does not support a resource",
    "secretsmanager:GetRandomPassword": "makes random signs, reads nothing",
    "logs:DescribeLogGroups": "lists; delivery of flow logs asks for it",
}

# A statement with one of these in it is about the key itself: `*` in a key's policy is that key.
KEY = "AWS::KMS::Key"


def policies(place: Place) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every statement that gives a role rights, with where it stands."""
    for key, role in place.resources("AWS::IAM::Role").items():
        for policy in role.get("Policies", []):
            for statement in listed(policy["PolicyDocument"]["Statement"]):
                yield f"{key}/{policy['PolicyName']}", statement
    for kind in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::RolePolicy"):
        for key, policy in place.resources(kind).items():
            for statement in listed(policy["PolicyDocument"]["Statement"]):
                yield key, statement


@rule_about("AWS::IAM::Role")
def no_role_may_do_everything(shipped: Shipped) -> Iterator[str]:
    """Actions are named, one by one; a part of a name may stand for reads of one service."""
    for place in shipped.places:
        for where, statement in policies(place):
            if statement["Effect"] != "Allow":
                continue
            if "NotAction" in statement or "NotResource" in statement:
                yield f"{place}: {where}: allows all but a list"
            for action in listed(statement.get("Action")):
                if action == "*" or action.split(":")[-1] == "*":
                    yield f"{place}: {where}: allows {action}"


@rule
def resources_are_named(shipped: Shipped) -> Iterator[str]:
    """`*` only for actions that know nothing narrower."""
    used: set[str] = set()
    for place in shipped.places:
        for where, statement in policies(place):
            if statement["Effect"] != "Allow" or "*" not in listed(statement.get("Resource")):
                continue
            for action in listed(statement.get("Action")):
                used.add(action)
                if action not in KNOWS_NO_RESOURCE:
                    yield f"{place}: {where}: {action} on every resource"
    for action in sorted(set(KNOWS_NO_RESOURCE) - used):
        yield f"KNOWS_NO_RESOURCE names {action}, which no policy has"


@rule
def metrics_go_only_to_the_namespace_of_the_gateway(shipped: Shipped) -> Iterator[str]:
    """PutMetricData knows no resource, but a condition."""
    for place in shipped.places:
        for where, statement in policies(place):
            if "cloudwatch:PutMetricData" in listed(statement.get("Action")):
                narrowed = (
                    statement.get("Condition", {}).get("StringEquals", {}).get("cloudwatch:namespace")
                )
                if listed(narrowed) != [shipped.catalogue["namespace"]]:
                    yield f"{place}: {where}: publishes to {narrowed}"


@rule
def the_task_may_publish_metrics(shipped: Shipped) -> Iterator[str]:
    """Or every alarm of the gateway's own is silent."""
    for place in with_service(shipped):
        role = family(place, "datahub-gateway").get("TaskRoleArn", "?")
        if "*" not in granted(place, role, "cloudwatch:PutMetricData"):
            yield f"{place}: {role} may not publish metrics"


@rule
def roles_are_passed_by_name_to_one_service(shipped: Shipped) -> Iterator[str]:
    """Whoever may pass any role has the rights of all."""
    for place in shipped.places:
        for where, statement in policies(place):
            if "iam:PassRole" in listed(statement.get("Action")):
                if any("*" in str(resource) for resource in listed(statement.get("Resource"))):
                    yield f"{place}: {where}: passes {statement.get('Resource')}"
                if "iam:PassedToService" not in str(statement.get("Condition")):
                    yield f"{place}: {where}: passes roles to any service"


@rule_about("AWS::IAM::Role")
def trust_is_narrow(shipped: Shipped) -> Iterator[str]:
    """Services by name; GitHub only with this repository, environment and branch, for this audience."""
    branch = {"staging": "develop", "production": "main"}
    for place in shipped.places:
        for key, role in place.resources("AWS::IAM::Role").items():
            for statement in listed(role["AssumeRolePolicyDocument"]["Statement"]):
                principal = statement.get("Principal", {})
                if principal == "*" or "*" in listed(principal.get("AWS")):
                    yield f"{place}: {key}: anybody may take it"
                if "Federated" not in principal:
                    continue
                conditions = statement.get("Condition", {})
                exact = conditions.get("StringEquals", {})
                audience = exact.get("token.actions.githubusercontent.com:aud")
                subjects = listed(exact.get("token.actions.githubusercontent.com:sub"))
                if audience != "sts.amazonaws.com":
                    yield f"{place}: {key}: takes tokens for {audience}"
                if not subjects or any("*" in subject for subject in subjects):
                    yield f"{place}: {key}: takes tokens of {subjects or conditions}"
                for subject in subjects:
                    if f"refs/heads/{branch[place.environment]}" not in subject:
                        yield f"{place}: {key}: {subject} is not the branch of {place.environment}"


@rule
def what_is_open_to_all_has_a_condition(shipped: Shipped) -> Iterator[str]:
    """Policies of buckets, keys, topics, queues and endpoints: `Principal: *` only with a condition."""
    for place in shipped.places:
        for name, stack in place.stacks.items():
            for path, value in templates.walk(stack.resources):
                if not isinstance(value, dict) or value.get("Effect") != "Allow":
                    continue
                principal = value.get("Principal")
                anybody = principal == "*" or (
                    isinstance(principal, dict) and "*" in listed(principal.get("AWS"))
                )
                image_layers = "starport-layer-bucket" in str(value.get("Resource"))
                if anybody and not value.get("Condition") and not image_layers:
                    yield f"{place}: {name}/{'/'.join(map(str, path))}: open to all"
