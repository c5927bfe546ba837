"""infra/release, run against `fake_aws.py`: what is done, in which order, and what is left alone when something fails."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import templates

ROOT = Path(__file__).resolve().parents[2]
FAKE = Path(__file__).with_name("fake_aws.py")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLD, NEW = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


def uri(digest: str, region: str = "us-east-1") -> str:
    """The image of this digest in the registry of a region."""
    return f"123456789012.dkr.ecr.{region}.amazonaws.com/datahub@{digest}"


class Cloud:
    """A copy of the script between fakes, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "infra").mkdir()
        (folder / "bin").mkdir()
        release = folder / "infra" / "release"
        release.write_bytes((ROOT / "infra" / "release").read_bytes())
        release.chmod(0o755)
        (folder / "conf" / "environments").mkdir(parents=True)
        shutil.copy(ROOT / "conf" / "environments" / "rds-ca.pem", folder / "conf" / "environments")
        source = FAKE.read_text().replace("/usr/bin/env python3", sys.executable)
        for fake in ("bin/aws", "bin/docker", "infra/deploy"):
            (folder / fake).write_text(source)
            (folder / fake).chmod(0o755)
        self.state(images={"d" * 40: OLD}, registered=[], calls=[], runs=uri(OLD), before=uri(OLD))

    def state(self, **values: Any) -> None:
        """Arranges it."""
        path = self.folder / "state.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**known, **values}))

    def __getitem__(self, name: str) -> Any:
        return json.loads((self.folder / "state.json").read_text())[name]

    def release(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """`infra/release WORDS`."""
        variables = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "FAKE_STATE": str(self.folder / "state.json"),
            "RELEASE_PAUSE": "0",
            "RELEASE_LOOKS": "5",
            **env,
        }
        command = [str(self.folder / "infra" / "release"), *words]
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    """A service that runs OLD, and a registry that has it."""
    return Cloud(tmp_path)


def archive(cloud: Cloud) -> str:
    """An archive with NEW in it."""
    path = cloud.folder / "gateway.tar.gz"
    path.write_text(NEW)
    return str(path)


def test_an_image_is_pushed_by_commit_and_named_by_digest(cloud: Cloud) -> None:
    done = cloud.release("staging", "image", COMMIT, archive(cloud))
    assert (done.returncode, done.stdout) == (0, uri(NEW) + "\n"), done.stderr
    assert cloud["calls"] == [f"docker {word}" for word in ("load", "login", "tag", "push", "logout")]


def test_a_commit_that_the_registry_has_is_not_pushed_again(cloud: Cloud) -> None:
    done = cloud.release("staging", "image", "d" * 40, archive(cloud))
    assert (done.returncode, done.stdout, cloud["calls"]) == (0, uri(OLD) + "\n", [])


def test_a_push_that_fails_prints_no_image_and_logs_out(cloud: Cloud) -> None:
    cloud.state(push_fails=True)
    done = cloud.release("staging", "image", COMMIT, archive(cloud))
    assert (done.returncode, done.stdout) == (1, "")
    assert cloud["calls"][-1] == "docker logout"


def test_a_commit_without_image_or_archive_is_an_error(cloud: Cloud) -> None:
    done = cloud.release("staging", "image", COMMIT)
    assert done.returncode == 1 and "no image of" in done.stderr


def test_what_runs_is_told_and_nothing_where_there_is_no_service(cloud: Cloud) -> None:
    assert cloud.release("staging", "current").stdout == uri(OLD) + "\n"
    cloud.state(runs=None)
    done = cloud.release("staging", "current")
    assert (done.returncode, done.stdout) == (0, "")


def test_a_migration_runs_once_with_the_new_image_and_its_log_is_shown(cloud: Cloud) -> None:
    done = cloud.release("staging", "migrate", uri(NEW))
    assert done.returncode == 0, done.stderr
    assert cloud["calls"] == [f"task {NEW} migrate --json"]
    assert "the log of the task" in done.stderr and "exit code 0" in done.stderr


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ({"ended": {"exitCode": 1}}, "the migration has failed"),
        ({"ended": {"reason": "CannotPullContainerError"}}, "the task did not start"),
        ({"task_hangs": True}, "the task has not ended"),
        ({"no_capacity": True}, "RESOURCE:ENI"),
        ({"runs": None}, "there is no service"),
    ],
)
def test_a_migration_that_does_not_succeed_is_an_error(cloud: Cloud, trouble: dict, said: str) -> None:
    cloud.state(**trouble)
    done = cloud.release("staging", "migrate", uri(NEW))
    assert done.returncode == 1 and said in done.stderr, done.stderr
    assert not [call for call in cloud["calls"] if call.startswith("deploy")]


