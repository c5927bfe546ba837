"""The recovery region is made like the first: what is written twice is the same twice."""

from collections.abc import Iterator
from typing import Any

from contract.protection import CACHE, DATABASE
from contract.rule import rule, rule_about
from contract.shipped import Shipped

GROUP = "AWS::RDS::DBParameterGroup"
CACHE_GROUP = "AWS::ElastiCache::ParameterGroup"
ACL = "AWS::WAFv2::WebACL"


def _first(resources: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return next(iter(resources.values()), {})


@rule_about(DATABASE, CACHE)
def the_recovery_region_is_made_like_the_first(shipped: Shipped) -> Iterator[str]:
    """Parameters of PostgreSQL and Redis, class of the database, shape of the cluster, connections."""
    here, there = shipped.production, shipped.place("production", "us-west-2")
    pairs = {
        "parameters of PostgreSQL": [
            _first(place.resources(GROUP)).get("Parameters") for place in (here, there)
        ],
        "family of PostgreSQL": [_first(place.resources(GROUP)).get("Family") for place in (here, there)],
        "parameters of Redis": [
            _first(place.resources(CACHE_GROUP)).get("Properties") for place in (here, there)
        ],
        "max_connections": [place.export("datahub-MaxConnections") for place in (here, there)],
    }
    for word in ("DBInstanceClass", "StorageType", "CACertificateIdentifier", "PreferredMaintenanceWindow"):
        pairs[word] = [_first(place.resources(DATABASE)).get(word) for place in (here, there)]
    for word in ("Engine", "EngineVersion", "NumNodeGroups", "ReplicasPerNodeGroup"):
        pairs[word] = [str(_first(place.resources(CACHE)).get(word)) for place in (here, there)]
    for what, (left, right) in pairs.items():
        if left != right or left is None:
            yield f"{what}: {left} in us-east-1, {right} in us-west-2"


@rule
def the_recovery_region_is_configured_like_the_first(shipped: Shipped) -> Iterator[str]:
    """Limits, keys and routes are the same; only the endpoints are others."""
    for table in sorted({*shipped.conf["production"], *shipped.conf.get("recovery", {})} - {"upstreams"}):
        if shipped.conf["production"].get(table) != shipped.conf.get("recovery", {}).get(table):
            yield f"conf/environments: [{table}] of recovery is not that of production"
    names = [
        sorted(shipped.conf.get(folder, {}).get("upstreams", {})) for folder in ("production", "recovery")
    ]
    if names[0] != names[1]:
        yield f"conf/environments: upstreams {names[0]} in production, {names[1]} in recovery"


@rule_about(ACL)
def every_door_has_the_same_firewall(shipped: Shipped) -> Iterator[str]:
    """The rules of the balancers' lists in both regions, and those for CloudFront, which is off by default."""
    here, there = shipped.production, shipped.place("production", "us-west-2")
    regional = [one for one in here.resources(ACL).values() if one.get("Scope") == "REGIONAL"]
    others = [("us-west-2", one) for one in there.resources(ACL).values()]
    for key, one in shipped.templates["edge"]["Resources"].items():
        if one["Type"] == ACL and one["Properties"]["Scope"] == "CLOUDFRONT":
            others.append((key, one["Properties"]))
    if len(regional) != 1 or not others:
        yield f"{len(regional)} lists in us-east-1, {len(others)} others"
        return
    for where, other in others:
        if _rules(regional[0]) != _rules(other):
            yield f"the firewall of {where} has other rules than that of us-east-1"


def _rules(acl: dict[str, Any]) -> list[str]:
    """The rules, without what is a parameter in one of them and its value in the other."""
    found = []
    for one in acl.get("Rules", []):
        group = one["Statement"].get("ManagedRuleGroupStatement", {})
        kind = group.get("Name") or next(iter(one["Statement"]))
        found.append(f"{one['Name']} {kind} {group.get('RuleActionOverrides')} {one.get('OverrideAction')}")
    return found
