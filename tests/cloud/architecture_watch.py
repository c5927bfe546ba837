"""Figures of "Monitoring and Observability", "Cost Optimization" and "Disaster Recovery"."""

from typing import Any

from architecture import Check, every, one, recovery, rule, section
from contract import alarms, dashboards, series, tasks
from contract.protection import CACHE, DATABASE, true
from contract.shipped import Place, Shipped

dashboard = section("CloudWatch Dashboard")


def panel(title: str, *metrics: str) -> Check:
    """A widget of this title that shows these metrics."""

    def check(s: Shipped) -> bool:
        for body in dashboards.bodies(s.production).values():
            for widget in body["widgets"]:
                if widget["properties"].get("title", "").lower().startswith(title.lower()):
                    shown = {one.metric for one in dashboards.widget_series(widget)}
                    return set(metrics) <= shown
        return False

    return check


for title, metric, example in (
    ("Request rate", "RequestCount", "3,500 req/min"),
    ("Error rate", "ServerErrors", "0.02 %"),
    ("P99 latency", "RequestLatency", "45 ms"),
    ("CPU utilization", "CPUUtilization", "52 %"),
    ("Active connections", "ActiveConnections", "1,234"),
    ("Rate limit hits", "RateLimitHits", "23/min"),
):
    dashboard(f"panel: {title}", panel(title, metric))
    dashboard(f"panel: {title}: {example}", settled="Numbers of the dashboard")
dashboard(
    "panel: recent alarms, the newest first",
    lambda s: any(
        widget["type"] == "alarm" and widget["properties"].get("sortBy") == "stateUpdatedTimestamp"
        for body in dashboards.bodies(s.production).values()
        for widget in body["widgets"]
    ),
)
dashboard("recent alarms: CPU utilization < 70 %", settled="Targets and limits")
dashboard("recent alarms: error rate < 1 %", rule("the_alarms_of_the_architecture_are_as_it_says"))
dashboard("recent alarms: P99 latency < 100 ms", settled="Targets and limits")
dashboard(
    "recent alarms: connection pool exhausted",
    lambda s: {"datahub-pool-exhausted-primary", "datahub-pool-exhausted-replica"}
    <= set(alarms.alarms(s.production)),
)

table = section("Alarm Configuration")


def alarm(name: str, metric: str, seconds: int | None, condition: str) -> Check:
    """An alarm that reads a metric for so long, and fires so."""
    operator, threshold = condition.split(" ")

    def check(s: Shipped) -> bool:
        found = alarms.alarms(s.production).get(f"datahub-{name}", {})
        read = list(series.of_alarm(found))
        span = max((one.period for one in read), default=0) * int(found.get("EvaluationPeriods", 0))
        return (
            metric in {one.metric for one in read}
            and (seconds is None or span == seconds)
            and alarms.OPERATORS[found["ComparisonOperator"]] == operator
            and float(found["Threshold"]) == float(threshold)
        )

    return check


def tells(name: str, topic: str) -> Check:
    return lambda s: topic in alarms.told(s.production, f"datahub-{name}")


def scales(metric: str) -> Check:
    kind = "AWS::ApplicationAutoScaling::ScalingPolicy"
    return lambda s: any(metric in str(policy) for policy in every(s, kind))


table(
    "high CPU: CPUUtilization > 80 % for 5 min",
    alarm("high-cpu", "CPUUtilization", 300, "> 80"),
    settled="Targets and limits",
)
table("high CPU: scale out", scales("ECSServiceAverageCPUUtilization"), settled="Scaling and alarms")
table("high CPU: notify", tells("high-cpu", "NotifyTopic"))
table(
    "high memory: MemoryUtilization > 85 % for 5 min",
    alarm("high-memory", "MemoryUtilization", 300, "> 85"),
)
table("high memory: scale out", scales("ECSServiceAverageMemoryUtilization"), settled="Scaling and alarms")
table("high memory: notify", tells("high-memory", "NotifyTopic"))
table(
    "high error rate: 5xx > 1 % for 2 min",
    alarm("high-error-rate", "HTTPCode_Target_5XX_Count", 120, "> 1"),
)
table("high error rate: page on-call", tells("high-error-rate", "PageTopic"))
table(
    "high latency: p99 > 500 ms for 5 min",
    lambda s: alarm("high-latency", "TargetResponseTime", 300, "> 0.5")(s)
    and alarms.alarms(s.production)["datahub-high-latency"]["ExtendedStatistic"] == "p99",
    settled="Targets and limits",
)
table("high latency: notify the team", tells("high-latency", "NotifyTopic"))
table("low health: HealthyHostCount < 2", alarm("low-health", "HealthyHostCount", None, "< 2"))
table("low health: page on-call", tells("low-health", "PageTopic"))
for where in ("primary", "replica"):
    table(
        f"DB connections ({where}): > 80 %",
        alarm(f"db-connections-{where}", "DatabaseConnections", None, "> 80"),
        settled="Database connections",
    )
    table(f"DB connections ({where}): notify the team", tells(f"db-connections-{where}", "NotifyTopic"))

