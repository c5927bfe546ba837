"""`infra/deploy`, run against an `aws` that only writes down what it was asked and answers what a test says."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import templates

DIGEST = f"sha256:{'a' * 64}"

# Stands in for the AWS CLI and for infra/release. Answers come from a file: a description for each stack that exists,
# and what an update says.
FAKE = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
folder = Path(os.environ["FAKE"])
words = [Path(sys.argv[0]).name, *sys.argv[1:]]
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps(words) + "\\n")
state = json.loads((folder / "state").read_text())
if "describe-stacks" in words:
    stack = words[words.index("--stack-name") + 1]
    if "broken" in state:
        sys.exit(state["broken"])
    if stack == state.get("refuses"):
        sys.exit("ThrottlingException")
    if stack not in state["stacks"]:
        sys.exit(f"An error occurred (ValidationError): Stack with id {{stack}} does not exist")
    print(json.dumps(state["stacks"][stack]))
elif "update-stack" in words and "update" in state:
    sys.exit(state["update"])
elif "wait" in words and state.get("taken_back"):
    sys.exit("Waiter StackUpdateComplete failed")
elif words[0] == "release" and state.get("migration_fails"):
    sys.exit("the migration has failed")
"""


def image(region: str = "us-east-1") -> str:
    """An image of the registry of a region."""
    return f"123456789012.dkr.ecr.{region}.amazonaws.com/datahub@{DIGEST}"


def described(environment: str, status: str = "UPDATE_COMPLETE") -> dict[str, Any]:
    """A service stack as CloudFormation tells of it."""
    names = ("Image", "CountSetBy", "DesiredCount", "LogRetentionDays")
    return {
        "StackStatus": status,
        "Parameters": [{"ParameterKey": "Environment", "ParameterValue": environment}]
        + [{"ParameterKey": name, "ParameterValue": "before"} for name in names],
    }


