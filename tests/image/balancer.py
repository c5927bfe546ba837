"""A client that behaves as an application load balancer does towards a target.

It keeps connections open and uses them again, until an answer says `Connection: close`; it does not send
a request a second time; it asks /health on a connection of its own each second, and a while after that
has failed it sends nothing new, but waits for every answer. (ECS deregisters a task at about the time it
sends SIGTERM; the health check stands for that.)

What it counts is strict: a request whose connection was reset, or closed before all of the answer was
there, or that got anything but its own answer with 200, is lost.
"""

import asyncio
import itertools
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import origin

# Seconds from one request to the next, for each kind, and how long one takes at most.
PACE = {"fast": (0.015, 0.0), "late": (0.3, 30.0), "slow": (0.6, 20.0), "upload": (0.6, 15.0)}
KEPT = 30
PATIENCE = 60.0


class Connection:
    """A connection to the target."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def exchange(self, path: str, upload: bytes | None, seconds: float) -> tuple[int, bytes, bool]:
        """Sends a request; status, body, and whether the connection may be used again."""
        method = "GET" if upload is None else "POST"
        head = f"{method} {path} HTTP/1.1\r\nHost: target\r\n"
        if upload is not None:
            head += f"Content-Length: {len(upload)}\r\n"
        self.writer.write(head.encode() + b"\r\n")
        if upload is not None:
            await self._upload(upload, seconds)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        body = await self.reader.readexactly(origin.length(answer))
        kept = b"connection: close" not in answer.lower()
        return int(answer.split(b" ", 2)[1]), body, kept

    async def _upload(self, body: bytes, seconds: float) -> None:
        size = -(-len(body) // origin.PIECES)
        for start in range(0, len(body), size):
            self.writer.write(body[start : start + size])
            await self.writer.drain()
            await asyncio.sleep(seconds / origin.PIECES)

    def close(self) -> None:
        """Ends it."""
        self.writer.close()


@dataclass
class Balancer:
    """The balancer, and what became of its requests."""

    port: int
    # Seconds from the first /health that failed to the last new request.
    lingers: float
    sent: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    reused: int = 0
    told_to_close: int = 0
    unhealthy: float | None = None
    last_sent: float = 0.0
    last_answered: float = 0.0

    def __post_init__(self) -> None:
        self._idle: list[Connection] = []
        self._random = random.Random(self.port)
        self._number = itertools.count()
        self._stopped = asyncio.Event()
        self._flying: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Sends until a while after /health has failed; returns when everything is answered."""
        await asyncio.gather(*(self._send("fast", 0.0) for _ in range(KEPT)))
        streams = [asyncio.create_task(self._stream(kind)) for kind in PACE]
        await self._watch()
        await asyncio.sleep(self.lingers)
        self._stopped.set()
        await asyncio.gather(*streams)
        while self._flying:
            await asyncio.gather(*self._flying)
        for connection in self._idle:
            connection.close()

    async def warm(self, seconds: float) -> None:
        """Waits until it has sent for so long."""
        while not self._flying:
            await asyncio.sleep(0.01)
        await asyncio.sleep(seconds)

    async def _watch(self) -> None:
        while True:
            connection = await self._open()
            try:
                status, _, _ = await connection.exchange("/health", None, 0.0)
            except (OSError, asyncio.IncompleteReadError):
                status = 0
            finally:
                connection.close()
            if status != 200:
                self.unhealthy = time.monotonic()
                return
            await asyncio.sleep(1.0)

    async def _stream(self, kind: str) -> None:
        pace, longest = PACE[kind]
        due = time.monotonic()
        while not self._stopped.is_set():
            seconds = round(self._random.uniform(0.0, longest), 3)
            task = asyncio.create_task(self._send(kind, seconds))
            self._flying.add(task)
            task.add_done_callback(self._flying.discard)
            due += pace
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _send(self, kind: str, seconds: float) -> None:
        path = f"/{kind}/{seconds}/{next(self._number)}"
        upload = self._random.randbytes(self._random.randint(1, 400_000)) if kind == "upload" else None
        expected = origin.text(path) if upload is None else origin.digest(upload)
        self.sent[kind] += 1
        self.last_sent = time.monotonic()
        try:
            connection = await self._connection()
            async with asyncio.timeout(PATIENCE):
                status, body, kept = await connection.exchange(path, upload, seconds)
        except (OSError, EOFError, TimeoutError) as error:
            self.lost.append(f"{path}: {error!r}")
            return
        if status != 200 or body != expected:
            self.lost.append(f"{path}: {status} {body[:200]!r}")
        self.answered[kind] += 1
        self.last_answered = time.monotonic()
        if kept and len(self._idle) < KEPT:
            self._idle.append(connection)
        else:
            self.told_to_close += not kept
            connection.close()

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop(self._random.randrange(len(self._idle)))
            # One that the target has closed is not used, as long as that is known here.
            if not connection.reader.at_eof():
                self.reused += 1
                return connection
            connection.close()
        return await self._open()

    async def _open(self) -> Connection:
        return Connection(*await asyncio.open_connection("127.0.0.1", self.port))
