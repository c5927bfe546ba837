"""Rotation: the function of data.yaml that changes the password of PostgreSQL and the token of Redis.

It is called as Secrets Manager calls it, step by step; see `test_secrets.py` for what stands in for AWS.
"""

import json
import time
from typing import Any, Callable, Iterator
from urllib.parse import urlsplit

import pytest

import secrets_account
from secrets_account import Account, Context, begin, run


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    """Secrets Manager on a free port of this machine."""
    with secrets_account.emulator() as url:
        yield url


@pytest.fixture
def account(emulator: str, request: pytest.FixtureRequest) -> Account:
    return Account(emulator, f"{request.node.name[:40]}-{time.monotonic_ns()}")


@pytest.fixture
def rotate(account: Account, monkeypatch: pytest.MonkeyPatch) -> Callable:
    return account.function("data", "RotateFunction", monkeypatch)


def test_a_password_is_rotated_in_four_steps(account: Account, rotate: Callable) -> None:
    before = account.value("DATABASE_SECRET")
    which = begin(account, "DATABASE_SECRET")

    run(rotate, which, "createSecret")
    pending = json.loads(account.value("DATABASE_SECRET", VersionStage="AWSPENDING"))
    assert pending["username"] == "data@hub"
    assert len(pending["password"]) == 64 and pending["password"].isalnum()
    assert account.value("DATABASE_SECRET") == before and account.server.told == []

    run(rotate, which, "setSecret")
    assert account.server.told == [
        {
            "DBInstanceIdentifier": "datahub",
            "MasterUserPassword": pending["password"],
            # Changes that wait for the maintenance window go on waiting.
            "ApplyImmediately": False,
        }
    ]
    assert account.value("DATABASE_SECRET") == before

    run(rotate, which, "testSecret", "finishSecret")
    assert json.loads(account.value("DATABASE_SECRET")) == pending
    assert account.value("DATABASE_SECRET", VersionStage="AWSPREVIOUS") == before


def test_the_token_of_redis_is_added_to_the_one_in_use(account: Account, rotate: Callable) -> None:
    run(rotate, begin(account, "CACHE_SECRET"))

    fresh = account.value("CACHE_SECRET")
    assert len(fresh) == 64 and fresh.isalnum()
    assert account.server.told == [
        {
            "ReplicationGroupId": "datahub",
            "AuthToken": fresh,
            "AuthTokenUpdateStrategy": "ROTATE",
            "ApplyImmediately": True,
        }
    ]


def test_the_urls_follow_a_rotation(
    account: Account, rotate: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(rotate, begin(account, "DATABASE_SECRET"))
    assert account.caller.calls == [
        {"FunctionName": "datahub-compose", "InvocationType": "Event", "Payload": b"{}"}
    ]
    account.function("data", "ComposeFunction", monkeypatch)(json.loads("{}"), Context())

    password = json.loads(account.value("DATABASE_SECRET"))["password"]
    assert urlsplit(account.value("DATABASE_URL")).password == password
    assert len(account.ecs.asked) == 1


@pytest.mark.parametrize("name", ["DATABASE_SECRET", "CACHE_SECRET"])
@pytest.mark.parametrize("step", ["createSecret", "setSecret", "testSecret", "finishSecret"])
def test_each_step_can_be_repeated(account: Account, rotate: Callable, name: str, step: str) -> None:
    which = begin(account, name)
    steps = ["createSecret", "setSecret", "testSecret", "finishSecret"]
    run(rotate, which, *steps[: steps.index(step) + 1])
    stages = account.real.describe_secret(SecretId=which["SecretId"])["VersionIdsToStages"]
    told, pending = list(account.server.told), account.value(name, VersionId=which["ClientRequestToken"])
    run(rotate, which, *steps[: steps.index(step) + 1])

    assert account.real.describe_secret(SecretId=which["SecretId"])["VersionIdsToStages"] == stages
    assert account.value(name, VersionId=which["ClientRequestToken"]) == pending
    # Redis keeps two tokens: told a second time of the new one, it would drop the one that tasks use.
    assert account.server.told == told
    assert len(account.caller.calls) == (1 if step == "finishSecret" else 0)


def test_a_rotation_after_a_rotation_moves_every_label(account: Account, rotate: Callable) -> None:
    first, second = begin(account, "CACHE_SECRET"), None
    run(rotate, first)
    second = begin(account, "CACHE_SECRET")
    run(rotate, second)

    assert [one["AuthToken"] for one in account.server.told] == [
        account.value("CACHE_SECRET", VersionStage="AWSPREVIOUS"),
        account.value("CACHE_SECRET"),
    ]


def test_the_test_waits_until_the_password_is_in_force(account: Account, rotate: Callable) -> None:
    which = begin(account, "DATABASE_SECRET")
    run(rotate, which, "createSecret", "setSecret")
    account.server.looks_until_done = 3
    run(rotate, which, "testSecret")

    assert account.server.looks_until_done < 0


@pytest.mark.parametrize("name", ["DATABASE_SECRET", "CACHE_SECRET"])
def test_turning_rotation_on_changes_nothing(account: Account, rotate: Callable, name: str) -> None:
    """With RotateImmediatelyOnUpdate off, Secrets Manager calls the third step alone, to see that it works."""
    before = account.value(name)
    run(rotate, begin(account, name), "testSecret")

    assert account.value(name) == before
    assert account.server.told == [] and account.caller.calls == []


@pytest.mark.parametrize("name", ["DATABASE_SECRET", "CACHE_SECRET"])
@pytest.mark.parametrize("trouble", ["pending", "status"])
def test_what_does_not_come_into_force_fails_before_the_time_is_up(
    account: Account, rotate: Callable, name: str, trouble: str
) -> None:
    before, which = account.value(name), begin(account, name)
    run(rotate, which, "createSecret", "setSecret")
    if trouble == "pending":
        account.server.looks_until_done = 1_000_000
    else:
        account.server.status = "modifying"
    context = Context(120_000)
    with pytest.raises(TimeoutError):
        run(rotate, which, "testSecret", context=context)

    assert context.left > 0
    assert account.value(name) == before and account.caller.calls == []


def test_a_change_that_is_refused_leaves_what_is_in_force(
    account: Account, rotate: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, which = account.value("DATABASE_SECRET"), begin(account, "DATABASE_SECRET")

    def refused(**_: Any) -> dict:
        raise RuntimeError("InvalidDBInstanceState")

    with monkeypatch.context() as broken:
        broken.setattr(account.server, "modify_db_instance", refused)
        run(rotate, which, "createSecret")
        with pytest.raises(RuntimeError):
            run(rotate, which, "setSecret")
    assert account.value("DATABASE_SECRET") == before
    run(rotate, which)

    assert len(account.server.told) == 1


def test_only_its_own_secrets_are_rotated(account: Account, rotate: Callable) -> None:
    with pytest.raises(ValueError, match="not a secret of this function"):
        run(rotate, begin(account, "REDIS_URL"), "createSecret")


def test_a_version_that_is_not_pending_is_refused(account: Account, rotate: Callable) -> None:
    stray = {"SecretId": account.arns["CACHE_SECRET"], "ClientRequestToken": "0" * 32}
    with pytest.raises(ValueError, match="not the version"):
        run(rotate, stray, "setSecret")
    assert account.server.told == []


def test_an_unknown_step_is_refused(account: Account, rotate: Callable) -> None:
    with pytest.raises(ValueError, match="not a step"):
        run(rotate, begin(account, "CACHE_SECRET"), "eraseSecret")
