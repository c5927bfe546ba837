"""Mistakes planted in what ships, one at a time: each is caught by its rule, and every rule catches one."""

import mistakes_data  # noqa: F401  (fills the list)
import mistakes_known
import mistakes_listening  # noqa: F401
import mistakes_names  # noqa: F401
import mistakes_service  # noqa: F401
import mistakes_watch  # noqa: F401
import pytest
from contract import RULES
from contract.shipped import Shipped
from mistakes import MISTAKES, Mistake


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_planted_mistake_is_caught(shipped: Shipped, mistake: Mistake) -> None:
    before = set(RULES[mistake.caught_by](shipped))
    spoiled = shipped.copy()
    mistake.plant(spoiled)

    found = set(RULES[mistake.caught_by](spoiled)) - before

    assert found, f"{mistake.caught_by} does not see that {mistake.name}"


def test_the_known_list_has_23() -> None:
    known = [mistake for mistake in MISTAKES if mistake.plant.__module__ == mistakes_known.__name__]
    assert len(known) == 23


def test_every_rule_catches_a_planted_mistake() -> None:
    caught_by = {mistake.caught_by for mistake in MISTAKES}
    assert caught_by == set(RULES), "a rule that never catches anything may not work at all"
