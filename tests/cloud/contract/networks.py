"""Addresses, ways out, and who may speak to whom."""

import ipaddress
from collections.abc import Iterator
from itertools import combinations
from typing import Any

from contract.rule import rule, rule_about
from contract.shipped import Place, Shipped

TIERS = ("PublicSubnets", "AppSubnets", "DatabaseSubnets")
GROUP = "AWS::EC2::SecurityGroup"


def networks(shipped: Shipped) -> Iterator[Place]:
    """The places that have a network: all."""
    yield from (place for place in shipped.places if "network" in place.stacks)


def subnets(place: Place) -> dict[str, dict[str, Any]]:
    """The subnets by the token that others name them with."""
    return {f"<{key}>": subnet for key, subnet in place.resources("AWS::EC2::Subnet").items()}


def tier(place: Place, name: str) -> list[str]:
    """The tokens of a tier's subnets, zone by zone."""
    exported = place.export(f"datahub-{name}") or ""
    return exported.split(",") if isinstance(exported, str) else exported


@rule_about("AWS::EC2::VPC", "AWS::EC2::Subnet")
def subnets_lie_in_their_network_and_apart(shipped: Shipped) -> Iterator[str]:
    """Each within the VPC's block, and no two with an address in common."""
    for place in networks(shipped):
        blocks = {key: vpc["CidrBlock"] for key, vpc in place.resources("AWS::EC2::VPC").items()}
        parsed = {}
        for key, subnet in place.resources("AWS::EC2::Subnet").items():
            try:
                parsed[key] = ipaddress.ip_network(subnet["CidrBlock"])
                whole = ipaddress.ip_network(blocks[subnet["VpcId"].strip("<>")])
            except (KeyError, ValueError) as error:
                yield f"{place}: {key}: {error}"
                continue
            if not parsed[key].subnet_of(whole):
                yield f"{place}: {key}: {parsed[key]} is outside of {whole}"
        for (one, left), (other, right) in combinations(parsed.items(), 2):
            if left.overlaps(right):
                yield f"{place}: {one} {left} overlaps {other} {right}"


@rule
def regions_have_addresses_of_their_own(shipped: Shipped) -> Iterator[str]:
    """Two networks of one environment that overlap can never be joined."""
    for left, right in combinations(list(networks(shipped)), 2):
        if left.environment == right.environment and left.region != right.region:
            blocks = [
                next(iter(one.resources("AWS::EC2::VPC").values()))["CidrBlock"] for one in (left, right)
            ]
            if ipaddress.ip_network(blocks[0]).overlaps(ipaddress.ip_network(blocks[1])):
                yield f"{left} and {right} both use {blocks}"


@rule
def each_tier_has_a_subnet_in_three_zones(shipped: Shipped) -> Iterator[str]:
    """Public, application and database, in the order of the zones."""
    for place in networks(shipped):
        known = subnets(place)
        for name in TIERS:
            zones = [known.get(one, {}).get("AvailabilityZone") for one in tier(place, name)]
            if zones != [f"{place.region}{zone}" for zone in "abc"]:
                yield f"{place}: {name} are in {zones}"


@rule_about("AWS::EC2::NatGateway")
def only_public_subnets_face_the_internet(shipped: Shipped) -> Iterator[str]:
    """Applications go out through NAT (in production that of their own zone), databases not at all."""
    for place in networks(shipped):
        tables = {
            one["SubnetId"]: one["RouteTableId"]
            for one in place.resources("AWS::EC2::SubnetRouteTableAssociation").values()
        }
        routes: dict[str, list[dict[str, Any]]] = {}
        for route in place.resources("AWS::EC2::Route").values():
            routes.setdefault(route["RouteTableId"], []).append(route)
        known = subnets(place)
        nats = {f"<{key}>": nat["SubnetId"] for key, nat in place.resources("AWS::EC2::NatGateway").items()}
        for name in TIERS:
            for one in tier(place, name):
                out = [
                    r
                    for r in routes.get(tables.get(one, ""), [])
                    if r.get("DestinationCidrBlock") == "0.0.0.0/0"
                ]
                if name == "DatabaseSubnets":
                    if out or one not in tables:
                        yield f"{place}: {one} has a way to the internet"
                elif name == "PublicSubnets":
                    if len(out) != 1 or "GatewayId" not in out[0]:
                        yield f"{place}: {one} has no internet gateway"
                elif len(out) != 1 or out[0].get("NatGatewayId") not in nats:
                    yield f"{place}: {one} does not go out through NAT"
                else:
                    behind = known.get(nats[out[0]["NatGatewayId"]], {})
                    same = behind.get("AvailabilityZone") == known.get(one, {}).get("AvailabilityZone")
                    if not same and len(nats) > 1:
                        yield f"{place}: {one} goes out through the NAT gateway of another zone"
        for key, subnet in place.resources("AWS::EC2::Subnet").items():
            if str(subnet.get("MapPublicIpOnLaunch", False)).lower() == "true":
                yield f"{place}: {key} gives public addresses by itself"