class Operator:
    """infra/ with a fake `aws` before the real one, and a fake `release` in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        (folder / "infra").mkdir()
        # Copies: the script looks for its neighbours where it lies, and tests change them.
        shutil.copytree(templates.INFRA, folder / "infra", dirs_exist_ok=True)
        for path in (folder / "infra" / "parameters").rglob("*.json"):
            if path.stem in ("edge", "pipeline"):
                path.write_text(path.read_text().replace("example.com", "datahub.dev").replace("example/", "datahub-dev/"))
        for name in ("bin/aws", "infra/release"):
            (folder / name).write_text(FAKE)
            (folder / name).chmod(0o755)
        self.state(stacks={})

    def state(self, **values: Any) -> None:
        """Says how the account is."""
        (self.folder / "state").write_text(json.dumps({"stacks": {}, **values}))

    def deploy(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`infra/deploy WORDS`."""
        (self.folder / "calls").write_text("")
        environment = {**os.environ, "FAKE": str(self.folder), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        command = [str(self.folder / "infra" / "deploy"), *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    def calls(self) -> list[list[str]]:
        """What was asked, but for looking."""
        lines = (self.folder / "calls").read_text().splitlines()
        return [words for words in map(json.loads, lines) if "describe-stacks" not in words]


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    """In an account in which nothing stands."""
    return Operator(tmp_path)


def after(words: list[str], option: str) -> list[str]:
    """The values of an option."""
    rest = words[words.index(option) + 1 :]
    end = next((place for place, word in enumerate(rest) if word.startswith("--")), len(rest))
    return rest[:end]


def made(calls: list[list[str]]) -> list[str]:
    """The stacks that were deployed from their templates, in that order."""
    return [after(words, "--stack-name")[0] for words in calls if words[3:5] == ["cloudformation", "deploy"]]


def test_stacks_are_made_in_their_order_whatever_the_order_of_the_words(operator: Operator) -> None:
    done = operator.deploy("staging", "edge", "pipeline")
    assert done.returncode == 0, done.stderr
    assert made(operator.calls()) == ["datahub-pipeline", "datahub-edge"]


def test_a_stack_gets_the_values_of_its_file_and_may_name_roles(operator: Operator) -> None:
    operator.deploy("staging", "edge")
    (words,) = operator.calls()
    given = json.loads((operator.folder / "infra/parameters/staging/edge.json").read_text())["Parameters"]
    assert after(words, "--parameter-overrides") == [f"{name}={value}" for name, value in given.items()]
    assert after(words, "--capabilities") == ["CAPABILITY_NAMED_IAM"]
    assert "--no-fail-on-empty-changeset" in words
    assert after(words, "--region")[0] == "us-east-1"


def test_stacks_of_production_are_protected_and_those_of_staging_are_not(operator: Operator) -> None:
    operator.deploy("production", "edge")
    assert [words[4] for words in operator.calls()] == ["deploy", "update-termination-protection"]
    operator.deploy("staging", "edge")
    assert [words[4] for words in operator.calls()] == ["deploy"]


def test_the_recovery_region_takes_values_of_its_own(operator: Operator) -> None:
    done = operator.deploy("production", "us-west-2", "pipeline")
    assert done.returncode == 0, done.stderr
    words = operator.calls()[0]
    assert after(words, "--region")[0] == "us-west-2"
    assert "Role=standby" in after(words, "--parameter-overrides")


def test_alarms_of_the_recovery_region_are_made_when_they_are_named(operator: Operator) -> None:
    for words, last in (((), "datahub-service"), (("observability",), "datahub-observability")):
        done = operator.deploy("--dry-run", "production", "us-west-2", *words)
        assert done.returncode == 0, done.stderr
        printed = [shlex.split(line) for line in done.stdout.splitlines()]
        assert after(printed[-1], "--stack-name") == [last]


def test_a_template_that_is_too_long_for_a_request_goes_by_the_bucket(operator: Operator) -> None:
    template = operator.folder / "infra" / "edge.yaml"
    template.write_text(template.read_text() + "#" * 51_200)
    done = operator.deploy("staging", "edge")
    assert done.returncode == 1 and "deploy pipeline first" in done.stderr and operator.calls() == []
    pipeline = {**described("staging"), "Outputs": [{"OutputKey": "TemplateBucket", "OutputValue": "templates"}]}
    operator.state(stacks={"datahub-pipeline": pipeline})
    done = operator.deploy("staging", "edge")
    assert done.returncode == 0, done.stderr
    assert after(operator.calls()[0], "--s3-bucket") == ["templates"]


def test_the_bucket_is_not_called_missing_because_aws_does_not_answer(operator: Operator) -> None:
    template = operator.folder / "infra" / "edge.yaml"
    template.write_text(template.read_text() + "#" * 51_200)
    operator.state(stacks={}, refuses="datahub-pipeline")
    done = operator.deploy("staging", "edge")
    assert done.returncode == 1 and operator.calls() == []
    assert "ThrottlingException" in done.stderr and "deploy pipeline first" not in done.stderr


def test_values_that_cannot_be_read_are_not_taken_for_none(operator: Operator) -> None:
    (operator.folder / "infra/parameters/staging/network.json").write_text('{"Parameters": {')
    done = operator.deploy("staging", "network")
    assert done.returncode == 1 and "is not JSON" in done.stderr and operator.calls() == []


def test_data_replicates_nothing_before_there_is_a_place_for_it(operator: Operator) -> None:
    pipeline = {**described("production"), "Outputs": [{"OutputKey": "TemplateBucket", "OutputValue": "templates"}]}
    operator.state(stacks={"datahub-pipeline": pipeline})
    done = operator.deploy("production", "data")
    assert done.returncode == 0 and "deploy it once more" in done.stderr, done.stderr
    values = after(operator.calls()[0], "--parameter-overrides")
    assert [value for value in values if value.startswith("RecoveryRegion")] == ["RecoveryRegion="]

    operator.state(stacks={"datahub-pipeline": pipeline, "datahub-recovery": described("production")})
    done = operator.deploy("production", "data")
    assert done.returncode == 0, done.stderr
    assert "RecoveryRegion=us-west-2" in after(operator.calls()[0], "--parameter-overrides")


# A name of a repository that is somebody else's would hand the registry and the service over to them.
@pytest.mark.parametrize(("stack", "name"), [("edge", "DomainName"), ("pipeline", "Repository")])
def test_what_ships_as_an_example_is_not_deployed(operator: Operator, stack: str, name: str) -> None:
    values = operator.folder / f"infra/parameters/staging/{stack}.json"
    values.write_bytes((templates.INFRA / f"parameters/staging/{stack}.json").read_bytes())
    done = operator.deploy("staging", stack)
    assert done.returncode == 1 and f"placeholders: {name}=" in done.stderr, done.stderr
    assert operator.calls() == []


@pytest.mark.parametrize("value", ["https://pager.example.com/hook", "team@example.com", "https://example.org"])
def test_an_address_that_is_nobodys_is_a_placeholder_wherever_it_stands(operator: Operator, value: str) -> None:
    path = operator.folder / "infra/parameters/staging/edge.json"
    path.write_text(json.dumps({"Parameters": {"Environment": "staging", "DomainName": value}}))
    done = operator.deploy("staging", "edge")
    assert done.returncode == 1 and "placeholders" in done.stderr and operator.calls() == []


def test_options_may_stand_after_the_words(operator: Operator) -> None:
    done = operator.deploy("production", "us-west-2", "pipeline", "--dry-run")
    assert done.returncode == 0 and operator.calls() == [], done.stderr
    assert done.stdout.startswith("aws --region us-west-2 cloudformation deploy")


@pytest.mark.parametrize("region", ["us-east1", "us-east-2", "useast1", "eu-west"])
def test_a_region_that_is_misspelt_is_not_called_a_stack(operator: Operator, region: str) -> None:
    done = operator.deploy("production", region, "edge")
    assert done.returncode == 2 and f"nothing is deployed to `{region}`" in done.stderr


def test_a_dry_run_prints_the_commands_and_asks_nobody(operator: Operator) -> None:
    operator.state(broken="no credentials")
    done = operator.deploy("--dry-run", "production", "pipeline", "service")
    assert (done.returncode, operator.calls()) == (0, []), done.stderr
    printed = [shlex.split(line) for line in done.stdout.splitlines()]
    assert [words[0] for words in printed] == ["aws"] * 4
    assert [after(words, "--stack-name")[0] for words in printed[::2]] == ["datahub-pipeline", "datahub-service"]


def test_another_image_changes_nothing_else(operator: Operator) -> None:
    operator.state(stacks={"datahub-service": described("staging")})
    done = operator.deploy("--image", image(), "staging", "us-east-1", "service")
    assert done.returncode == 0, done.stderr
    update, wait = operator.calls()
    assert update[3:5] == ["cloudformation", "update-stack"] and "--use-previous-template" in update
    assert after(update, "--parameters") == [
        "ParameterKey=Environment,UsePreviousValue=true",
        f"ParameterKey=Image,ParameterValue={image()}",
        "ParameterKey=CountSetBy,ParameterValue=scaling",
        "ParameterKey=DesiredCount,UsePreviousValue=true",
        "ParameterKey=LogRetentionDays,UsePreviousValue=true",
    ]
    assert wait[3:6] == ["cloudformation", "wait", "stack-update-complete"]


def test_the_image_that_runs_already_is_no_error(operator: Operator) -> None:
    operator.state(stacks={"datahub-service": described("staging")}, update="No updates are to be performed.")
    assert operator.deploy("--image", image(), "staging", "service").returncode == 0


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ({"update": "AccessDenied"}, "AccessDenied"),
        ({"taken_back": True}, "taken back"),
    ],
)
def test_an_image_that_does_not_come_to_run_is_an_error(operator: Operator, trouble: dict, said: str) -> None:
    operator.state(stacks={"datahub-service": described("staging")}, **trouble)
    done = operator.deploy("--image", image(), "staging", "service")
    assert done.returncode == 1 and said in done.stderr, done.stderr


