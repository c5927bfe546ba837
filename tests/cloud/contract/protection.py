"""What is kept, encrypted, doubled and saved: on the wire, on disk, against deletion and against loss."""

from collections.abc import Iterator
from typing import Any

from contract.rule import rule, rule_about
from contract.secrets import listed
from contract.shipped import Place, Shipped
from contract.tasks import BALANCER, LISTENER, attributes

DATABASE = "AWS::RDS::DBInstance"
CACHE = "AWS::ElastiCache::ReplicationGroup"
BUCKET = "AWS::S3::Bucket"

# What holds something that cannot be made again, and what may happen to it when its stack goes.
STATEFUL = {
    DATABASE: ("Snapshot", "Retain"),
    CACHE: ("Snapshot", "Retain"),
    BUCKET: ("Retain",),
    "AWS::KMS::Key": ("Retain",),
    "AWS::SecretsManager::Secret": ("Retain",),
    "AWS::ECR::Repository": ("Retain",),
    "AWS::Backup::BackupVault": ("Retain",),
    "AWS::Route53::HostedZone": ("Retain",),
}

# Those of them that lose nothing, and why.
NOT_STATEFUL = {
    "observability/TopicKey": "messages of alarms are not kept anywhere",
    "edge/OriginPassword": "CloudFront and the balancer are both given a new one",
}


def true(value: Any) -> bool:
    """A template may write a boolean as a string."""
    return str(value).lower() == "true"


def each(shipped: Shipped, kind: str) -> Iterator[tuple[Place, str, dict[str, Any]]]:
    """The resources of a type in every place."""
    for place in shipped.places:
        for key, properties in place.resources(kind).items():
            yield place, key, properties


@rule_about(LISTENER, BALANCER)
def clients_speak_tls(shipped: Shipped) -> Iterator[str]:
    """443 with a certificate and TLS 1.2 or later; 80 only says where to go instead."""
    for place, key, listener in each(shipped, LISTENER):
        port, protocol = int(listener["Port"]), listener["Protocol"]
        if port == 443:
            if protocol != "HTTPS" or not listener.get("Certificates"):
                yield f"{place}: {key}: {protocol} without certificate"
            if not str(listener.get("SslPolicy", "")).startswith(
                ("ELBSecurityPolicy-TLS13-1-2", "ELBSecurityPolicy-TLS13-1-3")
            ):
                yield f"{place}: {key}: policy {listener.get('SslPolicy')}"
        elif port == 80:
            kinds = [action.get("Type") for action in listener["DefaultActions"]]
            to = [action.get("RedirectConfig", {}).get("Protocol") for action in listener["DefaultActions"]]
            if kinds != ["redirect"] or to != ["HTTPS"]:
                yield f"{place}: {key}: port 80 does {kinds}"
        else:
            yield f"{place}: {key}: listens on {port}"
    for place, key, balancer in each(shipped, BALANCER):
        has = attributes(balancer, "LoadBalancerAttributes")
        wanted = {
            "routing.http.drop_invalid_header_fields.enabled": "true",
            "access_logs.s3.enabled": "true",
        }
        if place.environment == "production":
            wanted["deletion_protection.enabled"] = "true"
        for name, value in wanted.items():
            if has.get(name) != value:
                yield f"{place}: {key}: {name} is {has.get(name)}"
        if has.get("access_logs.s3.bucket") != place.export("datahub-LogBucket"):
            yield f"{place}: {key}: logs to {has.get('access_logs.s3.bucket')}"


@rule_about(BALANCER, "AWS::WAFv2::WebACL")
def the_firewall_stands_before_the_balancer(shipped: Shipped) -> Iterator[str]:
    """A regional list with the managed rules of the architecture, tied to the balancer of the region."""
    for place, key, _ in each(shipped, BALANCER):
        ties = [
            one
            for one in place.resources("AWS::WAFv2::WebACLAssociation").values()
            if one.get("ResourceArn") in (f"<{key}>", f"<{key}.LoadBalancerArn>")
        ]
        if [one.get("WebACLArn") for one in ties] != [place.export("datahub-WebAclArn")]:
            yield f"{place}: {key}: its firewall is {ties}"
    for place, key, acl in each(shipped, "AWS::WAFv2::WebACL"):
        names = {
            one.get("Statement", {}).get("ManagedRuleGroupStatement", {}).get("Name")
            for one in acl.get("Rules", [])
        }
        missing = {"AWSManagedRulesCommonRuleSet", "AWSManagedRulesSQLiRuleSet"} - names
        if missing:
            yield f"{place}: {key}: without {sorted(missing)}"
        for one in acl.get("Rules", []):
            if "ManagedRuleGroupStatement" in one.get("Statement", {}) and "None" not in one.get(
                "OverrideAction", {}
            ):
                yield f"{place}: {key}: {one['Name']} only counts"


