"""Seconds of a drill as minutes of CloudWatch.

The gateway of the drill publishes every second, and the relay between it and the emulator writes another
date on what passes: second k becomes minute k of a calendar that lies in the last hours. So five minutes of
history take five seconds, gaps stay gaps, and nothing else of a batch is touched.
"""

import gzip
import http.client
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cbor2

# How many minutes before now the calendar begins; the drill ends well within them.
REACH = 180
NAMESPACE = "DataHub/Gateway"


class Calendar:
    """Which minute a second of the drill is."""

    def __init__(self) -> None:
        self._began = int(time.time())
        self._first = (self._began // 60 - REACH) * 60

    def minute_of(self, second: float) -> int:
        """The number of the minute that a second became."""
        return int(second) - self._began

    def now(self) -> int:
        """The minute that is not over yet."""
        return self.minute_of(time.time())

    def starts(self, minute: int) -> int:
        """When a minute begins, in seconds since 1970."""
        return self._first + 60 * minute

    def wait_for(self, minute: int) -> None:
        """Sleeps until the minute begins."""
        time.sleep(max(0.0, self._began + minute - time.time()))


Series = tuple[str, tuple[tuple[str, str], ...]]


class Relay:
    """Takes what the gateway publishes, re-dates it, and hands it to the emulator."""

    def __init__(self, emulator_port: int, calendar: Calendar) -> None:
        self._emulator_port = emulator_port
        self._calendar = calendar
        self._cut = threading.Event()
        self._lock = threading.Lock()
        # What passed: values with their counts, by series and minute.
        self.samples: dict[Series, dict[int, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
        self.batches: list[int] = []
        self.troubles: list[str] = []
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                relay._take(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Takes nothing any more."""
        self._server.shutdown()
        self._server.server_close()

    def cut(self) -> None:
        """From now on a connection is closed without an answer."""
        self._cut.set()

    def mend(self) -> None:
        """Everything passes again."""
        self._cut.clear()

    def _take(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", "0")))
        if self._cut.is_set():
            request.close_connection = True
            return
        try:
            status, kind, answer = self._pass_on(request, body)
        except Exception as error:  # noqa: BLE001: the drill reports it, whatever it is
            self.troubles.append(f"{type(error).__name__}: {error}")
            status, kind, answer = 500, "text/plain", b"the relay failed"
        if status != 200:
            self.troubles.append(f"{status}: {answer[:300]!r}")
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("smithy-protocol", "rpc-v2-cbor")
        request.send_header("Content-Length", str(len(answer)))
        request.end_headers()
        request.wfile.write(answer)

    def _pass_on(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, str, bytes]:
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        batch = cbor2.loads(body)
        minutes = [self._redate(datum) for datum in batch["MetricData"]]
        headers = {
            name: request.headers[name]
            for name in ("Content-Type", "Accept", "smithy-protocol", "Authorization", "X-Amz-Date")
            if name in request.headers
        }
        emulator = http.client.HTTPConnection("127.0.0.1", self._emulator_port, timeout=10)
        try:
            emulator.request("POST", request.path, cbor2.dumps(batch), headers)
            answer = emulator.getresponse()
            status, kind, text = answer.status, answer.getheader("Content-Type", ""), answer.read()
        finally:
            emulator.close()
        with self._lock:
            self.batches.append(max(minutes))
            for minute, datum in zip(minutes, batch["MetricData"]):
                self._remember(minute, datum)
        return status, kind, text

    def _redate(self, datum: dict[str, Any]) -> int:
        """Puts another date on a datum; the minute that it is of."""
        minute = self._calendar.minute_of(datum["Timestamp"].timestamp())
        # Tag 1: seconds since 1970, as the SDK writes it.
        datum["Timestamp"] = cbor2.CBORTag(1, self._calendar.starts(minute))
        return minute

    def _remember(self, minute: int, datum: dict[str, Any]) -> None:
        dimensions = tuple(sorted((pair["Name"], pair["Value"]) for pair in datum.get("Dimensions", [])))
        known = self.samples[datum["MetricName"], dimensions][minute]
        values = datum.get("Values") or [datum["Value"]]
        for value, count in zip(values, datum.get("Counts") or [1] * len(values)):
            known[float(value)] = known.get(float(value), 0) + float(count)
