"""What must be true of the templates together, and of them and the gateway: one test for each rule."""

import pytest
from contract import RULES
from contract.shipped import Shipped


@pytest.mark.parametrize("name", RULES)
def test_what_ships_keeps_the_rule(shipped: Shipped, name: str) -> None:
    findings = list(RULES[name](shipped))
    assert not findings, "\n".join([(RULES[name].__doc__ or name).strip(), *findings])