@rule_about(DATABASE)
def the_database_is_doubled_and_closed(shipped: Shipped) -> Iterator[str]:
    """Encrypted, TLS only, not public, deletion-protected; in production in two zones, with 7 days of backups."""
    for place, key, database in each(shipped, DATABASE):
        replica = "SourceDBInstanceIdentifier" in database
        # The one beside its primary holds nothing of its own; the one in the other region is the recovery.
        expendable = replica and place.region == "us-east-1"
        if true(database.get("PubliclyAccessible", "true")):
            yield f"{place}: {key}: may be public"
        if not replica and not true(database.get("StorageEncrypted")):
            yield f"{place}: {key}: its disk is not encrypted"
        if place.environment == "production":
            if not expendable and not true(database.get("DeletionProtection")):
                yield f"{place}: {key}: can be deleted"
            if not replica and not true(database.get("MultiAZ")):
                yield f"{place}: {key}: stands in one zone"
            if not replica and int(database.get("BackupRetentionPeriod", 1)) != 7:
                yield f"{place}: {key}: {database.get('BackupRetentionPeriod')} days of backups"
        if not replica and not _rotates(place, str(database.get("MasterUserPassword"))):
            yield f"{place}: {key}: its password does not rotate"
        groups = [
            one
            for name, one in place.resources("AWS::RDS::DBParameterGroup").items()
            if f"<{name}>" == database.get("DBParameterGroupName")
        ]
        for group in groups:
            if str(group["Parameters"].get("rds.force_ssl")) != "1":
                yield f"{place}: {key}: takes connections without TLS"
            if str(group["Parameters"].get("max_connections")) != str(
                place.export("datahub-MaxConnections")
            ):
                yield f"{place}: {key}: max_connections is not what alarms take for it"
        if not groups:
            yield f"{place}: {key}: has no parameter group of ours"


def _rotates(place: Place, password: str) -> bool:
    """RDS makes no replica of an instance whose password it manages, so a rotating secret holds it."""
    rotating = {
        one.get("SecretId") for one in place.resources("AWS::SecretsManager::RotationSchedule").values()
    }
    return any(f"{{{{resolve:secretsmanager:{secret}:" in password for secret in rotating)


@rule_about(DATABASE)
def a_lost_zone_leaves_a_database(shipped: Shipped) -> Iterator[str]:
    """The replica stands in a zone where neither the primary nor its standby can be."""
    place = shipped.production
    zones = {
        f"<{key}>": one["AvailabilityZone"] for key, one in place.resources("AWS::EC2::Subnet").items()
    }
    groups = {
        f"<{key}>": one["SubnetIds"] for key, one in place.resources("AWS::RDS::DBSubnetGroup").items()
    }
    taken: set[str] = set()
    for database in place.resources(DATABASE).values():
        if "SourceDBInstanceIdentifier" not in database:
            taken |= {
                zones.get(subnet, "?") for subnet in groups.get(database.get("DBSubnetGroupName"), [])
            }
    for key, database in place.resources(DATABASE).items():
        zone = database.get("AvailabilityZone")
        if "SourceDBInstanceIdentifier" in database and (zone is None or zone in taken):
            yield f"{place}: {key} is in {zone}, and the primary or its standby in {sorted(taken)}"


@rule_about(DATABASE)
def the_database_can_still_be_made(shipped: Shipped) -> Iterator[str]:
    """PostgreSQL 15 from 15.13 on: RDS makes no new instance of an older one."""
    for place, key, database in each(shipped, DATABASE):
        if "SourceDBInstanceIdentifier" in database and "EngineVersion" not in database:
            continue
        major, _, minor = str(database.get("EngineVersion", "")).partition(".")
        if database.get("Engine", "postgres") != "postgres" or major != "15" or int(minor or 0) < 13:
            yield f"{place}: {key}: {database.get('Engine')} {database.get('EngineVersion')}"