@pytest.mark.parametrize("words", [["migrate", uri(NEW)], ["rollback", uri(NEW)], ["sql", "primary", "SELECT 1"]])
def test_the_account_of_the_other_environment_is_left_alone(cloud: Cloud, words: list[str]) -> None:
    cloud.state(environment="production")
    done = cloud.release("staging", *words)
    assert done.returncode == 1 and "is production, not staging" in done.stderr, done.stderr
    assert cloud["calls"] == [] and cloud["registered"] == []


def test_an_update_goes_through_the_stack_and_is_looked_at_afterwards(cloud: Cloud) -> None:
    done = cloud.release("production", "update", uri(NEW))
    assert done.returncode == 0, done.stderr
    assert cloud["calls"] == [f"deploy production us-east-1 123456789012.dkr.ecr.us-east-1.amazonaws.com {NEW}"]
    assert cloud["runs"] == uri(NEW)


def test_an_update_that_was_taken_back_is_an_error(cloud: Cloud) -> None:
    cloud.state(update_fails=1)
    assert cloud.release("staging", "update", uri(NEW)).returncode == 1
    assert cloud["runs"] == uri(OLD)


def test_a_rollback_asks_the_earlier_image_first_and_then_updates(cloud: Cloud) -> None:
    cloud.state(runs=uri(NEW))
    done = cloud.release("staging", "rollback", uri(OLD))
    assert done.returncode == 0, done.stderr
    assert [call.split()[0] for call in cloud["calls"]] == ["task", "deploy"]
    assert cloud["calls"][0] == f"task {OLD} migrate --dry-run --json"
    assert cloud["runs"] == uri(OLD)


def test_a_rollback_over_a_migration_changes_nothing_and_says_so(cloud: Cloud) -> None:
    cloud.state(runs=uri(NEW), ended={"exitCode": 1}, stack=["UPDATE_IN_PROGRESS"])
    done = cloud.release("staging", "rollback", uri(OLD))
    assert done.returncode == 3 and "deploy forward" in done.stderr
    assert [call.split()[0] for call in cloud["calls"]] == ["task"]
    assert cloud["runs"] == uri(NEW)


def test_a_rollback_does_nothing_where_the_update_was_taken_back_already(cloud: Cloud) -> None:
    done = cloud.release("staging", "rollback", uri(OLD))
    assert (done.returncode, cloud["calls"]) == (0, [])


def test_a_rollback_cancels_an_update_under_way_and_waits_for_it(cloud: Cloud) -> None:
    cloud.state(runs=uri(NEW), stack=["UPDATE_IN_PROGRESS"])
    done = cloud.release("staging", "rollback", uri(OLD))
    assert done.returncode == 0, done.stderr
    assert [call.split()[0] for call in cloud["calls"]] == ["task", "cancel"]
    assert cloud["runs"] == uri(OLD)


def test_the_standby_waits_for_the_image_and_takes_it_from_its_own_region(cloud: Cloud) -> None:
    cloud.state(images={COMMIT: NEW}, replicates_after=2)
    done = cloud.release("--region", "us-west-2", "production", "standby", uri(NEW))
    assert done.returncode == 0, done.stderr
    assert cloud["calls"] == [f"deploy production us-west-2 123456789012.dkr.ecr.us-west-2.amazonaws.com {NEW}"]
    assert cloud["regions"] == ["us-west-2"]


def test_an_image_that_never_arrives_is_an_error(cloud: Cloud) -> None:
    cloud.state(replicates_after=100)
    done = cloud.release("--region", "us-west-2", "production", "standby", uri(OLD))
    assert done.returncode == 1 and "has not received" in done.stderr and cloud["calls"] == []


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["staging"],
        ["testing", "current"],
        ["staging", "drop"],
        ["staging", "update"],
        ["staging", "update", "datahub:latest"],
        ["staging", "update", uri(NEW).replace("datahub@", "other@")],
        ["staging", "image", "main"],
        ["staging", "current", "more"],
        ["--what", "staging", "current"],
        ["--region"],
    ],
)
def test_words_that_make_no_sense_reach_nothing(cloud: Cloud, words: list[str]) -> None:
    done = cloud.release(*words)
    assert done.returncode == 2 and done.stderr
    assert cloud["calls"] == []


