"""The workflow that deploys: what it takes for granted of the account and of the configuration."""

import re
from collections.abc import Iterator

from contract.rule import rule
from contract.secrets import listed
from contract.shipped import Shipped

ENVIRONMENT_OF = {"develop": "staging", "main": "production"}


@rule
def a_release_asks_for_a_route_that_exists(shipped: Shipped) -> Iterator[str]:
    """The smoke test's route is in both configurations, answers by itself, and wants a credential."""
    text = str(
        shipped.workflows.get("deploy", {})
        .get("jobs", {})
        .get("deploy", {})
        .get("env", {})
        .get("SMOKE_ROUTE")
    )
    default = re.search(r"/[\w/-]+", text)
    for environment, conf in shipped.conf.items():
        routes = conf.get("routes", {}).values()
        found = [route for route in routes if default and route.get("path") == default[0]]
        if not found:
            yield f"{environment}: no route is {default[0] if default else text}"
        for route in found:
            if "reply" not in route or route.get("auth") == "none":
                yield f"{environment}: {default[0] if default else text} does not answer by itself, or lets everybody in"


@rule
def github_proves_the_branch_that_the_role_trusts(shipped: Shipped) -> Iterator[str]:
    """The workflow runs for the branches that the roles trust, under the environments' names."""
    deploy = shipped.workflows.get("deploy", {})
    branches = listed((deploy.get("on") or {}).get("push", {}).get("branches"))
    if sorted(branches) != sorted(ENVIRONMENT_OF):
        yield f"deploy.yml runs for {branches}"
    for branch, environment in ENVIRONMENT_OF.items():
        role = shipped.place(environment).resources("AWS::IAM::Role").get("pipeline/DeployRole", {})
        if f":environment:{environment}:ref:refs/heads/{branch}" not in str(
            role.get("AssumeRolePolicyDocument")
        ):
            yield f"{environment}: the role for GitHub does not trust {branch} in the environment {environment}"
    job = deploy.get("jobs", {}).get("deploy", {})
    if job.get("permissions", {}).get("id-token") != "write":
        yield "deploy.yml: its job has no token to prove itself with"
    for name, one in shipped.workflows.items():
        for key, other in one.get("jobs", {}).items():
            if (name, key) != ("deploy", "deploy") and (other.get("permissions") or {}).get(
                "id-token"
            ) == "write":
                yield f"{name}.yml: {key} could prove itself to AWS as well"