@rule_about(CACHE)
def redis_is_a_cluster_with_tls_and_a_password(shipped: Shipped) -> Iterator[str]:
    """Cluster mode, TLS, AUTH (which needs TLS), encrypted; in production 3 shards with a replica each."""
    for place, key, cache in each(shipped, CACHE):
        if not true(cache.get("TransitEncryptionEnabled")):
            yield f"{place}: {key}: speaks plain text{', and AUTH needs TLS' if 'AuthToken' in cache else ''}"
        if cache.get("TransitEncryptionMode", "required") != "required":
            yield f"{place}: {key}: also takes plain text"
        if "AuthToken" not in cache:
            yield f"{place}: {key}: has no password"
        if not true(cache.get("AtRestEncryptionEnabled")):
            yield f"{place}: {key}: is not encrypted at rest"
        if not true(cache.get("AutomaticFailoverEnabled")):
            yield f"{place}: {key}: does not fail over by itself"
        if not _cluster_mode(place, cache):
            yield f"{place}: {key}: is not in cluster mode: {cache.get('CacheParameterGroupName')}"
        shape = (int(cache.get("NumNodeGroups", 0)), int(cache.get("ReplicasPerNodeGroup", 0)))
        if place.environment == "production":
            if shape != (3, 1):
                yield f"{place}: {key}: {shape[0]} shards with {shape[1]} replicas"
            if not true(cache.get("MultiAZEnabled")):
                yield f"{place}: {key}: a shard may stand in one zone"


def _cluster_mode(place: Place, cache: dict[str, Any]) -> bool:
    name = cache.get("CacheParameterGroupName", "")
    if name == "default.redis7.cluster.on":
        return True
    own = place.resources("AWS::ElastiCache::ParameterGroup")
    return any(
        f"<{key}>" == name and one["Properties"].get("cluster-enabled") == "yes" for key, one in own.items()
    )


@rule_about(BUCKET)
def buckets_are_private_and_clean_up(shipped: Shipped) -> Iterator[str]:
    """Encrypted, closed to the public four ways, TLS only, and with an end for what lies there."""
    for place, key, bucket in each(shipped, BUCKET):
        if not bucket.get("BucketEncryption"):
            yield f"{place}: {key}: is not encrypted"
        block = bucket.get("PublicAccessBlockConfiguration", {})
        for word in ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"):
            if not true(block.get(word)):
                yield f"{place}: {key}: {word} is off"
        rules = bucket.get("LifecycleConfiguration", {}).get("Rules", [])
        if not any(one.get("Status") == "Enabled" and "ExpirationInDays" in one for one in rules):
            yield f"{place}: {key}: keeps everything for ever"
        names = (f"<{key}>", bucket.get("BucketName"))
        statements = [
            statement
            for policy in place.resources("AWS::S3::BucketPolicy").values()
            if policy["Bucket"] in names
            for statement in policy["PolicyDocument"]["Statement"]
        ]
        if not any(_denies_plain(statement) for statement in statements):
            yield f"{place}: {key}: takes requests without TLS"


def _denies_plain(statement: dict[str, Any]) -> bool:
    plain = (
        str(statement.get("Condition", {}).get("Bool", {}).get("aws:SecureTransport")).lower() == "false"
    )
    return statement["Effect"] == "Deny" and plain and "s3:*" in listed(statement.get("Action"))


@rule_about("AWS::KMS::Key")
def keys_turn_and_disks_have_one(shipped: Shipped) -> Iterator[str]:
    """Every key of ours rotates each year; databases, caches, buckets and secrets lie under one."""
    for place, key, one in each(shipped, "AWS::KMS::Key"):
        if not true(one.get("EnableKeyRotation")):
            yield f"{place}: {key}: does not rotate"
    for kind in (DATABASE, CACHE, "AWS::SecretsManager::Secret"):
        for place, key, one in each(shipped, kind):
            of_source = (
                kind == DATABASE and "SourceDBInstanceIdentifier" in one and place.region == "us-east-1"
            )
            if "KmsKeyId" not in one and not of_source:
                yield f"{place}: {key}: lies under no key of ours"


