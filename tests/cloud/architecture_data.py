"""Figures of "RDS Configuration" and "ElastiCache Redis Configuration"."""

from typing import Any

from architecture import every, one, rule, section
from contract.protection import CACHE, DATABASE, true
from contract.shipped import Shipped


def primary(s: Shipped) -> dict[str, Any]:
    return next(database for database in every(s, DATABASE) if "SourceDBInstanceIdentifier" not in database)


def replica(s: Shipped) -> dict[str, Any]:
    return next(database for database in every(s, DATABASE) if "SourceDBInstanceIdentifier" in database)


def zones(s: Shipped, group: str) -> list[str]:
    """The zones of a subnet group, by their letter."""
    known = {
        f"<{key}>": one["AvailabilityZone"][-1]
        for key, one in s.production.resources("AWS::EC2::Subnet").items()
    }
    named = s.production.resources("AWS::RDS::DBSubnetGroup")[group.strip("<>")]
    return sorted(known[subnet] for subnet in named["SubnetIds"])


rds = section("RDS Configuration")
rds(
    "primary in AZ-a, standby in AZ-b",
    lambda s: zones(s, primary(s)["DBSubnetGroupName"]) == ["a", "b"],
    settled="Zones of the databases",
)
rds("standby, synchronous", lambda s: true(primary(s)["MultiAZ"]))
rds("primary and standby: db.r6g.large", lambda s: primary(s)["DBInstanceClass"] == "db.r6g.large")
rds("primary and standby: 2 vCPU, 16 GB", lambda s: primary(s)["DBInstanceClass"] == "db.r6g.large")
rds("database: datahub_prod", lambda s: primary(s)["DBName"] == "datahub_prod")
rds("asynchronous replication to AZ-c", lambda s: replica(s)["AvailabilityZone"] == "us-east-1c")
rds("read replica: db.r6g.large (2 vCPU, 16 GB)", lambda s: replica(s)["DBInstanceClass"] == "db.r6g.large")
rds(
    "replica: read-only queries",
    lambda s: bool(s.production.export("datahub-DatabaseReplicaUrlSecret")),
)
rds("replica: analytics, reporting", settled="Analytics on the replica")
rds("engine: PostgreSQL 15.x", lambda s: str(primary(s)["EngineVersion"]).startswith("15."))
rds(
    "storage: 100 GB gp3",
    lambda s: (primary(s)["StorageType"], str(primary(s)["AllocatedStorage"])) == ("gp3", "100"),
)
rds("storage: provisioned IOPS", settled="IOPS")
rds(
    "encryption: AES-256 (KMS)", lambda s: true(primary(s)["StorageEncrypted"]) and "KmsKeyId" in primary(s)
)
rds(
    "backup: 7 days retention", lambda s: str(primary(s)["BackupRetentionPeriod"]) == "7", settled="Backups"
)
rds(
    "maintenance: Sunday 03:00-04:00 UTC",
    lambda s: {database["PreferredMaintenanceWindow"] for database in every(s, DATABASE)}
    == {"sun:03:00-sun:04:00"},
)


def shard(number: int, leader: str, follower: str):
    """A shard with its primary and its replica in their zones."""

    def check(s: Shipped) -> bool:
        group = one(s, CACHE)["NodeGroupConfiguration"][number - 1]
        return (group["PrimaryAvailabilityZone"], group["ReplicaAvailabilityZones"]) == (
            f"us-east-1{leader}",
            [f"us-east-1{follower}"],
        )

    return check


redis = section("ElastiCache Redis Configuration")
for number, leader, follower in ((1, "a", "b"), (2, "b", "c"), (3, "c", "a")):
    redis(
        f"shard {number}: primary in AZ-{leader}, replica in AZ-{follower}",
        shard(number, leader, follower),
        settled="Zones of Redis",
    )
redis("three shards", lambda s: str(one(s, CACHE)["NumNodeGroups"]) == "3")
redis("each primary → its replica", lambda s: str(one(s, CACHE)["ReplicasPerNodeGroup"]) == "1")
redis("node type: cache.r6g.large", lambda s: one(s, CACHE)["CacheNodeType"] == "cache.r6g.large")
redis(
    "engine: Redis 7.0",
    lambda s: (one(s, CACHE)["Engine"], one(s, CACHE)["EngineVersion"]) == ("redis", "7.0"),
)
redis("encryption in transit", lambda s: true(one(s, CACHE)["TransitEncryptionEnabled"]))
redis("encryption at rest", lambda s: true(one(s, CACHE)["AtRestEncryptionEnabled"]))
redis("cluster mode: enabled", rule("redis_is_a_cluster_with_tls_and_a_password"))
