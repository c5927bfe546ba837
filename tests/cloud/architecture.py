"""The architecture of DataHub on AWS, figure by figure: where it says it, what it says, and what keeps it.

The document itself is not a part of this repository. Each `architecture_*.py` has the rows of some of its
sections; every row has a check over what ships, or names the line of infra/README.md that settles it otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from contract import RULES, networks
from contract.shipped import Place, Shipped

Check = Callable[[Shipped], bool]


@dataclass(frozen=True)
class Figure:
    """One figure. Without a check, or with one that differs, a line of infra/README.md says why."""

    where: str
    says: str
    check: Check | None = None
    # The bold name of a line in the table of infra/README.md, "Where the architecture contradicts itself".
    settled: str | None = None


FIGURES: list[Figure] = []


def section(where: str) -> Callable[..., None]:
    """Adds figures of one section of the document."""

    def add(says: str, check: Check | None = None, settled: str | None = None) -> None:
        assert check or settled, f"{where}: {says}: neither kept nor settled"
        FIGURES.append(Figure(where, says, check, settled))

    return add


def every(shipped: Shipped, kind: str, place: Place | None = None, **having: Any) -> list[dict[str, Any]]:
    """The resources of a type, resolved; in production's us-east-1 unless told otherwise."""
    found = (place or shipped.production).resources(kind).values()
    return [one for one in found if all(str(one.get(name)) == str(value) for name, value in having.items())]


def one(shipped: Shipped, kind: str, place: Place | None = None, **having: Any) -> dict[str, Any]:
    """The only one of them; empty if there is none or more."""
    found = every(shipped, kind, place, **having)
    return found[0] if len(found) == 1 else {}


def recovery(shipped: Shipped) -> Place:
    """us-west-2."""
    return shipped.place("production", "us-west-2")


def rule(name: str) -> Check:
    """Kept by a rule of `contract`."""
    assert name in RULES, name
    return lambda shipped: not list(RULES[name](shipped))


def subnet(tier: str, zone: str, block: str) -> Check:
    """A tier has this block in this zone."""

    def check(shipped: Shipped) -> bool:
        known = networks.subnets(shipped.production)
        found = {
            known[token]["AvailabilityZone"]: known[token]["CidrBlock"]
            for token in networks.tier(shipped.production, tier)
        }
        return found.get(f"us-east-1{zone}") == block

    return check


def hears(listener: str, speaker: str, port: int) -> Check:
    """A security group lets another in, on one port."""

    def check(shipped: Shipped) -> bool:
        place = shipped.production
        source = networks.identity(place, speaker)
        return (source, port, port) in networks.ingress(place, networks.identity(place, listener))

    return check


def reaches(speaker: str, port: int) -> Check:
    """A security group lets out to a port."""

    def check(shipped: Shipped) -> bool:
        place = shipped.production
        token = networks.identity(place, speaker).removesuffix(".GroupId>").strip("<>")
        group = place.resources("AWS::EC2::SecurityGroup").get(token, {})
        return any(
            int(rule["FromPort"]) <= port <= int(rule["ToPort"])
            for rule in group.get("SecurityGroupEgress", [])
        )

    return check
