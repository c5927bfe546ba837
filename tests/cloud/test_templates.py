"""The templates as files: what the linters say of them, and what `infra/deploy` would do with them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import templates
from contract.shipped import PLACES, Shipped

# What CloudFormation takes in a request, and what it takes from a bucket.
IN_A_REQUEST, FROM_A_BUCKET = 51_200, 1_000_000

# What it takes as the text of a function.
LARGEST_FUNCTION = 4_096


def checkov() -> Path:
    """The program, in its own environment beside the one that runs this (`.ci/tools cloud` makes both)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    places = [Path(sys.prefix).parent, cache / "datahub-gateway" / "python"]
    for place in places:
        if (place / "checkov" / "bin" / "checkov").exists():
            return place / "checkov" / "bin" / "checkov"
    raise AssertionError(f"no checkov in {places}: run .ci/tools cloud")


def test_cfn_lint_has_no_findings_in_the_files() -> None:
    """As its own command runs, with the suppressions that stand in the templates."""
    command = [
        Path(sys.executable).with_name("cfn-lint"),
        *(templates.INFRA / f"{name}.yaml" for name in templates.names()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_checkov_has_no_failed_check() -> None:
    """What it is told to skip has its reason in the metadata of the resource."""
    command = [
        checkov(),
        "--skip-download",
        "--compact",
        "--quiet",
        "--framework",
        "cloudformation",
        "-o",
        "json",
    ]
    done = subprocess.run([*command, "-d", templates.INFRA], capture_output=True, text=True, timeout=300)
    result = json.loads(done.stdout)
    failed = [
        f"{one['file_path']} {one['resource']}: {one['check_id']} {one['check_name']}"
        for one in result["results"]["failed_checks"]
    ]
    assert not failed, "\n".join(failed)
    assert result["summary"]["parsing_errors"] == 0
    assert result["summary"]["passed"] > 150, "checkov looked at less than it should"


@pytest.mark.parametrize("name", templates.names())
def test_whatever_checkov_skips_has_a_reason(name: str) -> None:
    for path, value in templates.walk(templates.load(name)):
        if path and path[-1] == "checkov" and isinstance(value, dict):
            for skipped in value["skip"]:
                assert len(skipped.get("comment", "")) > 20, f"{path}: {skipped}"


def test_the_template_that_makes_the_bucket_needs_none() -> None:
    assert (templates.INFRA / "pipeline.yaml").stat().st_size <= IN_A_REQUEST


@pytest.mark.parametrize("name", templates.names())
def test_the_text_of_a_function_fits_into_its_template(name: str) -> None:
    for key, function in templates.resources(templates.load(name), "AWS::Lambda::Function").items():
        assert len(function["Code"]["ZipFile"].encode()) <= LARGEST_FUNCTION, key


@pytest.mark.parametrize(
    "environment, region, stacks", PLACES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_deployment_takes_the_stacks_in_the_order_of_the_checks(
    environment: str, region: str, stacks: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [templates.INFRA / "deploy", "--dry-run", environment, region, *reversed(stacks)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"deploy --stack-name datahub-(\S+)", done.stdout) == list(stacks)
    for name, rest in re.findall(r"deploy --stack-name datahub-(\S+)(.*)", done.stdout):
        size = (templates.INFRA / f"{name}.yaml").stat().st_size
        assert size <= FROM_A_BUCKET
        assert size <= IN_A_REQUEST or "--s3-bucket" in rest, f"{name} is too large for a request"


@pytest.mark.parametrize(
    "environment, region, stacks", PLACES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_deployment_gives_what_the_parameter_files_say(
    shipped: Shipped, environment: str, region: str, stacks: tuple[str, ...]
) -> None:
    """Whatever the script reads, it must be what the checks have read."""
    done = subprocess.run(
        [templates.INFRA / "deploy", "--dry-run", environment, region, *reversed(stacks)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = {
        re.search(r"--stack-name datahub-(\S+)", line)[1]: line
        for line in done.stdout.splitlines()
        if " deploy " in line
    }
    for stack in stacks:
        for name, value in shipped.given(environment, region, stack).items():
            assert f" {name}={value}" in lines[stack].replace("\\", ""), f"{stack}: {name}"


def test_every_script_is_clean() -> None:
    """shellcheck, over whatever in infra/ is a shell script."""
    scripts = [
        path for path in templates.INFRA.iterdir() if path.is_file() and path.read_bytes()[:2] == b"#!"
    ]
    assert {"deploy", "failover"} <= {path.name for path in scripts}
    done = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), *scripts], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout
