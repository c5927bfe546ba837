"""infra/smoke and the smoke load, run against the gateway itself: `gateway run`, started here.

This wants a compiler; `make cloud`, which has none, leaves it out, and `make test` runs it."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_smoke import certificate, Served, smoke
from workflows import ROOT


@pytest.fixture(scope="session")
def built() -> dict[str, str]:
    """The programs, by name: the smoke load, and the gateway that belongs to it. The same command as in ci.yml;
    another one would build both anew, with other features of what they depend on."""
    command = ["cargo", "test", "--locked", "--no-run", "--bench", "load", "--message-format", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["target"]["name"]: line["executable"] for line in lines if line.get("executable")}


CONF = """
workers = 1
[listeners.public]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[store]
path = "../data/gateway.db"
[plans.smoke.limits.requests]
rate = "1000/s"
[routes.orders]
path = "/orders"
auth = ["api_key"]
reply = { status = 200, content_type = "text/plain", body = "orders" }
"""


@pytest.fixture(scope="module")
def gateway(built: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Where one answers, and a key for it."""
    folder = tmp_path_factory.mktemp("gateway")
    program = [built["gateway"], "--conf", str(folder / "conf")]
    (folder / "conf").mkdir()
    (folder / "data").mkdir()
    (folder / "conf" / "gateway.toml").write_text(CONF)
    subprocess.run([*program, "consumers", "add", "smoke", "--plan", "smoke"], check=True, capture_output=True)
    issued = subprocess.run([*program, "keys", "issue", "smoke"], check=True, capture_output=True, text=True)
    key = re.search(r"dh_\w+", issued.stdout)[0]
    ready = folder / "ready.json"
    with (folder / "log").open("w") as log:
        running = subprocess.Popen([*program, "run", "--ready-file", str(ready)], stdout=log, stderr=log)
    end = time.monotonic() + 30
    while not ready.exists():
        assert running.poll() is None and time.monotonic() < end, (folder / "log").read_text()
        time.sleep(0.05)
    yield "http://" + json.loads(ready.read_text())["listeners"]["public"], key
    running.kill()
    running.wait()


@pytest.fixture(scope="module")
def program(built: dict[str, str]) -> Path:
    """The smoke load."""
    return Path(built["load"])


def load(program: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs it: half a second, unless a variable says otherwise."""
    variables = {"PATH": os.environ["PATH"], "LOAD_REQUESTS": "50", "LOAD_RATE": "100", "LOAD_P99_MS": "2000", **env}
    return subprocess.run([program], env=variables, capture_output=True, text=True, timeout=60)


def test_the_gateway_keeps_what_the_readme_promises(gateway: tuple[str, str]) -> None:
    url, key = gateway
    done = smoke("--route", "/orders", url, SMOKE_KEY=key)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_key_that_is_not_one_is_noticed(gateway: tuple[str, str]) -> None:
    url, key = gateway
    done = smoke("--route", "/orders", url, SMOKE_KEY=key[:-1] + ("a" if key[-1] != "a" else "b"))
    assert done.returncode == 1 and "with the key answers 200 (it answered 401)" in done.stdout


def test_the_load_asks_both_routes_as_often_as_it_was_told(gateway: tuple[str, str], program: Path) -> None:
    url, key = gateway
    done = load(program, LOAD_URL=url, LOAD_KEY=key, LOAD_ROUTE="/orders")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    routes = [(one["route"], one["credential"], one["requests"], one["failures"]) for one in told["routes"]]
    assert routes == [("/health", False, 50, 0), ("/orders", True, 50, 0)]
    assert key not in done.stdout + done.stderr
    assert "/orders, credential" in done.stderr


def test_the_load_fails_when_a_request_does(gateway: tuple[str, str], program: Path) -> None:
    done = load(program, LOAD_URL=gateway[0], LOAD_KEY="dh_live_x", LOAD_ROUTE="/orders")
    assert done.returncode == 1 and "50 of 50 requests failed: answered 401" in done.stderr
    assert json.loads(done.stdout)["faults"]


def test_the_load_fails_above_its_bar(program: Path) -> None:
    slow = Served()

    def late(_: str, given: tuple) -> tuple:
        time.sleep(0.05)
        return given

    slow.breaks = late
    done = load(program, LOAD_URL=f"http://{slow.authority}", LOAD_P99_MS="20", LOAD_REQUESTS="10", LOAD_RATE="10")
    slow.server.shutdown()
    assert done.returncode == 1 and "above 20.0ms" in done.stderr, done.stderr


def test_the_load_checks_the_certificate(tmp_path: Path, program: Path) -> None:
    served = Served(certificate(tmp_path, 30))
    url = f"https://{served.authority.replace('127.0.0.1', 'localhost')}"
    trusted = load(program, LOAD_URL=url, SSL_CERT_FILE=str(tmp_path / "cert.pem"))
    other = load(program, LOAD_URL=url)
    served.server.shutdown()
    assert trusted.returncode == 0, trusted.stderr
    assert other.returncode == 1 and "TLS with localhost" in other.stderr


@pytest.mark.parametrize(
    "env",
    [
        {"LOAD_URL": "http://example.com"},
        {"LOAD_URL": "http://127.0.0.1:9/path"},
        {"LOAD_URL": "http://127.0.0.1:9", "LOAD_RATE": "0"},
        {"LOAD_URL": "http://127.0.0.1:9", "LOAD_KEY": "a", "LOAD_TOKEN": "b"},
        {"LOAD_URL": "http://127.0.0.1:9", "LOAD_KEY": "a\nb"},
    ],
)
def test_settings_that_make_no_sense_ask_nobody(program: Path, env: dict[str, str]) -> None:
    done = load(program, **env)
    assert done.returncode == 1 and done.stdout == ""
    assert "refused" not in done.stderr and ("LOAD_" in done.stderr or "credential" in done.stderr)
