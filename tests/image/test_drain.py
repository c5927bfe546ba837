"""SIGTERM loses no request, with a client that behaves as a load balancer does.

Containers side by side, each with a balancer of its own that stops sending at another moment: from at
once to nine seconds after it has seen /health fail, so at most ten after it did. Requests that
take up to 30 s and uploads are in flight all the time, so that some come in just before the end.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from balancer import Balancer
from container import Container
from origin import Origin

Make = Callable[..., Container]
LINGERS = [8.9, 6.0, 3.0, 0.0]
ROUNDS = 5 if os.environ.get("GATEWAY_SOAK") == "1" else 1
# What conf/ says of the drain, by default.
ANNOUNCE, DEADLINE = 10.0, 50.0
CONF = """
workers = 1
[listeners.public]
address = "127.0.0.1:{port}"
[admin]
address = "off"
[upstreams.origin]
endpoints = ["127.0.0.1:{origin}"]
timeouts = {{ connect = "2s", per_try = "40s", total = "45s" }}
[routes.all]
path = "/*"
auth = "none"
upstream = "origin"
"""


@dataclass
class Ended:
    """One container's end."""

    balancer: Balancer
    code: int
    terminated: float
    took: float
    stderr: str


async def end(gateway: Container, lingers: float) -> Ended:
    """Ends a container under load."""
    gateway.wait_until_healthy()
    balancer = Balancer(gateway.port, lingers)
    running = asyncio.create_task(balancer.run())
    # Somewhere between two health checks.
    await balancer.warm(random.uniform(5.0, 6.0))
    gateway.signal("TERM")
    terminated = time.monotonic()
    code = await asyncio.to_thread(gateway.wait, DEADLINE + 10)
    took = time.monotonic() - terminated
    await running
    return Ended(balancer, code, terminated, took, gateway.stderr)


async def end_all(make: Make, folder: Path) -> list[Ended]:
    """Ends one container for each balancer, at the same time."""
    async with Origin() as origin:
        ends = []
        for number, lingers in enumerate(LINGERS):
            port = 3001 + number
            conf = folder / f"conf-{port}"
            conf.mkdir()
            (conf / "gateway.toml").write_text(CONF.format(port=port, origin=origin.port))
            gateway = make(f"lingers-{lingers}", files={"/app/conf": conf}, port=port)
            ends.append((gateway, lingers))
        return await asyncio.gather(*(within(gateway, lingers) for gateway, lingers in ends))


async def within(gateway: Container, lingers: float) -> Ended:
    """The life of one container."""
    with gateway:
        return await end(gateway, lingers)


def test_sigterm_loses_no_request_of_a_load_balancer(container: Make, tmp_path: Path) -> None:
    for turn in range(ROUNDS):
        folder = tmp_path / str(turn)
        folder.mkdir()

        def make(name: str, **how: object) -> Container:
            return container(f"{turn}-{name}", **how)

        for ended in asyncio.run(end_all(make, folder)):
            expect_lossless(ended)


def expect_lossless(ended: Ended) -> None:
    """Everything was answered, the balancer was told to go, and the end came with the last answer."""
    balancer = ended.balancer
    sent, answered = sum(balancer.sent.values()), sum(balancer.answered.values())
    assert balancer.unhealthy is not None
    late = balancer.last_sent - ended.terminated
    print(
        f"lingers {balancer.lingers} s: {sent} sent ({dict(balancer.sent)}), {answered} answered, "
        f"{len(balancer.lost)} lost; {balancer.reused} over kept connections, {balancer.told_to_close} "
        f"told to close; /health seen failing after {balancer.unhealthy - ended.terminated:.1f} s, last "
        f"sent after {late:.1f} s, ended after {ended.took:.1f} s with {ended.code}"
    )
    assert balancer.lost == []
    assert sent == answered
    assert ended.code == 0, ended.stderr
    assert balancer.unhealthy - ended.terminated < 2.0
    assert balancer.reused > 0 and balancer.told_to_close > 0
    last = balancer.last_answered - ended.terminated
    assert max(last, ANNOUNCE) - 1.0 < ended.took < max(last, ANNOUNCE) + 3.0
    assert ended.took < DEADLINE