cost = section("Monthly Cost Estimate")
cost(
    "ECS Fargate: 3 tasks of 0.5 vCPU and 1 GB, $150",
    lambda s: (
        str(tasks.family(s.production, "datahub-gateway")["Cpu"]),
        s.production.stacks["service"].parameters["DesiredCount"],
    )
    == ("512", "3"),
    settled="Cost: Fargate",
)
cost(
    "ALB: $25 and data processing",
    lambda s: len(every(s, tasks.BALANCER)) == 1,
    settled="Cost: load balancer",
)
cost(
    "RDS PostgreSQL (Multi-AZ): db.r6g.large, $250",
    lambda s: len(every(s, DATABASE, DBInstanceClass="db.r6g.large", MultiAZ="true")) == 1,
    settled="Cost: databases",
)
cost(
    "RDS read replica: db.r6g.large, $125",
    lambda s: len(every(s, DATABASE, DBInstanceClass="db.r6g.large", MultiAZ="False")) == 1,
    settled="Cost: databases",
)
cost(
    "ElastiCache Redis: cache.r6g.large cluster, $150",
    lambda s: one(s, CACHE)["CacheNodeType"] == "cache.r6g.large",
    settled="Cost: Redis",
)
cost(
    "NAT gateways (2): $70 and data processing",
    lambda s: len(every(s, "AWS::EC2::NatGateway")) == 3,
    settled="NAT gateways",
)
cost("CloudWatch: $30, logs, metrics, alarms", lambda s: _series(s) <= 35, settled="Cost: CloudWatch")
cost(
    "Secrets Manager: ~10 secrets, $5",
    lambda s: 5 <= len(every(s, "AWS::SecretsManager::Secret")) <= 10,
    settled="Cost: secrets",
)
cost(
    "S3 (logs, backups): ~100 GB, $10",
    rule("buckets_are_private_and_clean_up"),
    settled="Cost: S3 and transfer",
)
cost("data transfer: ~500 GB a month, $50", settled="Cost: S3 and transfer")
cost("total: ~$865 a month", settled="Cost: total")
cost("moderate traffic: ~1M requests a day", settled="Cost: total")
cost("reserved instances: 30 to 40 % less", settled="Cost: reserved")


def _series(s: Shipped) -> int:
    """Series that the gateway can publish: an open set has six names and `other`."""
    return sum(
        1 if len(m["dimensions"]) == 2 else len(m["values"] or range(7)) for m in s.catalogue["metrics"]
    )


def _buckets(s: Shipped, place: Place) -> list[dict[str, Any]]:
    """For logs and for backups."""
    return [
        one(s, "AWS::S3::Bucket", place, BucketName=place.export(f"datahub-{name}Bucket"))
        for name in ("Log", "Backup")
    ]


disaster = section("DR Strategy, Mermaid")
disaster(
    "primary region: us-east-1", lambda s: bool(every(s, DATABASE)) and s.production.region == "us-east-1"
)
disaster(
    "recovery region: us-west-2",
    lambda s: bool(every(s, DATABASE, recovery(s))) and recovery(s).region == "us-west-2",
)
disaster(
    "primary: ECS cluster, RDS primary, Redis",
    lambda s: all(every(s, k) for k in ("AWS::ECS::Cluster", DATABASE, CACHE)),
)
disaster(
    "recovery: ECS cluster, standby",
    lambda s: one(s, "AWS::ECS::Cluster", recovery(s)).get("ClusterName") == "datahub-cluster"
    and recovery(s).stacks["service"].parameters["Role"] == "standby",
    settled="Standby",
)
disaster(
    "recovery: RDS replica, cross-region",
    lambda s: "us-east-1" in str(one(s, DATABASE, recovery(s)).get("SourceDBInstanceIdentifier"))
    or one(s, DATABASE, recovery(s)).get("SourceRegion") == "us-east-1",
)
disaster(
    "recovery: Redis, standby",
    lambda s: true(one(s, CACHE, recovery(s)).get("TransitEncryptionEnabled")),
    settled="Standby",
)
disaster(
    "global: Route 53 health checks",
    lambda s: one(s, "AWS::Route53::HealthCheck").get("HealthCheckConfig", {}).get("ResourcePath")
    == "/health",
)
disaster(
    "global: S3 cross-region replication",
    lambda s: [
        "us-west-2" in str(bucket["ReplicationConfiguration"]) for bucket in _buckets(s, s.production)
    ]
    == [True, True],
)
disaster("RDS primary → RDS replica, asynchronous", lambda s: bool(every(s, DATABASE, recovery(s))))
disaster(
    "ECS cluster → ECS cluster, image sync",
    lambda s: "us-west-2" in str(one(s, "AWS::ECR::ReplicationConfiguration")),
)
disaster(
    "Route 53 → primary",
    lambda s: all(
        record.get("HealthCheckId") for record in every(s, "AWS::Route53::RecordSet", Failover="PRIMARY")
    )
    and bool(every(s, "AWS::Route53::RecordSet", Failover="PRIMARY")),
)
disaster(
    "Route 53 → recovery, failover",
    lambda s: bool(every(s, "AWS::Route53::RecordSet", recovery(s), Failover="SECONDARY")),
    settled="Failover",
)
disaster(
    "replication of S3 between the regions",
    lambda s: [
        bucket["BucketName"].replace("us-east-1", "us-west-2") for bucket in _buckets(s, s.production)
    ]
    == [bucket["BucketName"] for bucket in _buckets(s, recovery(s))]
    != [],
)
targets = section("DR Strategy, table")
targets("RPO < 5 minutes: asynchronous replication", settled="RPO")
targets("RTO < 30 minutes: automated failover", settled="Failover")
targets("backup retention: 30 days", rule("backups_are_daily_and_kept"), settled="Backups")
targets("backups: daily snapshots", rule("backups_are_daily_and_kept"), settled="Backups")
