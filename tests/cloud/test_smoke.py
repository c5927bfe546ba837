"""infra/smoke, run against a server that breaks one promise at a time. test_served.py has the real gateway."""

import http.server
import json
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SMOKE = Path(__file__).resolve().parents[2] / "infra" / "smoke"
KEY = "dh_live_a-key"
Answer = tuple[int, dict[str, str], str]


def answer(path: str, key: str | None) -> Answer:
    """What a gateway that keeps every promise answers."""
    if path == "/health":
        return 200, {}, "ok"
    if key != KEY:
        body = {"status": 401, "code": "no_credential", "request_id": "0af7"}
        head = {
            "Content-Type": "application/problem+json",
            "WWW-Authenticate": "ApiKey",
            "X-Request-Id": "0af7",
        }
        return 401, head, json.dumps(body)
    return 200, {"RateLimit": '"burst";r=2', "RateLimit-Policy": '"burst";q=3'}, "{}"


class Served:
    """A server on loopback. `breaks` may change each answer."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.breaks: Callable[[str, Answer], Answer] = lambda _, given: given
        self.asked: list[str] = []
        outer = self

        class Gateway(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                given = answer(self.path, self.headers.get("X-API-Key"))
                status, head, body = outer.breaks(self.path, given)
                self.send_response(status)
                for name, value in {**head, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.authority = f"127.0.0.1:{self.server.server_port}"


@pytest.fixture
def served() -> Iterator[Served]:
    """A good one."""
    one = Served()
    yield one
    one.server.shutdown()


def smoke(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`infra/smoke WORDS`."""
    variables = {"PATH": os.environ["PATH"], **env}
    return subprocess.run([SMOKE, *words], env=variables, capture_output=True, text=True, timeout=60)


def test_a_gateway_that_keeps_its_promises_passes(served: Served) -> None:
    done = smoke(f"http://{served.authority}", SMOKE_KEY=KEY)
    assert done.returncode == 0, done.stdout
    assert "FAILED" not in done.stdout and "NOT CHECKED" not in done.stdout
    assert KEY not in done.stdout + done.stderr


def test_without_a_key_it_says_what_was_not_checked(served: Served) -> None:
    done = smoke("--route", "/orders", f"http://{served.authority}/")
    assert done.returncode == 0 and "NOT CHECKED" in done.stdout
    assert served.asked == ["/health", "/orders"]


BROKEN: dict[str, Callable[[str, Answer], Answer]] = {
    "GET /health answers 200": lambda path, given: (503, *given[1:]) if path == "/health" else given,
    "without a key answers 401": lambda _, given: (403, *given[1:]) if given[0] == 401 else given,
    "with WWW-Authenticate": lambda _, given: without(given, "WWW-Authenticate"),
    "with a problem document": lambda _, given: without(given, "Content-Type"),
    "that has the request_id": lambda _, given: without(given, "X-Request-Id"),
    "and a code": lambda _, given: (*given[:2], given[2].replace("code", "kode")),
    "with the key answers 200": lambda path, given: (502, *given[1:]) if path != "/health" and given[0] == 200 else given,
    "with RateLimit": lambda _, given: without(given, "RateLimit"),
    "with RateLimit-Policy": lambda _, given: without(given, "RateLimit-Policy"),
}


def without(given: Answer, name: str) -> Answer:
    """The answer without a header field."""
    return given[0], {key: value for key, value in given[1].items() if key != name}, given[2]


@pytest.mark.parametrize("promise", BROKEN)
def test_a_promise_that_is_broken_is_named_and_no_other(served: Served, promise: str) -> None:
    served.breaks = BROKEN[promise]
    done = smoke(f"http://{served.authority}", SMOKE_KEY=KEY)
    assert done.returncode == 1
    [failed] = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert promise in failed


def test_a_body_that_is_not_json_is_a_failure_and_not_a_crash(served: Served) -> None:
    served.breaks = lambda _, given: (*given[:2], "<html>") if given[0] == 401 else given
    done = smoke(f"http://{served.authority}")
    assert done.returncode == 1 and "smoke: 2 checks failed" in done.stderr


def test_a_gateway_that_needs_a_moment_is_waited_for(served: Served) -> None:
    served.breaks = lambda path, given: (503, *given[1:]) if len(served.asked) < 3 else given
    assert smoke("--wait", "20", f"http://{served.authority}", SMOKE_KEY=KEY).returncode == 0


def test_nobody_there_is_a_failure(served: Served) -> None:
    served.server.shutdown()
    served.server.server_close()
    done = smoke(f"http://{served.authority}")
    assert done.returncode == 1 and "curl: (7)" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "usage:"),
        (["http://example.com"], "neither https nor on this machine"),
        (["example.com"], "neither https nor on this machine"),
        (["https://a.example", "https://b.example"], "wants one URL, not 2"),
        (["--route", "orders", "https://a.example"], "begins with /, not `orders`"),
        (["https://a.example", "--wait", "soon"], "whole seconds, not `soon`"),
        (["--wait"], "--wait needs a value"),
        (["-x"], "unknown option `-x`"),
    ],
)
def test_words_that_make_no_sense_ask_nobody_and_are_told_why(words: list[str], said: str) -> None:
    done = smoke(*words)
    assert done.returncode == 2 and said in done.stderr and done.stdout == ""


def test_a_tool_that_is_missing_is_named(tmp_path: Path) -> None:
    for name in ("bash", "curl", "openssl"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    done = smoke("https://a.example", PATH=str(tmp_path))
    assert done.returncode == 2 and "jq is missing" in done.stderr


def certificate(folder: Path, days: int) -> ssl.SSLContext:
    """TLS with a certificate of our own that lasts so long."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", str(days)]
        # Believed as itself and not as an authority, which some clients do not take for a server.
        + ["-addext", "basicConstraints=critical,CA:FALSE"]
        + ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True,
        capture_output=True,
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return tls


@pytest.mark.parametrize(
    ("days", "trusted", "host", "said"),
    [
        (90, True, "localhost", None),
        (90, False, "localhost", "GET /health answers 200"),
        (90, True, "127.0.0.1", "GET /health answers 200"),
        (7, True, "localhost", "the certificate lasts 14 days more"),
    ],
)
def test_the_certificate_must_be_valid_for_the_name_and_for_a_while(
    tmp_path: Path, days: int, trusted: bool, host: str, said: str | None
) -> None:
    served = Served(certificate(tmp_path, days))
    env = {"CURL_CA_BUNDLE": str(tmp_path / "cert.pem")} if trusted else {}
    done = smoke(f"https://{served.authority.replace('127.0.0.1', host)}", SMOKE_KEY=KEY, **env)
    served.server.shutdown()
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert (done.returncode == 0) is (said is None), done.stdout + done.stderr
    assert all(said in line for line in failed) if said else not failed
