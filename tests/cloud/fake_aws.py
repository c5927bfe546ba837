#!/usr/bin/env python3
"""What infra/release asks AWS and docker, answered from a file: `aws`, `docker` and `deploy` in one program.

It is our reading of these commands, not AWS. It remembers every call, so that a test can say what was done, in
which order, and what was not. The state is JSON in $FAKE_STATE; a test arranges it and reads it again."""

import json
import os
import re
import sys
from pathlib import Path

STATE = Path(os.environ["FAKE_STATE"])
state = json.loads(STATE.read_text())
program, arguments = Path(sys.argv[0]).name, sys.argv[1:]


def option(name: str) -> str:
    """The value of --name."""
    return arguments[arguments.index(f"--{name}") + 1]


def finish(answer: object = None, error: str | None = None) -> None:
    """Keeps the state and answers."""
    STATE.write_text(json.dumps(state))
    if error is not None:
        sys.exit(f"\nAn error occurred: {error}")
    if answer is not None:
        print(answer if isinstance(answer, str) else json.dumps(answer))
    sys.exit(0)


def docker() -> None:
    """The image is loaded from a file that holds its digest."""
    state["calls"].append(f"docker {arguments[0]}")
    if arguments[0] == "load":
        state["loaded"] = Path(option("input")).read_text().strip()
        finish("Loaded image: datahub-gateway:ci")
    if arguments[0] == "login":
        assert sys.stdin.read().strip() == "password"
    if arguments[0] == "push":
        tag = arguments[-1].rsplit(":", 1)[1]
        if state.get("push_fails"):
            finish(error="denied")
        state["images"][tag] = state["loaded"]
    finish()


def deploy() -> None:
    """`infra/deploy --image IMAGE ENVIRONMENT REGION service`."""
    flag, image, environment, region, stack = arguments
    assert (flag, stack) == ("--image", "service"), arguments
    state["calls"].append(f"deploy {environment} {region} {image.split('/')[0]} {image.split('@')[1]}")
    if state.get("update_fails"):
        state["update_fails"] -= 1
        finish(error="the update was taken back")
    state["runs"] = image
    finish()


def task_definition(name: str) -> dict:
    """Of the service, of the migration as the stack has it, or a registered copy of that."""
    if name.startswith("gateway"):
        secrets = [{"name": one, "valueFrom": f"arn:{one}"} for one in ("DATABASE_URL", "DATABASE_REPLICA_URL")]
        return {"containerDefinitions": [{"name": "gateway", "image": state["runs"], "secrets": secrets}]}
    copies = state["registered"]
    image = copies[int(name.split(":")[1])] if ":" in name else "of the stack"
    options = {"awslogs-group": "/datahub/migrate", "awslogs-stream-prefix": "migrate"}
    container = {"name": "migrate", "image": image, "logConfiguration": {"options": options}}
    return {"family": "datahub-migrate", "cpu": "256", "status": "ACTIVE", "containerDefinitions": [container]}


def ecr(command: str) -> None:
    """The registry. Replication arrives after as many looks as the state says."""
    if command == "get-login-password":
        # `docker login` runs at the same time and writes the state.
        print("password")
        sys.exit(0)
    kind, value = option("image-ids").split("=")
    if kind == "imageTag":
        finish(state["images"].get(value, "None"))
    if state.get("replicates_after", 0) > 0:
        state["replicates_after"] -= 1
        finish("None")
    finish(value if value in state["images"].values() else "None")


def ecs(command: str) -> None:
    """Cluster, service and tasks."""
    if command == "describe-clusters":
        finish("datahub-cluster" if state.get("runs") else "")
    if command == "describe-services":
        network = {"awsvpcConfiguration": {"subnets": ["subnet-a"], "assignPublicIp": "DISABLED"}}
        service = {"status": "ACTIVE", "taskDefinition": "gateway:7", "networkConfiguration": network}
        finish({"services": [service] if state.get("runs") else []})
    if command == "describe-task-definition":
        finish({"taskDefinition": task_definition(option("task-definition"))})
    if command == "register-task-definition":
        definition = json.loads(option("cli-input-json"))
        assert "status" not in definition, "what AWS adds is not accepted by AWS"
        state["registered"].append(definition["containerDefinitions"][0]["image"])
        state["definition"] = definition
        finish(f"datahub-migrate:{len(state['registered']) - 1}")
    if command == "run-task":
        override = json.loads(option("overrides"))["containerOverrides"][0]
        words = override["command"]
        if "environment" in override:
            state["given"] = {one["name"]: one["value"] for one in override["environment"]}
        assert json.loads(option("network-configuration"))["awsvpcConfiguration"]["subnets"]
        image = task_definition(option("task-definition"))["containerDefinitions"][0]["image"]
        if state.get("no_capacity"):
            finish({"tasks": [], "failures": [{"reason": "RESOURCE:ENI"}]})
        state["calls"].append(f"task {image.split('@')[-1]} {' '.join(words)}")
        state["looks"] = 0
        finish({"tasks": [{"taskArn": "arn:aws:ecs:us-east-1:123456789012:task/datahub-cluster/t1"}]})
    if command == "describe-tasks":
        state["looks"] += 1
        if state["looks"] < 2 or state.get("task_hangs"):
            finish({"tasks": [{"lastStatus": "RUNNING"}]})
        container = {"name": "migrate", **state.get("ended", {"exitCode": 0})}
        finish({"tasks": [{"lastStatus": "STOPPED", "stoppedReason": "ended", "containers": [container]}]})
    assert command == "wait", command
    finish()


def cloudformation(command: str) -> None:
    """The stack of the service."""
    if command == "cancel-update-stack":
        state["calls"].append("cancel")
        state["stack"] = ["UPDATE_ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE"]
        state["runs"] = state["before"]
        finish()
    if "Parameters" in option("query"):
        finish(state.get("environment", "staging"))
    if "StackStatus" in option("query"):
        states = state.setdefault("stack", ["UPDATE_COMPLETE"])
        finish(states.pop(0) if len(states) > 1 else states[0])
    finish("datahub-migrate")


def aws() -> None:
    """AWS."""
    region = option("region")
    del arguments[arguments.index("--region") : arguments.index("--region") + 2]
    service, command = arguments[:2]
    if state.get("refused") == f"{service} {command}":
        finish(error="ThrottlingException")
    state["regions"] = sorted({*state.get("regions", []), region})
    if service == "sts":
        finish("123456789012")
    if service == "logs":
        assert re.fullmatch(r"migrate/migrate/t1", option("log-stream-name"))
        finish({"events": [{"message": "the log of the task"}]})
    {"ecr": ecr, "ecs": ecs, "cloudformation": cloudformation}[service](command)


{"aws": aws, "docker": docker, "deploy": deploy}[program]()
