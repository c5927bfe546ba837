"""The workflows of .github/, loaded as plain values, and their shell steps, run as GitHub would run them."""

import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Iterator

import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github" / "workflows"


@cache
def load(name: str) -> dict[str, Any]:
    """The workflow NAME.yml. YAML 1.1 reads the key `on` as true; here it is `on` again."""
    workflow = yaml.safe_load((FOLDER / f"{name}.yml").read_text())
    workflow["on"] = workflow.pop(True)
    return workflow


def names() -> list[str]:
    """All workflows, by the name of their file."""
    return sorted(path.stem for path in FOLDER.glob("*.yml"))


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every job, with the name of its workflow."""
    for workflow in names():
        for name, job in load(workflow)["jobs"].items():
            yield workflow, name, job


def steps() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every step, with the names of its workflow and job."""
    for workflow, name, job in jobs():
        for step in job.get("steps", []):
            yield workflow, name, step


def step(workflow: str, job: str, name: str) -> dict[str, Any]:
    """The step of this name."""
    [found] = [one for one in load(workflow)["jobs"][job]["steps"] if one.get("name") == name]
    return found


def commands(workflow: str, job: str) -> str:
    """What all steps of a job run, in their order."""
    return "\n".join(one.get("run", "") for one in load(workflow)["jobs"][job]["steps"])


def run(found: dict[str, Any], env: dict[str, str], **more: Any) -> subprocess.CompletedProcess[str]:
    """Runs a step in the shell that GitHub gives it, with nothing but these variables and the PATH."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", found["run"]]
    variables = {"PATH": os.environ["PATH"], **env}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, **more)
