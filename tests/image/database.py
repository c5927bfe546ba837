"""A PostgreSQL server for a container to use, in the network of the tests."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

PORT = 5432


class Server:
    """It runs inside of `with`, as the user `postgres`, since it refuses to run as root."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="gateway-image-pg-")
        self._data = Path(self._folder.name) / "data"
        # Debian keeps the programs of the server out of the PATH.
        self._programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda bin: int(bin.parent.name))
        shutil.chown(self._folder.name, "postgres")

    @property
    def url(self) -> str:
        """Where a gateway finds its database."""
        return f"postgres://postgres@127.0.0.1:{PORT}/postgres?sslmode=disable"

    def __enter__(self) -> "Server":
        self._run("initdb", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-U", "postgres")
        options = f"-h 127.0.0.1 -p {PORT} -k '' -F"
        self._run("pg_ctl", "--wait", "--silent", f"--log={self._data}/log", f"--options={options}", "start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run("pg_ctl", "--wait", "--silent", "--mode=immediate", "stop")
        self._folder.cleanup()

    def _run(self, program: str, *arguments: str) -> None:
        line = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        line += [str(self._programs / program), f"--pgdata={self._data}", *arguments]
        subprocess.run(line, cwd="/", stdout=subprocess.DEVNULL, check=True)
