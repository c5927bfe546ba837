"""A rule: a function that yields one line for each thing that is wrong, and nothing where all is well."""

from collections.abc import Callable, Iterator
from functools import wraps

from contract.shipped import Shipped

Rule = Callable[[Shipped], Iterator[str]]

# All rules by name; a name is a sentence about what is right.
RULES: dict[str, Rule] = {}


def rule(check: Rule) -> Rule:
    """Makes a function one of the rules."""
    assert check.__name__ not in RULES, f"two rules are called {check.__name__}"
    RULES[check.__name__] = check
    return check


def rule_about(*kinds: str) -> Callable[[Rule], Rule]:
    """A rule about resources of these types. Where production has none, it is not kept but empty."""

    def make(check: Rule) -> Rule:
        @wraps(check)
        def checked(shipped: Shipped) -> Iterator[str]:
            for kind in kinds:
                if not shipped.production.resources(kind):
                    yield f"{shipped.production}: there is no {kind}"
            yield from check(shipped)

        return rule(checked)

    return make
