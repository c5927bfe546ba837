"""What the workflows promise: who may do what, in which order, and that nothing is left out.

That the linters find nothing is here too; they run offline. What cannot be tried without GitHub and AWS, the
run itself, is not claimed."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Iterator

import pytest
import workflows
from workflows import ROOT, jobs, load, step, steps

TOOLS = Path(sys.executable).parent
SHELL = ["bash", "sh"]


def tool(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs one of the linters that are installed beside this Python; they find each other there."""
    env = {**os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


def quiet(*command: str | Path) -> None:
    """The linter has nothing to say."""
    done = tool(*command)
    assert done.returncode == 0, done.stdout + done.stderr


# ---------------------------------------------------------------- linters


def test_actionlint_finds_nothing_in_the_workflows_or_their_shell() -> None:
    quiet(TOOLS / "actionlint")


def test_zizmor_finds_nothing() -> None:
    quiet(TOOLS / "zizmor", "--offline", "--quiet", ".")


def test_what_zizmor_is_told_to_ignore_has_a_reason_above_it() -> None:
    for path in workflows.FOLDER.glob("*.yml"):
        lines = path.read_text().splitlines()
        for before, line in zip(["", *lines], lines):
            assert "zizmor: ignore" not in line or before.strip().startswith("#"), f"{path.name}: {line}"


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    quiet(TOOLS / "hadolint", "Dockerfile")


def shell_scripts() -> list[Path]:
    """Files without an ending that a shell runs."""
    files = [path for folder in (".ci", "infra") for path in (ROOT / folder).iterdir() if path.is_file()]
    first = {path: path.read_bytes().split(b"\n", 1)[0].decode(errors="replace") for path in files}
    return [path for path, line in first.items() if line.startswith("#!") and line.endswith(tuple(SHELL))]


def test_shellcheck_finds_nothing_in_the_scripts() -> None:
    scripts = shell_scripts()
    assert {"run", "tools", "smoke", "release"} <= {path.name for path in scripts}
    quiet(TOOLS / "shellcheck", *scripts)


# ---------------------------------------------------------------- who may do what


def test_every_action_is_pinned_by_commit_with_its_version_beside_it() -> None:
    pinned = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
    for path in workflows.FOLDER.glob("*.yml"):
        for line in path.read_text().splitlines():
            if re.match(r"\s*(- )?uses: (?!\./)", line):
                assert pinned.search(line), f"{path.name}: {line.strip()}"


def test_one_action_is_pinned_to_one_commit_everywhere() -> None:
    pins: dict[str, set[str]] = {}
    for _, _, one in steps():
        if "uses" in one:
            action, commit = one["uses"].split("@")
            pins.setdefault(action, set()).add(commit)
    assert all(len(commits) == 1 for commits in pins.values()), pins


def test_no_checkout_leaves_its_token_behind() -> None:
    for workflow, job, one in steps():
        if one.get("uses", "").startswith("actions/checkout@"):
            assert one["with"]["persist-credentials"] is False, f"{workflow}.{job}"


def test_every_workflow_may_only_read_and_a_job_says_what_more_it_may() -> None:
    more = {("deploy", "deploy"): {"id-token"}, ("deploy", "tell"): {"statuses"}}
    for workflow in workflows.names():
        assert load(workflow)["permissions"] == {"contents": "read"}, workflow
    for workflow, name, job in jobs():
        writes = {right for right, how in job.get("permissions", {}).items() if how != "read"}
        assert writes == more.get((workflow, name), set()), f"{workflow}.{name}"


def test_every_job_ends_by_itself() -> None:
    for workflow, name, job in jobs():
        # A job that calls a workflow has the bounds of its jobs.
        assert "uses" in job or job["timeout-minutes"] <= 180, f"{workflow}.{name}"


def test_no_shell_is_given_text_of_github_but_by_a_variable() -> None:
    for workflow, job, one in steps():
        assert "${{" not in one.get("run", ""), f"{workflow}.{job}: {one.get('name')}"


def test_only_the_jobs_that_deploy_and_tell_see_a_secret() -> None:
    seen = {(workflow, name) for workflow, name, job in jobs() if "secrets." in json.dumps(job)}
    assert seen == {("deploy", "deploy"), ("deploy", "tell")}


# ---------------------------------------------------------------- what runs when


def test_a_feature_is_built_and_tested_and_goes_no_further() -> None:
    assert load("ci")["on"]["push"]["branches"] == ["feature/**"]
    assert "pull_request" in load("ci")["on"]
    assert "pull_request_target" not in str([load(name)["on"] for name in workflows.names()])
    ids = [name for workflow, name, job in jobs() if "id-token" in job.get("permissions", {})]
    assert ids == ["deploy"]


def test_develop_goes_to_staging_and_main_to_production() -> None:
    assert load("deploy")["on"]["push"]["branches"] == ["develop", "main"]
    deploy = load("deploy")["jobs"]["deploy"]
    chosen = "${{ github.ref == 'refs/heads/main' && 'production' || 'staging' }}"
    assert deploy["environment"]["name"] == deploy["env"]["ENVIRONMENT"] == chosen
    # `workflow_dispatch` can name any branch: those that have no environment are refused.
    assert "(github.ref == 'refs/heads/develop' || github.ref == 'refs/heads/main')" in deploy["if"]


def test_nothing_is_deployed_that_has_not_passed() -> None:
    found = load("deploy")["jobs"]
    assert found["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert found["deploy"]["needs"] == "ci"
    assert "needs.ci.result == 'success'" in found["deploy"]["if"]


def test_one_environment_has_one_deployment_and_it_is_not_stopped_half_way() -> None:
    concurrency = load("deploy")["jobs"]["deploy"]["concurrency"]
    assert concurrency["cancel-in-progress"] is False
    assert concurrency["group"].startswith("deploy-") and "'production'" in concurrency["group"]
    # The group of the whole workflow would let a newer commit cancel a deployment.
    assert "concurrency" not in load("deploy")


def test_the_required_check_needs_every_other_job() -> None:
    found = load("ci")["jobs"]
    assert set(found["ci"]["needs"]) == set(found) - {"ci"}
    assert found["ci"]["if"] == "always()"


@pytest.mark.parametrize(
    ("results", "dependencies", "event", "passes"),
    [
        ("success success success", "success", "pull_request", True),
        ("success skipped success", "skipped", "push", True),
        ("success skipped success", "skipped", "pull_request", False),
        ("success skipped skipped", "skipped", "push", False),
        ("success failure success", "success", "pull_request", False),
        ("cancelled success success", "success", "push", False),
        ("", "", "push", False),
    ],
)
def test_the_required_check_passes_only_when_all_have(
    results: str, dependencies: str, event: str, passes: bool
) -> None:
    [found] = load("ci")["jobs"]["ci"]["steps"]
    env = {"RESULTS": results, "DEPENDENCIES": dependencies, "EVENT": event}
    assert (workflows.run(found, env).returncode == 0) is passes


def test_the_hosted_workflow_runs_the_steps_of_the_local_one() -> None:
    local = re.findall(r"^step \w+ (.+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    hosted = "\n".join(one["run"] for workflow, _, one in steps() if workflow == "ci" and "run" in one)
    assert len(local) >= 6
    for command in local:
        # `make` installs its tools by itself, and where the gateway is built differs.
        words = command.split(" GATEWAY=")[0]
        assert words == ".ci/tools build" or f"{words}\n" in hosted + "\n" or f"{words} " in hosted, command


def test_what_the_soak_needs_root_for_is_run_by_root_and_built_by_the_user() -> None:
    command = ["make", "--dry-run", "soak"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "MAKEFLAGS": ""}, capture_output=True, text=True)
    [line] = [one for one in done.stdout.replace("\\\n", " ").splitlines() if "--bench capacity" in one]
    runner = re.search(r"runner='(.*?)'", line)
    assert runner is not None and line.startswith("cargo bench") and "CAPACITY_ENFORCE=1" in runner[1]
    text = (ROOT / "Makefile").read_text()
    assert "runner='$(AS_ROOT) env" in text and text.index("AS_ROOT =") < text.index("\nsoak:")
    assert "make soak" in workflows.commands("scheduled", "soak")


def test_every_test_has_a_stage_in_the_coverage() -> None:
    there = {path.stem for path in (ROOT / "tests").glob("*.rs")}
    there |= {path.parent.name for path in (ROOT / "tests").glob("*/main.rs")}
    staged = re.findall(r"--test (\w+)", workflows.commands("ci", "coverage"))
    assert sorted(staged) == sorted(there)
    assert "--lib --bins" in step("ci", "coverage", "Unit tests")["run"]
    assert "--test it --test fleet" in step("ci", "coverage", "End to end tests")["run"]


def test_the_image_is_tried_then_handed_on_and_only_then_scanned_by_others() -> None:
    found = load("ci")["jobs"]["image"]["steps"]
    order = [str(one.get("run", one.get("uses"))) for one in found]
    place = {word: [word in text for text in order].index(True) for word in (
        "docker build", "60000000", "--read-only", "docker stop", "upload-artifact", "trivy-action"
    )}
    assert list(place.values()) == sorted(place.values()), place


# ---------------------------------------------------------------- a deployment


def test_the_steps_of_a_deployment_have_their_order() -> None:
    text = workflows.commands("deploy", "deploy")
    order = ["image", "current", "migrate", "update"]
    places = [text.index(f'infra/release "$ENVIRONMENT" {command}') for command in order]
    places += [text.index("infra/smoke"), text.index("smoke/load |"), text.index(" standby ")]
    places += [text.index('infra/release "$ENVIRONMENT" rollback "$BEFORE"')]
    assert places == sorted(places)


def test_a_deployment_that_fails_or_is_stopped_is_taken_back_once_the_service_was_touched() -> None:
    found = step("deploy", "deploy", "Take it back")
    assert "(failure() || cancelled())" in found["if"]
    assert "steps.update.outcome != 'skipped'" in found["if"]
    # What has passed the smoke is not taken back because of the other region.
    assert "steps.standby.outcome == 'skipped'" in found["if"]
    assert step("deploy", "deploy", "The standby in the recovery region")["id"] == "standby"
    assert found is load("deploy")["jobs"]["deploy"]["steps"][-1]


@pytest.mark.parametrize(
    ("release", "status", "kept"),
    [("echo uri@sha256:1", 0, "BEFORE=uri@sha256:1\n"), ("exit 1", 1, ""), ("true", 1, "")],
    ids=["runs", "AWS does not answer", "there is no service"],
)
def test_a_deployment_that_cannot_tell_what_runs_goes_no_further(
    tmp_path: Path, release: str, status: int, kept: str
) -> None:
    found = step("deploy", "deploy", "Remember what runs now")
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra" / "release").write_text(f"#!/bin/sh\n{release}\n")
    (tmp_path / "infra" / "release").chmod(0o755)
    (tmp_path / "env").touch()
    env = {**os.environ, "GITHUB_ENV": str(tmp_path / "env"), "ENVIRONMENT": "staging"}
    # As GitHub runs it.
    command = ["bash", "-e", "-c", found["run"]]
    assert subprocess.run(command, cwd=tmp_path, env=env, capture_output=True).returncode == status
    assert (tmp_path / "env").read_text() == kept
    # So the way back is never left out for want of an image.
    assert "BEFORE" not in step("deploy", "deploy", "Take it back")["if"]


SETTINGS = {
    "ENVIRONMENT": "staging",
    "AWS_ROLE": "arn:aws:iam::123456789012:role/datahub-deploy",
    "AWS_ACCOUNT_ID": "123456789012",
    "PUBLIC_URL": "https://api.example.com",
    "SMOKE_KEY": "dh_live_x",
    "COMMIT": "0123456789abcdef0123456789abcdef01234567",
}


def test_an_environment_that_lacks_a_setting_says_which_all_at_once() -> None:
    found = load("deploy")["jobs"]["deploy"]["steps"][0]
    assert workflows.run(found, SETTINGS).returncode == 0
    lacking = workflows.run(found, {**SETTINGS, "AWS_ROLE": "", "SMOKE_KEY": "", "COMMIT": "main; id"})
    assert lacking.returncode == 1
    assert all(word in lacking.stdout for word in ("no AWS_ROLE", "no SMOKE_KEY", "`main; id` is not"))
    assert SETTINGS["AWS_ACCOUNT_ID"] not in lacking.stdout


# ---------------------------------------------------------------- telling


@pytest.fixture
def slack() -> Iterator[tuple[str, list[dict]]]:
    """A webhook on loopback, and what it was told."""
    told: list[dict] = []

    class Webhook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", told
    server.shutdown()


TOLD = {
    "ENVIRONMENT": "production",
    "COMMIT": SETTINGS["COMMIT"],
    "RESULT": "failure",
    "RUN": "https://github.example/runs/1",
    "REPOSITORY": "datahub/gateway",
    "ACTOR": 'a "quoted" name',
}


def test_slack_is_told_what_was_deployed_where_and_how_it_ended(slack: tuple[str, list[dict]]) -> None:
    url, told = slack
    done = workflows.run(step("deploy", "tell", "Slack"), {**TOLD, "SLACK_WEBHOOK_URL": url})
    assert done.returncode == 0, done.stderr
    text = "datahub/gateway 0123456789ab to production by a \"quoted\" name: failure <https://github.example/runs/1|run>"
    assert told == [{"text": text}]


def test_without_a_webhook_the_run_says_that_slack_is_not_told() -> None:
    done = workflows.run(step("deploy", "tell", "Slack"), {**TOLD, "SLACK_WEBHOOK_URL": ""})
    assert done.returncode == 0 and "::notice::Slack is not told" in done.stdout


@pytest.mark.parametrize(
    ("result", "state"), [("success", "success"), ("failure", "failure"), ("cancelled", "error")]
)
def test_the_commit_gets_a_status_for_its_environment(tmp_path: Path, result: str, state: str) -> None:
    (tmp_path / "gh").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "gh").chmod(0o755)
    env = {**TOLD, "RESULT": result, "PATH": f"{tmp_path}:{os.environ['PATH']}", "GH_TOKEN": "t"}
    done = workflows.run(step("deploy", "tell", "The commit"), env)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert f"repos/datahub/gateway/statuses/{SETTINGS['COMMIT']}" in said
    assert f"state={state}" in said and "context=deploy/production" in said
