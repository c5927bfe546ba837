"""What the inline functions of data.yaml and recovery.yaml find when they run: the secrets of an account, and
stand-ins for RDS, ElastiCache, ECS and Lambda, which tell what they were told.

Secrets Manager is the emulator's. It has no versions without a value, so `begin` adds the one with which Secrets
Manager starts a rotation.
"""

import datetime as dt
import json
import os
import signal
import socket
import subprocess
import sys
import time
import types
import urllib.request
from contextlib import contextmanager
from typing import Any, Callable, Iterator

import boto3
import pytest

import templates

# What a password could hold: everything that means something in a URL, in a format string or in JSON.
HOSTILE = "/@:?#[]!$&'()*+,;=% \"\\{}<>^`|~%41é€\u2028"
HOSTS = {
    "DATABASE_HOST": "datahub.abc.us-east-1.rds.amazonaws.com",
    "REPLICA_HOST": "datahub-replica.abc.us-east-1.rds.amazonaws.com",
    "CACHE_HOST": "clustercfg.datahub.abc.use1.cache.amazonaws.com",
}
URLS = ("DATABASE_URL", "DATABASE_REPLICA_URL", "REDIS_URL")


@contextmanager
def emulator() -> Iterator[str]:
    """Secrets Manager on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = os.environ | {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "SERVICES": "secretsmanager,kms,sts,iam",
    }
    program = os.path.join(os.path.dirname(sys.executable), "ministack")
    process = subprocess.Popen(
        [program], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(f"{url}/_ministack/health", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "the emulator ended"
                assert time.monotonic() < deadline, "the emulator does not answer"
                time.sleep(0.05)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)


class Server:
    """RDS and ElastiCache, as far as rotation sees them: what they were told, and when it is in force."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.looks_until_done = 0
        self.status = "available"

    def pending(self, name: str, value: Any) -> dict[str, Any]:
        self.looks_until_done -= 1
        return {name: value} if self.looks_until_done >= 0 else {}

    def modify_db_instance(self, **what: Any) -> dict:
        self.told.append(what)
        return {}

    def describe_db_instances(self, DBInstanceIdentifier: str) -> dict:  # noqa: N803
        waits = self.pending("MasterUserPassword", "****")
        return {"DBInstances": [{"DBInstanceStatus": self.status, "PendingModifiedValues": waits}]}

    def modify_replication_group(self, **what: Any) -> dict:
        self.told.append(what)
        return {}

    def describe_replication_groups(self, ReplicationGroupId: str) -> dict:  # noqa: N803
        waits = self.pending("AuthTokenStatus", "ROTATING")
        return {"ReplicationGroups": [{"Status": self.status, "PendingModifiedValues": waits}]}


class Ecs:
    """The service: when its newest deployment began, and whether another was asked for."""

    class exceptions:  # noqa: N801
        class ClusterNotFoundException(Exception):
            pass

    def __init__(self, begun: dt.datetime | None, status: str = "ACTIVE") -> None:
        self.begun, self.status = begun, status
        self.asked: list[dict[str, Any]] = []

    def describe_services(self, cluster: str, services: list[str]) -> dict:
        assert (cluster, services) == ("datahub-cluster", ["datahub-gateway"])
        if self.begun is None:
            raise self.exceptions.ClusterNotFoundException
        return {"services": [{"status": self.status, "deployments": [{"createdAt": self.begun}]}]}

    def update_service(self, **what: Any) -> dict:
        self.asked.append(what)
        self.begun = dt.datetime.now(dt.timezone.utc)
        return {}


class Caller:
    """Lambda, when one function calls the other."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def invoke(self, **what: Any) -> dict:
        self.calls.append(what)
        return {"StatusCode": 202}


class Context:
    """How long a run may still take."""

    def __init__(self, left: int = 900_000) -> None:
        self.left = left

    def get_remaining_time_in_millis(self) -> int:
        self.left -= 10_000
        return self.left


class Account:
    """The secrets of an account and the services beside them, and the functions of a template over both."""

    def __init__(self, url: str, run: str) -> None:
        self.real = boto3.client(
            "secretsmanager",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        long_ago = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)
        self.ecs, self.server, self.caller = Ecs(long_ago), Server(), Caller()
        make = self.real.create_secret
        login = {"username": "data@hub", "password": HOSTILE}
        self.arns = {
            "DATABASE_SECRET": make(Name=f"{run}/database", SecretString=json.dumps(login))["ARN"],
            "CACHE_SECRET": make(Name=f"{run}/redis", SecretString="old&token")["ARN"],
        } | {name: make(Name=f"{run}/{name}")["ARN"] for name in URLS}
        self.env = self.arns | HOSTS | {
            "DATABASE_NAME": "datahub_prod",
            "CLUSTER": "datahub-cluster",
            "SERVICE": "datahub-gateway",
            "DATABASE": "datahub",
            "CACHE": "datahub",
            "COMPOSE": "datahub-compose",
        }

    def client(self, name: str) -> Any:
        beside = {"ecs": self.ecs, "rds": self.server, "elasticache": self.server, "lambda": self.caller}
        return self.real if name == "secretsmanager" else beside[name]

    def value(self, name: str, **which: str) -> str:
        return self.real.get_secret_value(SecretId=self.arns[name], **which)["SecretString"]

    def function(self, template: str, logical_id: str, monkeypatch: pytest.MonkeyPatch) -> Callable:
        """The handler of a function, with the environment that the template gives it and no other."""
        properties = templates.resources(templates.load(template), "AWS::Lambda::Function")[logical_id]
        for name in properties["Environment"]["Variables"]:
            monkeypatch.setenv(name, self.env[name])
        for name in set(self.env) - set(properties["Environment"]["Variables"]):
            monkeypatch.delenv(name, raising=False)
        module = types.ModuleType("index")
        exec(compile(properties["Code"]["ZipFile"], f"{template}/{logical_id}", "exec"), module.__dict__)
        monkeypatch.setattr(module, "boto3", types.SimpleNamespace(client=self.client))
        assert properties["Handler"] == "index.handler"
        if hasattr(module, "time"):
            monkeypatch.setattr(module, "time", types.SimpleNamespace(sleep=lambda _: None))
        return module.handler


def begin(account: Account, name: str) -> dict[str, str]:
    """What Secrets Manager does before the first step: a version that is pending and has no value."""
    version = f"{time.monotonic_ns():032d}"
    arn, describe = account.arns[name], account.real.describe_secret
    empty: dict[str, list[str]] = {version: ["AWSPENDING"]}

    def described(SecretId: str) -> dict[str, Any]:  # noqa: N803
        about = describe(SecretId=SecretId)
        if SecretId == arn:
            # The emulator has no versions without a value.
            about["VersionIdsToStages"] = empty | about["VersionIdsToStages"]
        return about

    account.real.describe_secret = described
    return {"SecretId": arn, "ClientRequestToken": version}


def run(rotate: Callable, which: dict[str, str], *steps: str, context: Context | None = None) -> None:
    """These steps of a rotation, or all four."""
    for step in steps or ("createSecret", "setSecret", "testSecret", "finishSecret"):
        rotate(which | {"Step": step}, context or Context())
