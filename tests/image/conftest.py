"""The image, built once for all tests, and a network where containers of it run."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import database
import network
import pytest
from build import ROOT, Image, build
from container import Container


@pytest.fixture(scope="session")
def image() -> Image:
    """The image of the Dockerfile, with the program that the variable GATEWAY names."""
    gateway = Path(os.environ["GATEWAY"])
    head = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return build(gateway, head.stdout.strip() or "unknown")


@pytest.fixture(scope="session")
def own_network(image: Image) -> None:
    """Building needs the world; what is built runs without."""
    network.isolate()


@pytest.fixture(scope="session")
def postgres(own_network: None) -> Iterator[str]:
    """The URL of an empty database on a server of its own."""
    with database.Server() as server:
        yield server.url


@pytest.fixture
def container(image: Image, own_network: None, tmp_path: Path) -> Callable[..., Container]:
    """Makes a container; it is started by `with`."""

    def make(name: str = "one", **how: object) -> Container:
        return Container(image, tmp_path / name, **how)  # type: ignore[arg-type]

    return make
