"""The functions that data.yaml and recovery.yaml carry inline, run as they are shipped.

The code is taken out of the loaded template. Secrets Manager is the emulator's; RDS, ElastiCache, ECS and the
call from one function to the other are small stand-ins, since the emulator knows neither the strategy of a
token nor what waits to be changed. What only AWS can show stands in infra/README.md.
"""

import datetime as dt
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Callable, Iterator
from urllib.parse import unquote, urlsplit

import pytest

import secrets_account
import templates
from secrets_account import HOSTILE, HOSTS, URLS, Account, Context, begin, run


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    """Secrets Manager on a free port of this machine."""
    with secrets_account.emulator() as url:
        yield url


@pytest.fixture
def account(emulator: str, request: pytest.FixtureRequest) -> Account:
    return Account(emulator, f"{request.node.name[:40]}-{time.monotonic_ns()}")


@pytest.fixture
def compose(account: Account, monkeypatch: pytest.MonkeyPatch) -> Callable:
    return account.function("data", "ComposeFunction", monkeypatch)


@pytest.fixture
def answers() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Where CloudFormation waits for the answer of a custom resource, and what was put there."""
    got: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:  # noqa: N802
            body = self.rfile.read(int(self.headers["Content-Length"]))
            # S3 refuses a body whose type was not signed.
            got.append(json.loads(body) | {"type": self.headers["Content-Type"]})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/answer?signature=x", got
    server.shutdown()
    server.server_close()


def custom(kind: str, url: str) -> dict[str, Any]:
    """An event as CloudFormation sends it."""
    return {
        "RequestType": kind,
        "ResponseURL": url,
        "StackId": "arn:aws:cloudformation:us-east-1:111122223333:stack/datahub-data/1",
        "RequestId": "r-1",
        "LogicalResourceId": "ConnectionUrls",
        "ResourceType": "Custom::ConnectionUrls",
        "ResourceProperties": {"DatabaseHost": HOSTS["DATABASE_HOST"]},
    }


def test_any_password_comes_back_out_of_the_url(account: Account, compose: Callable) -> None:
    compose({}, Context())

    for name, host in (("DATABASE_URL", "DATABASE_HOST"), ("DATABASE_REPLICA_URL", "REPLICA_HOST")):
        url = account.value(name)
        # The gateway refuses a URL with a second `@`.
        assert url.count("@") == 1 and url.count("?") == 1 and url.isascii() and " " not in url
        parts = urlsplit(url)
        assert parts.scheme == "postgres"
        assert (unquote(parts.username), unquote(parts.password)) == ("data@hub", HOSTILE)
        assert (parts.hostname, parts.port, parts.path) == (HOSTS[host], 5432, "/datahub_prod")


def test_the_certificate_of_the_database_is_checked(account: Account, compose: Callable) -> None:
    compose({}, Context())

    assert urlsplit(account.value("DATABASE_URL")).query == "sslmode=verify-full"
    assert urlsplit(account.value("DATABASE_REPLICA_URL")).query == "sslmode=verify-full"


def test_redis_is_asked_with_tls_and_its_token(account: Account, compose: Callable) -> None:
    compose({}, Context())

    assert account.value("REDIS_URL") == f"rediss://:old%26token@{HOSTS['CACHE_HOST']}:6379"


def test_a_second_run_changes_nothing(account: Account, compose: Callable) -> None:
    compose({}, Context())
    first = [account.real.get_secret_value(SecretId=account.arns[name])["VersionId"] for name in URLS]
    compose({}, Context())

    assert [account.real.get_secret_value(SecretId=account.arns[n])["VersionId"] for n in URLS] == first
    assert len(account.ecs.asked) == 1


def test_what_was_written_over_by_hand_is_repaired(account: Account, compose: Callable) -> None:
    compose({}, Context())
    right = account.value("REDIS_URL")
    account.real.put_secret_value(SecretId=account.arns["REDIS_URL"], SecretString="redis://nowhere")
    compose({}, Context())

    assert account.value("REDIS_URL") == right


def test_tasks_older_than_the_urls_are_replaced(account: Account, compose: Callable) -> None:
    compose({}, Context())

    wanted = {"cluster": "datahub-cluster", "service": "datahub-gateway", "forceNewDeployment": True}
    assert account.ecs.asked == [wanted]


def test_tasks_that_could_not_be_replaced_are_replaced_by_the_next_run(
    account: Account, compose: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def throttled(**_: Any) -> dict:
        raise OSError("throttled")

    with monkeypatch.context() as broken:
        broken.setattr(account.ecs, "update_service", throttled)
        with pytest.raises(RuntimeError, match="OSError"):
            compose({}, Context())
    assert account.ecs.asked == []
    compose({}, Context())

    assert len(account.ecs.asked) == 1


def test_tasks_newer_than_the_urls_are_left_alone(account: Account, compose: Callable) -> None:
    account.ecs.begun = dt.datetime.now(dt.timezone.utc) + dt.timedelta(minutes=1)
    compose({}, Context())

    assert account.ecs.asked == []


@pytest.mark.parametrize("begun, status", [(None, "ACTIVE"), ("long ago", "INACTIVE")])
def test_without_a_service_the_urls_are_written_all_the_same(
    account: Account, compose: Callable, begun: str | None, status: str
) -> None:
    account.ecs.status = status
    if begun is None:
        account.ecs.begun = None
    compose({}, Context())

    assert account.value("DATABASE_URL") and account.ecs.asked == []


@pytest.mark.parametrize("kind", ["Create", "Update"])
def test_cloudformation_hears_that_the_urls_are_there(
    account: Account, compose: Callable, answers: tuple, kind: str
) -> None:
    url, got = answers
    compose(custom(kind, url), Context())

    assert account.value("DATABASE_URL")
    assert [one["Status"] for one in got] == ["SUCCESS"]
    assert got[0]["PhysicalResourceId"] and got[0]["type"] == ""
    assert {key: got[0][key] for key in ("StackId", "RequestId", "LogicalResourceId")} == {
        key: custom(kind, url)[key] for key in ("StackId", "RequestId", "LogicalResourceId")
    }


def test_cloudformation_hears_of_a_failure_and_no_secret(
    account: Account, compose: Callable, answers: tuple
) -> None:
    url, got = answers
    account.real.put_secret_value(SecretId=account.arns["DATABASE_SECRET"], SecretString="no json: s3cr3t")
    compose(custom("Create", url), Context())

    assert [one["Status"] for one in got] == ["FAILED"]
    assert got[0]["Reason"] == "JSONDecodeError"


def test_cloudformation_gets_an_answer_when_a_secret_is_missing(
    account: Account, compose: Callable, answers: tuple
) -> None:
    url, got = answers
    account.real.delete_secret(SecretId=account.arns["CACHE_SECRET"], ForceDeleteWithoutRecovery=True)
    compose(custom("Create", url), Context())

    assert [(one["Status"], one["Reason"]) for one in got] == [
        ("FAILED", "ResourceNotFoundException")
    ]


def test_a_stack_that_is_deleted_is_not_held_up(account: Account, compose: Callable, answers: tuple) -> None:
    url, got = answers
    account.real.delete_secret(SecretId=account.arns["DATABASE_SECRET"], ForceDeleteWithoutRecovery=True)
    compose(custom("Delete", url), Context())

    assert [one["Status"] for one in got] == ["SUCCESS"]
    assert account.ecs.asked == []


def test_the_same_id_stays_with_the_resource(account: Account, compose: Callable, answers: tuple) -> None:
    """Another one would make CloudFormation delete the first after an update."""
    url, got = answers
    for kind in ("Create", "Update", "Delete"):
        compose(custom(kind, url), Context())

    assert len({one["PhysicalResourceId"] for one in got}) == 1


def test_nothing_secret_is_printed(
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: tuple,
) -> None:
    secrets = [json.loads(account.value("DATABASE_SECRET"))["password"], account.value("CACHE_SECRET")]
    for name in ("DATABASE_SECRET", "CACHE_SECRET"):
        run(account.function("data", "RotateFunction", monkeypatch), begin(account, name))
        secrets.append(account.value(name))
    secrets[2] = json.loads(secrets[2])["password"]
    compose = account.function("data", "ComposeFunction", monkeypatch)
    compose({}, Context())
    compose(custom("Update", answers[0]), Context())
    secrets += [account.value(name) for name in URLS]

    printed = "".join(capsys.readouterr()) + json.dumps(answers[1])
    assert "written" in printed
    for secret in secrets:
        assert secret not in printed


def test_the_recovery_region_composes_by_the_same_code(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = {
        name: templates.resources(templates.load(name), "AWS::Lambda::Function")["ComposeFunction"]["Code"]
        for name in ("data", "recovery")
    }
    assert codes["data"] == codes["recovery"]
    # There is one database there, for both URLs.
    variables = templates.resources(templates.load("recovery"), "AWS::Lambda::Function")["ComposeFunction"][
        "Environment"
    ]["Variables"]
    assert variables["DATABASE_HOST"] == variables["REPLICA_HOST"]
    account.function("recovery", "ComposeFunction", monkeypatch)({}, Context())
    assert account.value("DATABASE_URL")


@pytest.mark.parametrize("template", ["data", "recovery"])
def test_functions_fit_into_a_template(template: str) -> None:
    for name, function in templates.resources(templates.load(template), "AWS::Lambda::Function").items():
        assert len(function["Code"]["ZipFile"]) <= 4096, name
        assert function["Runtime"].startswith("python3."), name
