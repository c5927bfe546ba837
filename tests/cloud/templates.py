"""The templates of infra/, loaded as plain values: short forms such as `!Ref` become `{"Ref": ..}`."""

from functools import cache
from pathlib import Path
from typing import Any, Iterator

from cfnlint.decode import cfn_yaml

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"


@cache
def load(name: str) -> dict[str, Any]:
    """The template `infra/NAME.yaml`."""
    return cfn_yaml.load(str(INFRA / f"{name}.yaml"))


def names() -> list[str]:
    """All templates, by the name of their file."""
    return sorted(path.stem for path in INFRA.glob("*.yaml"))


def resources(template: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """Properties of the resources of a type, by logical id."""
    return {
        key: value.get("Properties", {})
        for key, value in template["Resources"].items()
        if value["Type"] == kind
    }


def walk(value: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Every value below this one, with its path."""
    yield path, value
    if isinstance(value, dict):
        for key, below in value.items():
            yield from walk(below, (*path, key))
    elif isinstance(value, list):
        for place, below in enumerate(value):
            yield from walk(below, (*path, place))
