"""What ships to AWS, read once: the templates and all that must agree with them.

A check gets a `Shipped` and looks at nothing else, so that the test of the checks (`test_mistakes.py`)
can hand it a copy with a mistake in it.
"""

import copy
import json
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import templates
import yaml
from contract.resolve import Stack, resolve

ROOT = templates.ROOT

# Where stacks stand, in the order in which `infra/deploy` makes them: (environment, region, stacks).
PLACES = (
    ("staging", "us-east-1", ("pipeline", "network", "data", "edge", "service", "observability")),
    ("production", "us-east-1", ("pipeline", "network", "data", "edge", "service", "observability")),
    ("production", "us-west-2", ("pipeline", "network", "recovery", "service", "observability")),
)

# What is off in all of them, turned on in one more that nobody deploys: resources behind a condition are
# checked as well.
EVERYTHING: dict[str, dict[str, str]] = {
    "network": {
        "InterfaceEndpoints": "true",
        "EdgePrefixList": "pl-00000001",
        "HealthCheckPrefixList": "pl-00000002",
    },
    "edge": {"CloudFront": "yes", "CachedPath": "/static/*"},
    "service": {"ThroughCloudFront": "only", "OperatorSecurityGroup": "sg-00000003"},
    "observability": {f"Upstream{place}": f"upstream{place}" for place in range(1, 7)}
    | {"UpstreamOther": "yes"},
}


@dataclass(frozen=True)
class Place:
    """One account (there is one for each environment) and one region, with its stacks by name."""

    environment: str
    region: str
    stacks: dict[str, Stack]
    # With `EVERYTHING` turned on.
    whole: bool = False

    def __str__(self) -> str:
        return f"{self.environment}/{self.region}{' with everything' * self.whole}"

    @property
    def folder(self) -> str:
        """The folder of conf/environments that tasks run with here."""
        return "recovery" if self.region == "us-west-2" else self.environment

    def resources(self, kind: str) -> dict[str, dict[str, Any]]:
        """Properties, resolved, of all resources of a type, by `stack/LogicalId`."""
        return {
            f"{name}/{key}": resource.get("Properties", {})
            for name, stack in self.stacks.items()
            for key, resource in stack.resources.items()
            if resource["Type"] == kind
        }

    def export(self, name: str) -> Any:
        """What a stack of this place exports under this name, or None."""
        for stack in self.stacks.values():
            if name in stack.exports:
                return stack.exports[name]
        return None


@dataclass(repr=False)
class Shipped:
    """Templates as plain values, and the files that must agree with them."""

    templates: dict[str, dict[str, Any]]
    # The values of `infra/parameters/KEY.json`; KEY is `staging/network` or `production/us-west-2/network`.
    parameters: dict[str, dict[str, Any]]
    # `infra/metrics.json`: what the gateway publishes.
    catalogue: dict[str, Any]
    # All tables of `conf/environments/FOLDER/*.toml`, by folder.
    conf: dict[str, dict[str, Any]]
    dockerfile: str
    # The scripts of infra/, by name.
    scripts: dict[str, str]
    # `.github/workflows/NAME.yml`, parsed, by name.
    workflows: dict[str, dict[str, Any]]

    @classmethod
    def load(cls) -> "Shipped":
        """Reads the checkout."""
        infra = templates.INFRA
        parameters = {}
        for path in sorted((infra / "parameters").rglob("*.json")):
            key = str(path.relative_to(infra / "parameters").with_suffix(""))
            parameters[key] = json.loads(path.read_text())
        environments = ROOT / "conf" / "environments"
        return cls(
            # Through JSON: plain dicts and strings, without the places that the linter's loader keeps.
            templates={name: json.loads(json.dumps(templates.load(name))) for name in templates.names()},
            parameters=parameters,
            catalogue=json.loads((infra / "metrics.json").read_text()),
            conf={path.name: _tables(path) for path in sorted(environments.iterdir()) if path.is_dir()},
            dockerfile=(ROOT / "Dockerfile").read_text(),
            scripts={path.name: path.read_text() for path in sorted(infra.iterdir()) if _is_script(path)},
            workflows={
                path.stem: _workflow(path)
                for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
            },
        )

    def copy(self) -> "Shipped":
        """Another one with the same content, to be spoiled."""
        return Shipped(
            templates=copy.deepcopy(self.templates),
            parameters=copy.deepcopy(self.parameters),
            catalogue=copy.deepcopy(self.catalogue),
            conf=copy.deepcopy(self.conf),
            dockerfile=self.dockerfile,
            scripts=dict(self.scripts),
            workflows=copy.deepcopy(self.workflows),
        )

    def given(self, environment: str, region: str, stack: str) -> dict[str, str]:
        """The values of the parameter file that `infra/deploy` takes for a stack; empty without one."""
        key = f"{environment}/{stack}" if region == "us-east-1" else f"{environment}/{region}/{stack}"
        return self.parameters.get(key, {}).get("Parameters", {})

    @cached_property
    def places(self) -> list[Place]:
        """Every place with its stacks resolved: parameters, conditions and imports have their values."""
        found = [self._place(*where) for where in PLACES]
        return [*found, self._place(*PLACES[1], EVERYTHING)]

    def _place(
        self,
        environment: str,
        region: str,
        names: tuple[str, ...],
        more: dict[str, dict[str, str]] | None = None,
    ) -> Place:
        stacks: dict[str, Stack] = {}
        for name in names:
            if name in self.templates:
                values = self.given(environment, region, name) | (more or {}).get(name, {})
                resolve(name, self.templates[name], values, environment, region, stacks)
        return Place(environment, region, stacks, whole=more is not None)

    def place(self, environment: str, region: str = "us-east-1") -> Place:
        """One of the places."""
        return next(p for p in self.places if (p.environment, p.region) == (environment, region))

    def configuration(self, place: Place) -> dict[str, Any]:
        """What the tasks of a place run with."""
        return self.conf.get(place.folder, {})

    @property
    def production(self) -> Place:
        """Where the architecture's figures hold."""
        return self.place("production")


def _is_script(path: Path) -> bool:
    return path.is_file() and path.read_bytes()[:2] == b"#!"


def _workflow(path: Path) -> dict[str, Any]:
    """A workflow; YAML 1.1 reads the key `on` as true."""
    parsed = yaml.safe_load(path.read_text())
    parsed["on"] = parsed.pop(True, parsed.get("on"))
    return parsed


def _tables(folder: Path) -> dict[str, Any]:
    """All files of a configuration as one: tables of the same name are joined, as the gateway does."""
    whole: dict[str, Any] = {}
    for path in sorted(folder.glob("*.toml")):
        _join(whole, tomllib.loads(path.read_text()))
    return whole


def _join(whole: dict[str, Any], part: dict[str, Any]) -> None:
    for key, value in part.items():
        if isinstance(value, dict) and isinstance(whole.get(key), dict):
            _join(whole[key], value)
        else:
            whole[key] = value
