"""What the gateway of the drill leans on: PostgreSQL, Redis, and upstreams that can misbehave.

All are real, on free ports of loopback. PostgreSQL refuses to run as root and then runs as `postgres`.
Nothing outlives the process: the kernel ends what it started.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from emulator import PATIENCE, free_port

OWNER = "gateway"
DATABASE = "gateway"
# Connections: a question that waits for a lock keeps its own until PostgreSQL gives up (lock_timeout, 4 s),
# while the gateway has long made another one; so a locked table needs many.
CONFIGURATION = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
fsync = off
shared_buffers = 32MB
max_connections = 400
autovacuum = off
log_min_messages = warning
restore_command = 'false'
"""


def programs() -> str:
    """Where PostgreSQL's programs are: Debian keeps them apart."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return ":".join([*(str(path.parent) for path in found[-1:]), os.environ["PATH"]])


class Postgres:
    """A primary."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="gateway-drill-pg-"))
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._held: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        initdb = ["initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        self._run([*initdb, "--locale=C", "--no-sync", "--no-instructions"])
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.write(CONFIGURATION.format(port=self.port, folder=self.folder))
        self._start()
        self.sql(f"CREATE ROLE {OWNER} LOGIN", "postgres")
        self.sql(f"CREATE DATABASE {DATABASE} OWNER {OWNER}", "postgres")

    @property
    def url(self) -> str:
        """What the gateway connects to."""
        return f"postgres://{OWNER}@127.0.0.1:{self.port}/{DATABASE}"

    def sql(self, text: str, database: str = DATABASE) -> str:
        """What a statement answers."""
        command = [*self._psql(database), "-c", text]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, timeout=30)
        if done.returncode:
            raise RuntimeError(f"{text}: {done.stderr}")
        return done.stdout.strip()

    def begin(self, text: str) -> None:
        """Runs statements in a transaction that stays open."""
        self._held = subprocess.Popen(
            self._psql(DATABASE), env=self._environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._held.stdin and self._held.stdout
        self._held.stdin.write(f"BEGIN;\n{text};\nSELECT 'held';\n".encode())
        self._held.stdin.flush()
        while line := self._held.stdout.readline():
            if line.strip() == b"held":
                return
        raise RuntimeError(f"{text}: refused")

    def end(self, how: str) -> None:
        """Ends that transaction, by COMMIT or ROLLBACK."""
        assert self._held
        self._held.communicate(f"{how};\n".encode(), timeout=10)
        self._held = None

    def go_on_from_another_history(self) -> None:
        """What a restored backup does, and a promotion: recovery ends, and a new timeline begins."""
        self._stop()
        (self._data / "recovery.signal").touch()
        if os.geteuid() == 0:
            shutil.chown(self._data / "recovery.signal", "postgres")
        self._start()

    def close(self) -> None:
        """Ends it and removes its folder."""
        if self._held:
            self._held.kill()
            self._held.communicate()
        if self._process:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
        shutil.rmtree(self.folder)

    def _start(self) -> None:
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            self._as_server(["postgres", "-D", str(self._data)]),
            env=self._environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()
        until = time.monotonic() + PATIENCE
        asked = ["pg_isready", "-q", "-h", str(self.folder), "-p", str(self.port)]
        while subprocess.run(asked, env=self._environment(), check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL does not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.02)

    def _stop(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGINT)  # Without waiting for clients.
        self._process.wait(timeout=PATIENCE)

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            self._as_server(command), env=self._environment(), cwd="/", capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr}")

    def _as_server(self, command: list[str]) -> list[str]:
        user = ["--reuid", "postgres", "--regid", "postgres", "--clear-groups"] if os.geteuid() == 0 else []
        return ["setpriv", "--pdeathsig", "QUIT", *user, *command]

    def _psql(self, database: str) -> list[str]:
        options = ["-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h", str(self.folder)]
        return ["psql", *options, "-p", str(self.port), "-d", database]

    def _environment(self) -> dict[str, str]:
        return {"PATH": programs(), "LC_ALL": "C"}


class Redis:
    """A single server."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes]
        self.start()

    @property
    def url(self) -> str:
        """What the gateway connects to."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it, empty, at its old address."""
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "redis-server", *options],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        """Ends it, as if its machine were gone but for the answer that nobody listens."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Ends it."""
        self.stop()


class Upstream:
    """Answers at once with 200, unless told to fail or to be slow."""

    def __init__(self) -> None:
        self.fails = False
        self.delay = 0.0
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # Head and body in one packet.

            def do_GET(self) -> None:
                time.sleep(upstream.delay)
                body = b"trouble" if upstream.fails else b"well"
                self.send_response(500 if upstream.fails else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Takes no connection any more."""
        self._server.shutdown()
        self._server.server_close()
