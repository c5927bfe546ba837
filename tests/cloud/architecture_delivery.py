"""Figures of "CI/CD Pipeline"."""

import re
from typing import Any

from architecture import Check, rule, section
from contract.secrets import listed
from contract.shipped import Shipped


def job(s: Shipped, workflow: str, name: str) -> dict[str, Any]:
    return s.workflows.get(workflow, {}).get("jobs", {}).get(name, {})


def words(s: Shipped, workflow: str, name: str) -> str:
    """All that a job does, as one text: names, actions and commands of its steps in their order."""
    steps = job(s, workflow, name).get("steps", [])
    return "\n".join(" ".join(str(step.get(key, "")) for key in ("name", "uses", "run")) for step in steps)


def does(workflow: str, name: str, *patterns: str) -> Check:
    """A job does all of these, in this order."""

    def check(s: Shipped) -> bool:
        text, at = words(s, workflow, name), 0
        for pattern in patterns:
            found = re.compile(pattern).search(text, at)
            if found is None:
                return False
            at = found.end()
        return True

    return check


def needs(s: Shipped, workflow: str, name: str) -> set[str]:
    return set(listed(job(s, workflow, name).get("needs")))


def branches(s: Shipped, workflow: str) -> list[str]:
    return listed((s.workflows.get(workflow, {}).get("on") or {}).get("push", {}).get("branches"))


def started_by(s: Shipped, workflow: str) -> set[str]:
    on = s.workflows.get(workflow, {}).get("on") or {}
    return set(on) if isinstance(on, dict) else set(listed(on))


STEPS = ("Push the image", "Migrate", "Update the service", "Health", "load")

flow = section("CI/CD, diagram in text")
flow("commit: push", lambda s: "push" in started_by(s, "deploy") and "push" in started_by(s, "ci"))
flow("commit: pull request", lambda s: "pull_request" in started_by(s, "ci"))
flow("build: npm ci", does("ci", "test", r"make test"), settled="Build")
flow("build: TypeScript", does("ci", "lint", r"make lint"), settled="Build")
flow("build: Docker", does("ci", "image", r"docker build"))
flow("test: unit", does("ci", "coverage", r"Unit tests .*--lib"))
flow("test: integration", does("ci", "coverage", r"Integration tests "))
flow("test: end to end", does("ci", "coverage", r"End to end tests .*--test it"))
flow("deploy: ECR push", does("deploy", "deploy", r"infra/release .* image "))
flow("deploy: ECS", does("deploy", "deploy", r"infra/release .* update "))
flow("deploy: verify", does("deploy", "deploy", r"infra/smoke "))
flow(
    "feature/*: build and test, and no further",
    lambda s: branches(s, "ci") == ["feature/**"]
    and not any("feature" in branch for branch in branches(s, "deploy")),
)
flow(
    "develop: build, test, deploy to staging",
    lambda s: "develop" in branches(s, "deploy") and _goes_to(s, "staging"),
)
flow(
    "main: build, test, deploy to production",
    lambda s: "main" in branches(s, "deploy") and _goes_to(s, "production"),
)


def _goes_to(s: Shipped, environment: str) -> bool:
    name = str(job(s, "deploy", "deploy").get("environment", {}).get("name"))
    return environment in name and "refs/heads/main' && 'production' || 'staging'" in name


pipeline = section("CI/CD, Mermaid")
pipeline(
    "trigger: push or pull request",
    lambda s: {"push", "pull_request"} <= started_by(s, "ci") | started_by(s, "deploy"),
)
pipeline("build: install dependencies", does("ci", "test", r"rustup "), settled="Build")
pipeline("build: TypeScript compile", does("ci", "image", r"docker build"), settled="Build")
pipeline("build: Docker image", does("ci", "image", r"docker build"))
pipeline("build: security scan", does("ci", "image", r"trivy-action"))
pipeline("build: security scan of what it is built from", does("ci", "deny", r"cargo deny"))
pipeline("test: unit tests", does("ci", "coverage", r"Unit tests "))
pipeline("test: integration tests", does("ci", "coverage", r"Unit tests .*\n.*\n?.*Integration tests "))
pipeline("test: end to end tests", does("ci", "coverage", r"Integration tests ", r"End to end tests "))
pipeline(
    "test: coverage report", does("ci", "coverage", r"End to end tests ", r"Report ", r"upload-artifact")
)
pipeline("deploy: push to ECR", does("deploy", "deploy", STEPS[0]))
pipeline("deploy: update task definition", does("deploy", "deploy", *STEPS[:3]))
pipeline("deploy: ECS rolling update", rule("a_bad_deployment_rolls_back_by_itself"))
pipeline("deploy: health check", does("deploy", "deploy", *STEPS[:4]))
pipeline("deploy: smoke tests", does("deploy", "deploy", *STEPS))
pipeline("notify: Slack", does("deploy", "tell", r"Slack "))
pipeline("notify: GitHub status", does("deploy", "tell", r"statuses/"))
pipeline(
    "build → test → deploy → notify",
    lambda s: "ci" in needs(s, "deploy", "deploy")
    and "deploy" in needs(s, "deploy", "tell")
    and {"test", "coverage", "image", "deny"} <= needs(s, "ci", "ci"),
    settled="Order of build and test",
)
