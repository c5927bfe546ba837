"""A name server that knows one name: 127.0.0.1. It stands where an engine's resolv.conf points."""

import socket
import struct
import threading
from types import TracebackType

ADDRESS, IN = 1, 1
ANSWERED, UNKNOWN = 0x8180, 0x8183


class Server:
    """Answers on port 53 of the loopback, inside of `with`."""

    def __init__(self, name: str) -> None:
        labels = [bytes([len(label)]) + label.encode() for label in name.split(".")]
        self._name = b"".join(labels) + b"\0"

    def __enter__(self) -> "Server":
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 53))
        self._socket.settimeout(0.1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                question, client = self._socket.recvfrom(512)
            except TimeoutError:
                continue
            self._socket.sendto(self._answer(question), client)

    def _answer(self, packet: bytes) -> bytes:
        end = packet.index(b"\0", 12) + 5
        question = packet[12:end]
        kind = struct.unpack("!H", question[-4:-2])[0]
        known = question[:-4].lower() == self._name
        found = known and kind == ADDRESS
        head = struct.pack("!2sHHHHH", packet[:2], ANSWERED if known else UNKNOWN, 1, found, 0, 0)
        record = struct.pack("!HHHIH4s", 0xC00C, ADDRESS, IN, 60, 4, bytes([127, 0, 0, 1]))
        return head + question + (record if found else b"")
