"""What the tests of infra/ share: everything that ships, read once."""

import pytest
from contract.shipped import Shipped


@pytest.fixture(scope="session")
def shipped() -> Shipped:
    """The templates and all that must agree with them, as they lie in the checkout."""
    return Shipped.load()