@rule_about("AWS::Backup::BackupPlan")
def backups_are_daily_and_kept(shipped: Shipped) -> Iterator[str]:
    """AWS Backup: every day, for 30 days, of the database; in production with a copy in the other region."""
    for place in shipped.places:
        if "data" not in place.stacks or place.environment != "production":
            continue
        plans = place.resources("AWS::Backup::BackupPlan")
        rules = [one for plan in plans.values() for one in plan["BackupPlan"]["BackupPlanRule"]]
        if not any(int(one.get("Lifecycle", {}).get("DeleteAfterDays", 0)) == 30 for one in rules):
            yield f"{place}: no backups of 30 days"
        if not any(str(one.get("ScheduleExpression", "")).startswith("cron(") for one in rules):
            yield f"{place}: no backup has a time"
        for one in rules:
            for copy in one.get("CopyActions", []):
                if int(copy.get("Lifecycle", {}).get("DeleteAfterDays", 0)) != 30:
                    yield f"{place}: copies are kept {copy.get('Lifecycle')}"
        if not place.resources("AWS::Backup::BackupSelection"):
            yield f"{place}: the plan saves nothing"


@rule
def nothing_that_matters_goes_with_its_stack(shipped: Shipped) -> Iterator[str]:
    """What cannot be made again is kept or saved, when a stack is deleted and when a resource is replaced."""
    seen = set()
    for name, template in shipped.templates.items():
        for key, resource in template["Resources"].items():
            where = f"{name}/{key}"
            if resource["Type"] not in STATEFUL:
                continue
            if where in NOT_STATEFUL:
                seen.add(where)
                continue
            # The source has it all; and RDS takes no final snapshot of a replica.
            copy = "SourceDBInstanceIdentifier" in resource.get("Properties", {})
            allowed = ("Delete", "Retain") if copy else STATEFUL[resource["Type"]]
            for word in ("DeletionPolicy", "UpdateReplacePolicy"):
                policy = str(resource.get(word, "none"))
                if policy not in allowed and policy != "RetainExceptOnCreate":
                    yield f"{where}: {word} is {policy}, not {' or '.join(allowed)}"
    for where in sorted(set(NOT_STATEFUL) - seen):
        yield f"NOT_STATEFUL names {where}, which is not there"


@rule_about("AWS::Logs::LogGroup")
def every_log_has_an_end(shipped: Shipped) -> Iterator[str]:
    """A log group without retention is paid for for ever; one that a function makes itself has none."""
    for place, key, group in each(shipped, "AWS::Logs::LogGroup"):
        if not str(group.get("RetentionInDays", "")).isdigit():
            yield f"{place}: {key}: has no retention"
    for place in shipped.places:
        groups = {one.get("LogGroupName") for one in place.resources("AWS::Logs::LogGroup").values()}
        groups |= {f"<{key}>" for key in place.resources("AWS::Logs::LogGroup")}
        for key, function in place.resources("AWS::Lambda::Function").items():
            named = function.get("LoggingConfig", {}).get("LogGroup")
            if named not in groups and f"/aws/lambda/{function.get('FunctionName')}" not in groups:
                yield f"{place}: {key}: its log group is not ours"


@rule_about("AWS::ECR::Repository")
def images_are_what_they_were(shipped: Shipped) -> Iterator[str]:
    """A tag never moves, so that `roll back to the one before` means something; scanned when pushed."""
    for place, key, registry in each(shipped, "AWS::ECR::Repository"):
        if registry.get("ImageTagMutability") != "IMMUTABLE":
            yield f"{place}: {key}: tags can move"
        if not true(registry.get("ImageScanningConfiguration", {}).get("ScanOnPush")):
            yield f"{place}: {key}: is not scanned"
        if "LifecyclePolicy" not in registry:
            yield f"{place}: {key}: keeps every image"
    for name, template in shipped.templates.items():
        for key, resource in template["Resources"].items():
            if resource["Type"] == "AWS::ECS::TaskDefinition" and ":latest" in str(resource):
                yield f"{name}/{key}: runs :latest"
