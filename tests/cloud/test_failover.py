"""`infra/failover`, run against stand-ins for `aws` and `curl` that keep a small world in a file.

The world answers as AWS does where it matters: a promotion takes a while and passes through other states, a
service becomes steady after some looks, and us-east-1 can be gone. The real thing is a drill on a real account.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from templates import INFRA

WORLD: dict[str, Any] = {
    "environment": "production",
    "primary_answers": True,
    "source": "arn:aws:rds:us-east-1:111122223333:db:datahub",
    "status": "available",
    "promotion": ["available", "modifying", "rebooting"],
    "multi_az": False,
    "secrets": ["database", "jwt-secret", "api-key-pepper", "admin-token"],
    "compose_fails": False,
    "desired": {"us-east-1": 3, "us-west-2": 0},
    "capacity": {"us-east-1": [2, 10], "us-west-2": [0, 10]},
    "running_there": [3, 1, 0],
    "starting": 2,
    "rollout": "COMPLETED",
    "health": ["503", "200"],
    "calls": [],
}

STAND_IN = '''#!{python} -IS
import json, os, sys
path = os.environ["WORLD"]
world = json.load(open(path))
tool, words = os.path.basename(sys.argv[0]), sys.argv[1:]

def done(answer="", code=0):
    json.dump(world, open(path, "w"))
    print(answer if isinstance(answer, str) else json.dumps(answer))
    sys.exit(code)

def option(name):
    return words[words.index(name) + 1]

if tool == "curl":
    world["calls"].append(["curl", *words])
    done(world["health"].pop(0) if len(world["health"]) > 1 else world["health"][0])
region = option("--region")
known = ("cloudformation", "rds", "secretsmanager", "cloudwatch", "lambda", "ecs", "application-autoscaling", "sts")
place = next(i for i, word in enumerate(words) if word in known)
command = " ".join(words[place:place + 2])
changes = any(verb in command for verb in ("promote", "modify", "update", "register", "invoke"))
if region == "us-east-1" and not world["primary_answers"]:
    done("no route", 255)
if changes:
    world["calls"].append([region, command])
if command == "cloudformation describe-stacks":
    query, stack = option("--query"), option("--stack-name")
    if stack in world.get("missing", []):
        done("does not exist", 254)
    for word, value in (("Environment", world["environment"]), ("LoadBalancerDns", "lb.example.net"),
                        ("DomainName", "api.example.com")):
        if word in query:
            done(value)
if command == "sts get-caller-identity":
    done("{}")
if command == "secretsmanager describe-secret":
    done("{}", 0 if option("--secret-id").removeprefix("datahub/") in world["secrets"] else 254)
if command == "rds describe-db-instances":
    if world.get("promoting"):
        world["status"] = world["promotion"].pop(0) if world["promotion"] else "available"
        if world["status"] == "available" and not world["promotion"]:
            world["source"], world["promoting"] = None, False
    done({"DBInstanceStatus": world["status"], "ReadReplicaSourceDBInstanceIdentifier": world["source"],
          "MultiAZ": world["multi_az"]})
if command == "rds promote-read-replica":
    world["promoting"] = True
    done("{}")
if command == "rds modify-db-instance":
    world["multi_az"] = "--multi-az" in words
    done("{}")
if command == "cloudwatch get-metric-statistics":
    done({"Datapoints": [{"Timestamp": "2026-01-01T00:00:00Z", "Maximum": 90.0},
                         {"Timestamp": "2026-01-01T00:01:00Z", "Maximum": 2.0}]})
if command == "lambda invoke":
    done({"StatusCode": 200} | ({"FunctionError": "Unhandled"} if world["compose_fails"] else {}))
if command == "application-autoscaling register-scalable-target":
    world["capacity"][region] = [int(option("--min-capacity")), int(option("--max-capacity"))]
    done("{}")
if command == "ecs update-service":
    world["desired"][region] = int(option("--desired-count"))
    done("{}")
if command == "ecs describe-services":
    desired = world["desired"][region]
    if "--query" in words and "runningCount" in option("--query"):
        left = world["running_there"]
        done(str(left.pop(0) if len(left) > 1 else left[0]))
    if "--query" in words:
        done(str(desired))
    ready = world["starting"] <= 0
    world["starting"] -= 1
    new = {"status": "PRIMARY", "desiredCount": desired, "runningCount": desired if ready else 0,
           "rolloutState": world["rollout"] if ready else "IN_PROGRESS"}
    done({"services": [{"deployments": [new]}]})
done("unknown to the stand-in: " + " ".join(words), 2)
'''


class Run:
    """A run of the script in a world, and what is left of both."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "world.json"
        self.bin = folder / "bin"
        self.bin.mkdir()
        # A copy: it reads the parameters that lie beside it, and tests change them.
        self.infra = folder / "infra"
        shutil.copytree(INFRA / "parameters", self.infra / "parameters")
        shutil.copy(INFRA / "failover", self.infra)
        for tool in ("aws", "curl"):
            script = self.bin / tool
            script.write_text(STAND_IN.replace("{python}", sys.executable))
            script.chmod(0o755)
        self.set()

    def set(self, **changes: Any) -> None:
        self.path.write_text(json.dumps(WORLD | changes))

    @property
    def world(self) -> dict[str, Any]:
        return json.loads(self.path.read_text())

    @property
    def calls(self) -> list[list[str]]:
        """What was changed, in order."""
        return [call for call in self.world["calls"] if call[0] != "curl"]

    def __call__(self, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        env = os.environ | {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "WORLD": str(self.path),
            "FAILOVER_PAUSE": "0",
            "FAILOVER_LOOKS": "12",
            "FAILOVER_PATIENCE": "4",
        }
        return subprocess.run(
            [str(self.infra / "failover"), *words], env=env, input=typed, capture_output=True, text=True, timeout=60
        )


@pytest.fixture
def failover(tmp_path: Path) -> Run:
    return Run(tmp_path)


IN_ORDER = [
    ["us-east-1", "application-autoscaling register-scalable-target"],
    ["us-east-1", "ecs update-service"],
    ["us-west-2", "rds promote-read-replica"],
    ["us-west-2", "lambda invoke"],
    ["us-west-2", "application-autoscaling register-scalable-target"],
    ["us-west-2", "ecs update-service"],
    ["us-west-2", "rds modify-db-instance"],
]


def test_production_moves_step_by_step(failover: Run) -> None:
    done = failover("--yes", "production")

    assert done.returncode == 0, done.stderr
    assert failover.calls == IN_ORDER
    world = failover.world
    assert world["desired"] == {"us-east-1": 0, "us-west-2": 3}
    assert world["capacity"] == {"us-east-1": [0, 0], "us-west-2": [2, 10]}
    assert world["source"] is None and world["multi_az"] is True


def test_it_says_how_much_is_lost_before_it_asks(failover: Run) -> None:
    done = failover("production", typed="no\n")

    assert done.returncode == 1 and failover.calls == []
    assert "2 seconds behind" in done.stderr.replace("2.0", "2")
    assert "nothing was changed" in done.stderr


def test_the_name_of_the_region_is_the_answer(failover: Run) -> None:
    assert failover("production", typed="us-west-2\n").returncode == 0


def test_a_second_run_changes_nothing_that_is_done(failover: Run) -> None:
    assert failover("--yes", "production").returncode == 0
    first = len(failover.calls)
    again = failover("--yes", "production")

    assert again.returncode == 0, again.stderr
    # Safe to repeat, and needed if the first run was cut off: fence, URLs and the bounds of scaling.
    assert failover.calls[first:] == [call for call in IN_ORDER if call[1] in (
        "application-autoscaling register-scalable-target", "lambda invoke"
    ) or call == ["us-east-1", "ecs update-service"]]


def test_a_run_that_was_cut_off_waits_for_the_promotion_that_is_on_its_way(failover: Run) -> None:
    failover.set(status="modifying", promoting=True, promotion=["modifying", "modifying", "rebooting"])
    done = failover("--yes", "production")

    assert done.returncode == 0, done.stderr
    assert ["us-west-2", "rds promote-read-replica"] not in failover.calls


def test_it_goes_on_without_the_first_region(failover: Run) -> None:
    failover.set(primary_answers=False)
    done = failover("--yes", "production")

    assert done.returncode == 0, done.stderr
    assert failover.calls == IN_ORDER[2:]
    assert "us-east-1 does not answer" in done.stderr


def test_it_waits_until_no_task_of_the_first_region_runs(failover: Run) -> None:
    done = failover("--yes", "production")

    assert done.returncode == 0 and failover.world["running_there"] == [0]
    assert "NOT WAITED FOR" not in done.stderr


@pytest.mark.parametrize(("left", "told"), [([2], "2"), (["failed"], "failed")])
def test_tasks_that_do_not_stop_are_told_and_do_not_stop_it(failover: Run, left: list, told: str) -> None:
    failover.set(running_there=left)
    done = failover("--yes", "production")

    assert done.returncode == 0, done.stderr
    assert f"NOT WAITED FOR: tasks that still run in us-east-1 (the last look: {told})" in done.stderr


def test_a_check_looks_changes_nothing_and_names_what_a_later_step_would_be_refused_for(failover: Run) -> None:
    done = failover("production", "--check")

    assert done.returncode == 1 and failover.world["calls"] == []
    assert "seconds behind" in done.stderr
    for name in ("PageEndpoint=", "NotifyEndpoint=", "DomainName=", "HostedZoneId=Z0", "PrimaryKeyArn="):
        assert name in done.stderr

    for path in (failover.infra / "parameters" / "production" / "us-west-2").glob("*.json"):
        real = path.read_text().replace("example.com", "datahub.dev").replace("111122223333", "123456789012")
        path.write_text(real.replace("Z00000000000000000000", "Z0123456789ABCDEFGHIJ"))
    done = failover("--check", "production")
    assert done.returncode == 0 and "all is there" in done.stderr, done.stderr
    assert failover.world["calls"] == []


def test_placeholders_do_not_hold_up_a_failover(failover: Run) -> None:
    done = failover("--yes", "production")
    assert done.returncode == 0 and "still has placeholders" in done.stderr


def test_what_it_names_as_the_next_step_is_a_route_that_is_there(failover: Run) -> None:
    done = failover("--dry-run", "production")
    assert done.returncode == 0
    said = failover("--yes", "production").stderr
    route = re.search(r"SMOKE_KEY=\S+ infra/smoke --route (\S+) https://api.example.com", said)
    assert route is not None
    assert f'path = "{route[1]}"' in (INFRA.parent / "conf/environments/recovery/routes.toml").read_text()


def test_a_drill_leaves_the_first_region_alone(failover: Run) -> None:
    assert failover("--yes", "--no-fence", "production").returncode == 0
    assert failover.calls == IN_ORDER[2:]


def test_health_is_asked_of_the_balancer_under_the_name_of_clients(failover: Run) -> None:
    failover("--yes", "production")

    asked = [call for call in failover.world["calls"] if call[0] == "curl"]
    assert asked[0][-1] == "https://api.example.com/health"
    assert asked[0][asked[0].index("--connect-to") + 1] == "api.example.com:443:lb.example.net:443"
    # Once 503, then 200; and once by its name.
    assert len(asked) == 3 and "--connect-to" not in asked[2]


def test_a_gateway_that_stays_unhealthy_is_a_failure(failover: Run) -> None:
    failover.set(health=["503"])
    done = failover("--yes", "production")

    assert done.returncode == 1 and "it is `503` and not `200`" in done.stderr


def test_tasks_that_do_not_start_are_a_failure_at_once(failover: Run) -> None:
    failover.set(rollout="FAILED", starting=0)
    done = failover("--yes", "production")

    assert done.returncode == 1 and "`failed`" in done.stderr
    assert failover.world["starting"] == -1


def test_urls_that_cannot_be_written_stop_it_before_tasks_start(failover: Run) -> None:
    failover.set(compose_fails=True)
    done = failover("--yes", "production")

    assert done.returncode == 1 and "datahub-compose failed" in done.stderr
    assert failover.world["desired"]["us-west-2"] == 0


@pytest.mark.parametrize(
    "change, says",
    [
        ({"environment": "staging"}, "not production"),
        ({"missing": ["datahub-recovery"]}, "no stack datahub-recovery"),
        ({"missing": ["datahub-service"]}, "no stack datahub-service"),
        ({"secrets": ["database", "jwt-secret", "admin-token"]}, "no secret datahub/api-key-pepper"),
    ],
)
def test_what_is_not_ready_is_told_before_anything_changes(failover: Run, change: dict, says: str) -> None:
    failover.set(**change)
    done = failover("--yes", "production")

    assert done.returncode == 1 and says in done.stderr
    assert failover.calls == []


def test_a_dry_run_looks_at_nothing_and_prints_what_it_would_do(failover: Run) -> None:
    done = failover("--dry-run", "production")

    assert done.returncode == 0, done.stderr
    assert failover.world["calls"] == []
    printed = [line.split() for line in done.stdout.splitlines()]
    assert [[words[2], " ".join(words[3:5])] for words in printed] == IN_ORDER


@pytest.mark.parametrize("words", [[], ["staging"], ["live"], ["production", "us-east-1"], ["--force", "production"], ["--check", "--dry-run", "production"]])
def test_other_words_are_refused(failover: Run, words: list[str]) -> None:
    done = failover(*words)

    assert done.returncode == 2 and done.stderr
    assert failover.world["calls"] == []
