"""The real gateway, as an operator runs it, in a folder of its own.

GATEWAY names the program; by default it is what `cargo build` has left in the target folder.
"""

import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

from emulator import PATIENCE, REGION, tied

# The first six have metrics and an alarm of their own, in the order of the parameters Upstream1..Upstream6.
UPSTREAMS = ("billing", "catalog", "orders", "payments", "profiles", "search")
# All that are published as `other`.
OTHERS = ("tickets",)

CONFIGURATION = """
workers = 1

[listeners.public]
address = "127.0.0.1:0"

[admin]
address = "off"

[drain]
announce = "0s"
deadline = "5s"

[store.postgres]
pool = 8

[fleet]
expected = 1

[cloudwatch]
environment = "production"
endpoint = "{endpoint}"
interval = "1s"
upstreams = {named}

[plans.drill.limits.second]
rate = "5000/s"
burst = 5000
"""
BROKEN = '[routes.broken]\npath = "/broken/*"\nauth = ["api_key"]\nupstream = "nobody"\n'


def program() -> Path:
    """The gateway's program; that it is missing is an error and no reason to skip."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = Path(os.environ.get("CARGO_TARGET_DIR") or cache / "datahub-gateway" / "target")
    path = Path(os.environ.get("GATEWAY") or target / "debug" / "gateway")
    assert path.is_file(), f"{path} is missing: run `cargo build`, or name the program in GATEWAY"
    return path


class Gateway:
    """One task."""

    def __init__(self, endpoint: str, database: str, redis: str, upstreams: dict[str, int]) -> None:
        self._program = program()
        self._folder = tempfile.TemporaryDirectory(prefix="gateway-drill-")
        self._conf = Path(self._folder.name, "conf")
        self._conf.mkdir()
        named = json.dumps(list(UPSTREAMS))
        text = CONFIGURATION.format(endpoint=endpoint, named=named)
        for name, port in upstreams.items():
            text += f'\n[upstreams.{name}]\nendpoints = ["127.0.0.1:{port}"]\n'
            text += f'\n[routes.{name}]\npath = "/{name}/*"\nauth = ["api_key"]\nupstream = "{name}"\n'
        (self._conf / "gateway.toml").write_text(text)
        self._environment = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": database,
            # The replica is the same server by another pool, so that a lock holds both.
            "DATABASE_REPLICA_URL": database,
            "REDIS_URL": redis,
            "API_KEY_PEPPER": "drill-only-pepper-drill-only-pepper-drill",
            "AWS_REGION": REGION,
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def prepare(self) -> str:
        """Makes the tables, a consumer and a key; returns the key."""
        self.run("migrate")
        self.run("consumers", "add", "drill", "--plan", "drill")
        return self.issue_key()

    def issue_key(self) -> str:
        """A new key of the consumer."""
        found = re.search(r"\bdh_\w+", self.run("keys", "issue", "drill"))
        assert found, "no key was printed"
        return found[0]

    def run(self, *arguments: str) -> str:
        """Runs a command of the program; what it prints."""
        command = [str(self._program), "--conf", str(self._conf), *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"{arguments}: {done.stderr}{done.stdout}"
        return done.stdout

    def start(self, account: str) -> None:
        """Starts it, publishing into an account, and waits until it is ready."""
        ready = Path(self._folder.name, "ready.json")
        with Path(self._folder.name, "stderr").open("wb") as log:
            self._process = subprocess.Popen(
                tied([str(self._program), "--conf", str(self._conf), "run", "--ready-file", str(ready)]),
                env=self._environment | {"AWS_ACCESS_KEY_ID": account},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        until = time.monotonic() + PATIENCE
        while not self._is_ready(ready):
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the gateway does not start:\n{self.log()}")
            time.sleep(0.02)
        self.port = int(json.loads(ready.read_text())["listeners"]["public"].rsplit(":", 1)[1])

    @staticmethod
    def _is_ready(file: Path) -> bool:
        try:
            return "listeners" in json.loads(file.read_text())
        except (FileNotFoundError, ValueError):
            return False

    def save_a_mistake(self) -> None:
        """An operator saves a file that names nobody."""
        (self._conf / "broken.toml").write_text(BROKEN)

    def mend_the_mistake(self) -> None:
        """The file goes away again."""
        (self._conf / "broken.toml").unlink()

    def log(self) -> str:
        """What it has printed on stderr."""
        return Path(self._folder.name, "stderr").read_text(errors="replace")

    def close(self) -> int:
        """Ends it as ECS would; its exit status."""
        status = 0
        if self._process:
            self._process.terminate()
            try:
                status = self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                status = self._process.wait()
        self._folder.cleanup()
        return status
