"""What stands behind the gateway: answers at once, late, slowly, and about what was uploaded.

Every answer repeats what was asked, so that a client can tell that it got its own, and all of it.
"""

import asyncio
import hashlib
from types import TracebackType

PIECES = 20


def text(path: str) -> bytes:
    """The body for a path: its name, up to a kilobyte."""
    return (path.encode() + b" ").ljust(1024, b".")


class Origin:
    """A server on a free port of the loopback; it serves inside of `async with`."""

    port: int

    async def __aenter__(self) -> "Origin":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._answer(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            # The gateway has closed a connection that it needs no more, or the test is over.
            pass
        finally:
            writer.close()

    async def _answer(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        path = head.split(b" ", 2)[1].decode()
        _, kind, seconds, *_ = path.split("/")
        if kind == "upload":
            body = digest(await reader.readexactly(length(head)))
        else:
            body = text(path)
        if kind == "late":
            await asyncio.sleep(float(seconds))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        pieces = PIECES if kind == "slow" else 1
        size = -(-len(body) // pieces)
        for start in range(0, len(body), size):
            writer.write(body[start : start + size])
            await writer.drain()
            if pieces > 1:
                await asyncio.sleep(float(seconds) / pieces)


def digest(body: bytes) -> bytes:
    """What is answered to an upload."""
    return hashlib.sha256(body).hexdigest().encode()


def length(head: bytes) -> int:
    """The length that a head names."""
    for line in head.decode("latin-1").lower().split("\r\n"):
        name, _, value = line.partition(":")
        if name == "content-length":
            return int(value)
    return 0
