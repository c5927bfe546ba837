"""Containers of the image, by runc: what an engine, and ECS, would start, with no engine.

As ECS is told to start it: a read-only root, half a CPU, 1 GiB, no capabilities, no new privileges, the
image's own user, entry point and environment. The gateway is process 1 of its container. The network is
that of the tests (network.py).
"""

import copy
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from build import Image

USER = 65532
CPU_PERIOD = 100_000
CPU_QUOTA = 50_000
MEMORY = 1024**3
PATIENCE = 30.0


@dataclass
class Container:
    """One container; it runs inside of `with`."""

    image: Image
    folder: Path
    arguments: list[str] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    # What an engine lays over the image, by the path inside.
    files: dict[str, Path] = field(default_factory=dict)
    volume: bool = True
    port: int = 3000

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.name = f"gateway-{os.getpid()}-{self.folder.name}"
        # A layer of its own: what is laid over the image needs a place there.
        rootfs = [str(self.image.rootfs), str(self.folder / "rootfs")]
        subprocess.run(["cp", "--archive", *rootfs], check=True)
        (self.folder / "config.json").write_text(json.dumps(self._spec()))

    def _spec(self) -> dict:
        spec = copy.deepcopy(json.loads((self.image.bundle / "config.json").read_text()))
        process = spec["process"]
        process |= {"terminal": False, "noNewPrivileges": True, "capabilities": {}}
        if self.arguments is not None:
            process["args"] = [*self.image.config["config"]["Entrypoint"], *self.arguments]
        process["env"] += [f"{name}={value}" for name, value in self.environment.items()]
        spec["root"] = {"path": "rootfs", "readonly": True}
        spec["hostname"] = "gateway"
        mode = [f"uid={USER}", f"gid={USER}", "mode=700", "nosuid", "nodev", "noexec"]
        if self.volume:
            data = {"destination": "/app/data", "type": "tmpfs", "source": "tmpfs", "options": mode}
            spec["mounts"].append(data)
        for inside, outside in self.files.items():
            options = ["bind", "ro"]
            over = {"destination": inside, "type": "bind", "source": str(outside), "options": options}
            spec["mounts"].append(over)
        linux = spec["linux"]
        linux["namespaces"] = [kind for kind in linux["namespaces"] if kind["type"] != "network"]
        linux["cgroupsPath"] = f"/{self.name}"
        linux["resources"] = {
            "cpu": {"quota": CPU_QUOTA, "period": CPU_PERIOD},
            "memory": {"limit": MEMORY, "reservation": MEMORY // 2},
        }
        return spec

    def __enter__(self) -> "Container":
        run = self._runc("run", "--bundle", str(self.folder), self.name)
        with open(self.folder / "stdout", "wb") as out, open(self.folder / "stderr", "wb") as err:
            self.process = subprocess.Popen(run, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # One that has ended is not there any more.
        remove = self._runc("delete", "--force", self.name)
        subprocess.run(remove, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        self.process.wait(PATIENCE)
        if kind is not None:
            print(f"{self.name} said:\n{self.stderr[-4000:]}")

    def _runc(self, *arguments: str) -> list[str]:
        return ["runc", "--root", str(self.folder / "state"), *arguments]

    @property
    def stdout(self) -> str:
        """What the container has printed."""
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        """What it has logged."""
        return (self.folder / "stderr").read_text()

    def signal(self, name: str) -> None:
        """Sends a signal to its process 1."""
        subprocess.run(self._runc("kill", self.name, name), check=True)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command inside, as a health check of the container is run."""
        run = self._runc("exec", self.name, *command)
        return subprocess.run(run, capture_output=True, text=True, timeout=PATIENCE, check=False)

    def status(self, path: str, headers: dict[str, str] | None = None) -> int:
        """The status of an answer; 0 while nobody answers."""
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {})) as answer:
                return answer.status
        except urllib.error.HTTPError as refused:
            return refused.code
        except (urllib.error.URLError, ConnectionError):
            return 0

    def wait_until_healthy(self) -> float:
        """Seconds until /health answered 200."""
        began = time.monotonic()
        while self.status("/health") != 200:
            if self.process.poll() is not None or time.monotonic() - began > PATIENCE:
                raise AssertionError(f"{self.name} is not healthy:\n{self.stderr}")
            time.sleep(0.05)
        return time.monotonic() - began

    def end(self) -> None:
        """Ends it as an engine does, and expects that it has nothing to complain of."""
        self.signal("TERM")
        assert self.wait() == 0, self.stderr

    def wait(self, patience: float = PATIENCE) -> int:
        """The exit code."""
        return self.process.wait(patience)