def test_the_first_service_has_no_tasks_before_the_tables_are_there(operator: Operator) -> None:
    done = operator.deploy("--first", "--image", image(), "production", "service")
    assert done.returncode == 0, done.stderr
    calls = [words for words in operator.calls() if words[4:5] != ["update-termination-protection"]]
    assert [words[0] for words in calls] == ["aws", "release", "aws", "aws"]
    without, with_tasks, last = (
        dict(one.split("=", 1) for one in after(calls[at], "--parameter-overrides")) for at in (0, 2, 3)
    )
    # Else an update that is taken back would take the number of tasks back, too.
    assert last["CountSetBy"] == "scaling"
    assert (without["DesiredCount"], without["MinTasks"], without["CountSetBy"]) == ("0", "0", "template")
    assert (with_tasks["DesiredCount"], with_tasks["MinTasks"], with_tasks["CountSetBy"]) == ("3", "2", "template")
    assert without["Image"] == with_tasks["Image"] == image()
    assert calls[1][1:] == ["--region", "us-east-1", "production", "migrate", image()]


def test_a_first_migration_that_fails_starts_no_tasks(operator: Operator) -> None:
    operator.state(migration_fails=True)
    done = operator.deploy("--first", "--image", image(), "staging", "service")
    assert done.returncode != 0
    assert len(made(operator.calls())) == 1