# (what AWS refuses, the command that asks for it).
REFUSED = [
    ("sts get-caller-identity", ["image", COMMIT]),
    ("ecr batch-get-image", ["image", COMMIT]),
    ("ecs describe-clusters", ["current"]),
    ("ecs describe-services", ["current"]),
    ("ecs describe-task-definition", ["current"]),
    ("ecs describe-clusters", ["migrate", uri(NEW)]),
    ("ecs describe-services", ["migrate", uri(NEW)]),
    ("cloudformation describe-stacks", ["migrate", uri(NEW)]),
    ("ecs register-task-definition", ["migrate", uri(NEW)]),
    ("ecs run-task", ["migrate", uri(NEW)]),
    ("ecs describe-tasks", ["migrate", uri(NEW)]),
    ("ecs describe-clusters", ["rollback", uri(NEW)]),
    ("cloudformation describe-stacks", ["rollback", uri(NEW)]),
    ("sts get-caller-identity", ["standby", uri(NEW)]),
    ("ecr batch-get-image", ["standby", uri(NEW)]),
    ("ecs wait", ["update", uri(NEW)]),
    ("ecs describe-services", ["update", uri(NEW)]),
]


@pytest.mark.parametrize(("refused", "words"), REFUSED)
def test_what_aws_refuses_is_an_error_and_never_means_that_nothing_is_there(
    cloud: Cloud, refused: str, words: list[str]
) -> None:
    cloud.state(refused=refused)
    done = cloud.release("staging", *words)
    assert (done.returncode, done.stdout) == (1, ""), done.stdout + done.stderr
    assert "ThrottlingException" in done.stderr and f"`aws {refused}` has failed" in done.stderr
    # No look has been taken for an answer: nothing is pushed, and nothing deployed but what was asked for.
    assert [call.split()[0] for call in cloud["calls"]] in ([], ["task"], ["deploy"] if words[0] == "update" else [])


@pytest.mark.parametrize(("where", "secret"), [("primary", "DATABASE_URL"), ("replica", "DATABASE_REPLICA_URL")])
def test_a_statement_is_run_by_psql_in_the_network_of_the_service(cloud: Cloud, where: str, secret: str) -> None:
    statement = "SELECT pid, 'a \"b\"' FROM pg_stat_activity"
    done = cloud.release("staging", "sql", where, statement)
    assert done.returncode == 0, done.stderr
    assert "the log of the task" in done.stderr
    definition = cloud["definition"]
    (container,) = definition["containerDefinitions"]
    # A family of its own: release after release takes the stack's, and nobody takes this for a migration.
    assert definition["family"] == "datahub-sql" and "postgres:" in container["image"]
    assert container["secrets"] == [{"name": "DATABASE_URL", "valueFrom": f"arn:{secret}"}]
    assert container["environment"][0]["value"] == (ROOT / "conf/environments/rds-ca.pem").read_text()
    # Of 64 KiB.
    assert len(json.dumps(definition)) < 32_000
    assert cloud["given"] == {"STATEMENT": statement}


def test_the_line_of_the_container_gives_psql_the_statement_whole(cloud: Cloud, tmp_path: Path) -> None:
    cloud.release("staging", "sql", "primary", "SELECT 1; SELECT '$x'")
    line = cloud["calls"][-1].split(" ", 2)[2].replace("/tmp/ca.pem", f"{tmp_path}/ca.pem")
    psql = tmp_path / "bin" / "psql"
    psql.write_text('#!/bin/sh\nprintf "%s\\n" "$PGSSLROOTCERT" "$@"\n')
    psql.chmod(0o755)
    env = {"PATH": f"{psql.parent}:{os.environ['PATH']}", "CA": "an authority", "DATABASE_URL": "postgres://db"}
    done = subprocess.run(["sh", "-c", line], env={**env, **cloud["given"]}, capture_output=True, text=True, check=True)
    words = ["--no-psqlrc", "--set", "ON_ERROR_STOP=1", "postgres://db", "--command", "SELECT 1; SELECT '$x'"]
    assert done.stdout.splitlines() == [f"{tmp_path}/ca.pem", *words]
    assert (tmp_path / "ca.pem").read_text() == "an authority\n"


