"""ministack, an emulator of AWS, on a free port of loopback.

What it is trusted with: to take PutMetricData as the AWS SDK for Rust sends it (CBOR, for which it needs the
package cbor2: without it, it answers 200 and drops everything), to keep metrics apart by dimensions, to
hold the state of alarms, and to carry a message from an alarm over SNS to SQS.

What it is not: it knows no metric math, pools all periods and dimensions of an alarm into one, and judges
whenever a metric arrives. So alarms live in one account and metrics in another, and `alarm_oracle` judges.
"""

import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config

REGION = "us-east-1"
METRICS = "111111111111"
ALARMS = "222222222222"
PATIENCE = 20.0

# Only what the drill uses; without these it would listen on all addresses, and for MQTT and SFTP too.
SETTINGS = {
    "BIND_HOST": "127.0.0.1",
    "SERVICES": "monitoring,sns,sqs,sts,iam",
    "IOT_MTLS_ENABLED": "0",
    "SFTP_ENABLED": "0",
}


def free_port() -> int:
    """A port that nobody uses, below those that clients get: a server finds it again when it restarts."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def tied(command: list[str]) -> list[str]:
    """The command, killed by the kernel when the thread that started it ends, however that is."""
    return ["setpriv", "--pdeathsig", "KILL", *command]


class Emulator:
    """The running emulator; leaving the context ends it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = tempfile.TemporaryDirectory(prefix="gateway-drill-aws-")
        self._log = Path(self._folder.name, "log").open("wb")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": self._folder.name,
            "GATEWAY_PORT": str(self.port),
            **SETTINGS,
        }
        self._process = subprocess.Popen(
            tied([sys.executable, "-m", "ministack"]),
            env=environment,
            cwd=self._folder.name,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
        self._folder.cleanup()

    def wait_until_ready(self) -> None:
        """Waits until it answers."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/_ministack/health", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise RuntimeError(f"ministack does not start:\n{self.log()[-4000:]}")

    def log(self) -> str:
        """What it has printed."""
        self._log.flush()
        return Path(self._log.name).read_text(errors="replace")

    def client(self, service: str, account: str) -> Any:
        """A client of a service; an access key of twelve digits is an account of its own."""
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id=account,
            aws_secret_access_key="not-a-secret",
            config=Config(retries={"max_attempts": 1}, connect_timeout=5, read_timeout=10),
        )
