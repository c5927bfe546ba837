"""What a container of the image does: starts, answers, is looked at, ends."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import names
import pytest
from container import USER, Container

Make = Callable[..., Container]
# What a task is given, as the secrets of its definition.
SECRETS = {
    "DATABASE_URL": "postgres://gateway@db/gateway?sslmode=verify-full",
    "DATABASE_REPLICA_URL": "postgres://gateway@replica/gateway?sslmode=verify-full",
    "REDIS_URL": "rediss://redis:6379",
    "API_KEY_PEPPER": "0" * 64,
    "JWT_SECRET": "1" * 64,
    "ADMIN_TOKEN": "2" * 64,
}


def test_it_starts_answers_and_says_that_it_is_healthy(container: Make) -> None:
    with container(arguments=["run", "--demo"]) as gateway:
        took = gateway.wait_until_healthy()
        print(f"healthy after {took:.2f} s")
        assert gateway.run("/usr/local/bin/gateway", "healthcheck").returncode == 0
        listed = gateway.run("gateway", "keys", "list", "demo")
        assert listed.returncode == 0 and "demo" in listed.stdout, listed
        assert gateway.status("/") == 200
        assert gateway.status("/demo/orders") == 401
        key = re.search(r"\bdh_\w+", gateway.stdout)
        assert key, gateway.stdout
        assert gateway.status("/demo/orders", {"X-API-Key": key[0]}) == 200
        # Each request is a line of JSON.
        gateway.end()
        lines = [json.loads(line) for line in gateway.stdout.splitlines() if line.startswith("{")]
        assert [line["status"] for line in lines][-2:] == [401, 200]
        # Half a CPU, rounded up.
        assert '"workers":1' in gateway.stderr


def test_it_runs_as_nobody_with_no_rights(container: Make) -> None:
    with container() as gateway:
        gateway.wait_until_healthy()
        status = Path(f"/proc/{main_process(gateway)}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == [str(USER)] * 4
        assert fields["Gid"].split() == [str(USER)] * 4
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
        assert fields["NoNewPrivs"] == "1"
        assert fields["NSpid"].split()[-1] == "1"


def main_process(gateway: Container) -> int:
    """The process 1 of a container, as the machine numbers it."""
    state = json.loads((gateway.folder / "state" / gateway.name / "state.json").read_text())
    return state["init_process_pid"]


def test_without_a_volume_it_says_that_it_cannot_keep_anything(container: Make) -> None:
    with container(volume=False) as gateway:
        assert gateway.wait() != 0
        assert "data/api-key.pepper` cannot be written: Read-only file system" in gateway.stderr


def test_on_postgresql_it_needs_no_volume(container: Make, postgres: str) -> None:
    database = {"DATABASE_URL": postgres}
    how = {"arguments": ["migrate"], "environment": database, "volume": False}
    with container("migrate", **how) as migration:
        assert migration.wait() == 0, migration.stderr
    with container("gateway", environment=SECRETS | database, volume=False) as gateway:
        gateway.wait_until_healthy()
        assert gateway.status("/demo/orders", {"X-API-Key": "dh_live_nobody"}) == 401
        gateway.end()


def test_names_are_resolved_as_the_engine_says(container: Make, tmp_path: Path) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    with names.Server("gateway.test"), container(files={"/etc/resolv.conf": resolver}) as gateway:
        gateway.wait_until_healthy()
        ask = ["/usr/local/bin/gateway", "healthcheck", "--url"]
        known = gateway.run(*ask, "http://gateway.test:3000/health")
        assert known.returncode == 0, known.stderr
        unknown = gateway.run(*ask, "http://nobody.test:3000/health")
        assert unknown.returncode == 1 and "cannot be asked" in unknown.stderr


def test_an_idle_container_ends_with_its_announcement(container: Make) -> None:
    with container() as gateway:
        gateway.wait_until_healthy()
        gateway.signal("TERM")
        assert gateway.wait(15.0) == 0
        assert '"drained"' in gateway.stderr


def test_a_second_signal_ends_it_at_once(container: Make) -> None:
    with container() as gateway:
        gateway.wait_until_healthy()
        gateway.signal("TERM")
        gateway.signal("TERM")
        assert gateway.wait(5.0) == 1


def test_it_says_its_version(container: Make) -> None:
    with container(arguments=["--version"]) as gateway:
        assert gateway.wait() == 0
        assert gateway.stdout.startswith("gateway 0.")


def test_the_conf_inside_is_one_that_it_would_start_with(container: Make) -> None:
    with container(arguments=["check"]) as gateway:
        assert gateway.wait() == 0, gateway.stderr


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_so_is_the_conf_of_each_environment(container: Make, environment: str) -> None:
    conf = {"DATAHUB_CONF": f"/app/conf/environments/{environment}"}
    with container(arguments=["check"], environment=conf | SECRETS, volume=False) as gateway:
        assert gateway.wait() == 0, gateway.stderr