def test_a_statement_that_fails_is_an_error(cloud: Cloud) -> None:
    cloud.state(ended={"exitCode": 3})
    done = cloud.release("staging", "sql", "primary", "SELEKT")
    assert done.returncode == 1 and "psql has failed" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["live", "current"], "`live` is neither staging nor production"),
        (["staging"], "wants a command"),
        (["staging", "drop"], "unknown command `drop`"),
        (["staging", "update"], "`update` takes other arguments"),
        (["staging", "--region", "us-west-2", "current"], "unknown command `--region`"),
        (["staging", "current", "--region", "us-west-2"], "options go before `staging`"),
        (["--region", "us-east1", "staging", "current"], "nothing runs in `us-east1`"),
        (["staging", "sql", "standby", "SELECT 1"], "`standby` is neither primary nor replica"),
    ],
)
def test_wrong_words_are_told_which(cloud: Cloud, words: list[str], said: str) -> None:
    done = cloud.release(*words)
    assert done.returncode == 2 and said in done.stderr and cloud["calls"] == []


@pytest.mark.parametrize("tool", ["aws", "jq"])
def test_a_tool_that_is_missing_is_named(cloud: Cloud, tool: str) -> None:
    folder = cloud.folder / "few"
    folder.mkdir()
    for name in ("bash", "dirname", *({"aws", "jq"} - {tool})):
        found = shutil.which(name, path=f"{cloud.folder / 'bin'}:{os.environ['PATH']}")
        (folder / name).symlink_to(str(found))
    done = cloud.release("staging", "current", PATH=str(folder))
    assert done.returncode == 1 and f"{tool} is missing" in done.stderr


def test_help_names_every_command(cloud: Cloud) -> None:
    text = cloud.release("--help").stdout
    assert all(f"  {command}" in text for command in ("image", "current", "migrate", "update", "rollback", "standby", "sql"))


# What has no action of its own name: a login is a token, and to wait is to describe.
OTHERWISE = {
    "ecr:GetLoginPassword": "ecr:GetAuthorizationToken",
    "ecs:WaitServicesStable": "ecs:DescribeServices",
    "cloudformation:WaitStackUpdateComplete": "cloudformation:DescribeStacks",
}


def actions(script: str) -> set[str]:
    """The actions in IAM of what a script asks AWS."""
    asked = re.findall(r'aws(?:_| --region "\$region") (\w+) (wait [\w-]+|[\w-]+)', script)
    named = {f"{service}:{command.replace('-', ' ').title().replace(' ', '')}" for service, command in asked}
    return {OTHERWISE.get(action, action) for action in named}


def test_the_role_of_the_workflow_may_do_what_a_release_asks_for() -> None:
    asked = actions((ROOT / "infra" / "release").read_text())
    # Of infra/deploy, only what gives a service another image.
    deploy = (ROOT / "infra" / "deploy").read_text()
    asked |= actions(deploy[deploy.index("replace_image() {") : deploy.index("\n}", deploy.index("replace_image() {"))])
    assert {"cloudformation:UpdateStack", "ecs:RunTask", "ecr:BatchGetImage"} <= asked
    granted: set[str] = set()
    for _, value in templates.walk(templates.load("pipeline")):
        if isinstance(value, dict) and value.get("Effect") == "Allow":
            granted |= {value["Action"]} if isinstance(value["Action"], str) else set(value["Action"])
    # Everybody may ask who he is.
    assert asked - {"sts:GetCallerIdentity"} <= granted


def test_a_migration_only_adds_so_that_gateways_that_run_go_on() -> None:
    takes = re.compile(r"\b(DROP|RENAME|TRUNCATE|DELETE\s+FROM|ALTER\s+COLUMN|SET\s+NOT\s+NULL)\b", re.IGNORECASE)
    migrations = sorted((ROOT / "migrations").glob("*.sql"))
    assert migrations
    for path in migrations:
        statements = re.sub(r"--.*", "", path.read_text())
        assert not takes.search(statements), f"{path.name} takes something away: {takes.search(statements)}"