def test_a_first_time_that_went_wrong_is_begun_again(operator: Operator) -> None:
    stack = described("staging")
    stack["Parameters"] = [one for one in stack["Parameters"] if one["ParameterKey"] != "CountSetBy"]
    stack["Parameters"].append({"ParameterKey": "CountSetBy", "ParameterValue": "template"})
    operator.state(stacks={"datahub-service": stack})
    done = operator.deploy("--first", "--image", image(), "staging", "service")
    assert done.returncode == 0, done.stderr
    assert [words[0] for words in operator.calls()] == ["aws", "release", "aws", "aws"]


def test_a_first_standby_has_no_tasks_and_migrates_nothing(operator: Operator) -> None:
    done = operator.deploy("--first", "--image", image("us-west-2"), "production", "us-west-2", "service")
    assert done.returncode == 0, done.stderr
    calls = [words for words in operator.calls() if "update-termination-protection" not in words]
    assert [words[0] for words in calls] == ["aws", "aws"]
    assert {"DesiredCount=0", "MinTasks=0"} <= set(after(calls[0], "--parameter-overrides"))
    assert "CountSetBy=scaling" in after(calls[1], "--parameter-overrides")


def test_a_change_of_the_template_leaves_image_and_number_alone(operator: Operator) -> None:
    operator.state(stacks={"datahub-service": described("staging")})
    done = operator.deploy("staging", "service")
    assert done.returncode == 0, done.stderr
    given = after(operator.calls()[0], "--parameter-overrides")
    assert "CountSetBy=scaling" in given
    assert not [one for one in given if one.startswith("Image=")]


@pytest.mark.parametrize(
    ("state", "words", "said"),
    [
        ({"stacks": {"datahub-edge": described("production")}}, ["staging", "edge"], "is production, not staging"),
        ({"stacks": {"datahub-edge": described("staging", "ROLLBACK_COMPLETE")}}, ["staging", "edge"], "delete"),
        ({"broken": "ExpiredToken"}, ["staging", "edge"], "ExpiredToken"),
        ({}, ["staging", "service"], "there is no service yet"),
        ({}, ["--image", image(), "staging", "service"], "there is no service yet"),
        (
            {"stacks": {"datahub-service": described("staging")}},
            ["--first", "--image", image(), "staging", "service"],
            "there is a service already",
        ),
    ],
)
def test_an_account_that_is_not_as_expected_is_left_alone(
    operator: Operator, state: dict, words: list[str], said: str
) -> None:
    operator.state(**state)
    done = operator.deploy(*words)
    assert done.returncode == 1 and said in done.stderr, done.stderr
    assert operator.calls() == []


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["testing"],
        ["staging", "us-west-2"],
        ["staging", "eu-west-1"],
        ["staging", "recovery"],
        ["production", "us-west-2", "data"],
        ["--first", "staging", "service"],
        ["--image", image(), "staging", "edge"],
        ["--image", image("us-west-2"), "staging", "service"],
        ["--image", image().split("@")[0] + ":latest", "staging", "service"],
        ["--image"],
        ["--what", "staging"],
    ],
)
def test_words_that_make_no_sense_reach_nothing(operator: Operator, words: list[str]) -> None:
    done = operator.deploy(*words)
    assert done.returncode == 2 and done.stderr
    assert operator.calls() == []


def test_every_stack_that_the_help_names_has_a_template_and_values_and_the_reverse() -> None:
    text = subprocess.run([str(templates.INFRA / "deploy"), "--help"], capture_output=True, text=True, check=True).stdout
    order = {region: line.split() for region, line in re.findall(r"^  (us-\w+-\d) +(.+)$", text, re.M)}
    assert set().union(*order.values()) == set(templates.names())
    for folder, region in (("staging", "us-east-1"), ("production", "us-east-1"), ("production/us-west-2", "us-west-2")):
        given = {path.stem for path in (templates.INFRA / "parameters" / folder).glob("*.json")}
        assert given == set(order[region]), folder