def ingress(place: Place, group: str) -> set[tuple[str, int, int]]:
    """(from whom, first port, last port) for everything that may reach a group, inline or apart."""
    rules: list[dict[str, Any]] = []
    for key, properties in place.resources(GROUP).items():
        if group in (f"<{key}>", f"<{key}.GroupId>"):
            rules += properties.get("SecurityGroupIngress", [])
            names = {f"<{key}>", f"<{key}.GroupId>"}
            rules += [
                one
                for one in place.resources("AWS::EC2::SecurityGroupIngress").values()
                if one["GroupId"] in names
            ]
    return {(_source(one), int(one.get("FromPort", 0)), int(one.get("ToPort", 65535))) for one in rules}


def _source(one: dict[str, Any]) -> str:
    for word in ("SourceSecurityGroupId", "CidrIp", "CidrIpv6", "SourcePrefixListId"):
        if word in one:
            return one[word]
    return "?"


def identity(place: Place, export: str) -> str:
    """A security group as rules name it."""
    return str(place.export(f"datahub-{export}"))


@rule
def each_tier_hears_only_the_one_before_it(shipped: Shipped) -> Iterator[str]:
    """Internet, balancer, tasks, stores: each port from the neighbour, and from nobody else."""
    for place in networks(shipped):
        balancer, tasks = identity(place, "LoadBalancerSecurityGroup"), identity(place, "TaskSecurityGroup")
        wanted = {
            "TaskSecurityGroup": {(balancer, 3000, 3000)},
            "DatabaseSecurityGroup": {(tasks, 5432, 5432)},
            "CacheSecurityGroup": {(tasks, 6379, 6379)},
        }
        # The operator's port, where service.yaml is told for whom.
        operators = (
            place.stacks["service"].parameters.get("OperatorSecurityGroup")
            if "service" in place.stacks
            else ""
        )
        if operators:
            wanted["TaskSecurityGroup"].add((operators, 9901, 9901))
        for name, allowed in wanted.items():
            found = ingress(place, identity(place, name))
            if found != allowed:
                yield f"{place}: {name} hears {sorted(found)}, not {sorted(allowed)}"
        for source, first, last in sorted(ingress(place, balancer)):
            if (first, last) not in ((443, 443), (80, 80)):
                yield f"{place}: the balancer hears {first} to {last} from {source}"
        if not any(first == 443 for _, first, _ in ingress(place, balancer)):
            yield f"{place}: the balancer does not hear 443"
        for key in place.resources(GROUP):
            if f"<{key}.GroupId>" != balancer and f"<{key}>" != balancer:
                for source, first, last in sorted(ingress(place, f"<{key}>")):
                    if source in ("0.0.0.0/0", "::/0"):
                        yield f"{place}: {key} hears the internet on {first} to {last}"


@rule_about(
    "AWS::RDS::DBSubnetGroup", "AWS::ElastiCache::SubnetGroup", "AWS::ElasticLoadBalancingV2::LoadBalancer"
)
def stores_and_balancer_stand_in_their_tier(shipped: Shipped) -> Iterator[str]:
    """The balancer in public subnets, databases and caches in theirs, each with its security group."""
    for place in networks(shipped):
        for kind, name in (
            ("AWS::RDS::DBSubnetGroup", "DatabaseSubnets"),
            ("AWS::ElastiCache::SubnetGroup", "DatabaseSubnets"),
            ("AWS::ElasticLoadBalancingV2::LoadBalancer", "PublicSubnets"),
        ):
            for key, one in place.resources(kind).items():
                found = one.get("SubnetIds", one.get("Subnets", []))
                flat = found if isinstance(found, list) else found.split(",")
                stands = set(",".join(flat).split(","))
                if not stands <= set(tier(place, name)) or len(stands) < 2:
                    yield f"{place}: {key} stands in {flat}, not in two or three of {name}"
        for kind, word, name in (
            ("AWS::RDS::DBInstance", "VPCSecurityGroups", "DatabaseSecurityGroup"),
            ("AWS::ElastiCache::ReplicationGroup", "SecurityGroupIds", "CacheSecurityGroup"),
            ("AWS::ElasticLoadBalancingV2::LoadBalancer", "SecurityGroups", "LoadBalancerSecurityGroup"),
        ):
            for key, one in place.resources(kind).items():
                if one.get(word) != [place.export(f"datahub-{name}")]:
                    yield f"{place}: {key} has {one.get(word)}, not {name}"
