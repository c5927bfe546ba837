"""Figures of "AWS Architecture Overview" and "AWS Services Used"."""

from architecture import every, hears, one, reaches, rule, section, subnet
from contract import protection, tasks
from contract.shipped import Shipped

ACL = "AWS::WAFv2::WebACL"
RECORD = "AWS::Route53::RecordSet"
ALB = "AWS::ElasticLoadBalancingV2::LoadBalancer"

ascii_diagram = section("Overview, diagram in text")

ascii_diagram(
    "Region: us-east-1",
    lambda s: s.production.region == "us-east-1" and bool(every(s, "AWS::ECS::Service")),
)
ascii_diagram("VPC 10.0.0.0/16", lambda s: one(s, "AWS::EC2::VPC").get("CidrBlock") == "10.0.0.0/16")
for tier, word, first in (
    ("PublicSubnets", "public", 1),
    ("AppSubnets", "application", 11),
    ("DatabaseSubnets", "database", 21),
):
    for place, zone in enumerate("abc"):
        block = f"10.0.{first + place}.0/24"
        ascii_diagram(f"AZ-{zone} has the {word} subnet {block}", subnet(tier, zone, block))


def nat_in(zone: str):
    """A NAT gateway in a zone."""

    def check(s: Shipped) -> bool:
        known = s.production.resources("AWS::EC2::Subnet")
        zones = [
            known[nat["SubnetId"].strip("<>")]["AvailabilityZone"]
            for nat in every(s, "AWS::EC2::NatGateway")
        ]
        return zones.count(f"us-east-1{zone}") == 1

    return check


for zone in "abc":
    ascii_diagram(f"a NAT gateway in AZ-{zone}", nat_in(zone), settled="NAT gateways")


def https(s: Shipped) -> dict:
    return one(s, tasks.LISTENER, Port=443)


ascii_diagram("load balancer: HTTPS listener (443)", lambda s: https(s).get("Protocol") == "HTTPS")
ascii_diagram(
    "load balancer: ACM certificate",
    lambda s: https(s)["Certificates"]
    == [{"CertificateArn": s.production.export("datahub-CertificateArn")}]
    and bool(one(s, "AWS::CertificateManager::Certificate")),
)
ascii_diagram("load balancer: WAF integration", rule("the_firewall_stands_before_the_balancer"))
ascii_diagram("load balancer: health checks", rule("health_is_asked_where_the_gateway_answers"))
ascii_diagram("load balancer: target groups", rule("the_service_runs_the_container_that_is_defined"))
ascii_diagram(
    "load balancer: access logs to S3",
    lambda s: tasks.attributes(one(s, ALB), "LoadBalancerAttributes").get("access_logs.s3.enabled")
    == "true",
)
ascii_diagram(
    "the load balancer stands in the public subnets", rule("stores_and_balancer_stand_in_their_tier")
)
ascii_diagram(
    "from the load balancer to the application subnets",
    hears("TaskSecurityGroup", "LoadBalancerSecurityGroup", 3000),
)
ascii_diagram(
    "an ECS task in each zone", lambda s: str(one(s, "AWS::ECS::Service").get("DesiredCount")) == "3"
)
ascii_diagram("tasks run in the application subnets", rule("the_container_is_closed"))
ascii_diagram(
    "from the applications to the database subnets",
    hears("DatabaseSecurityGroup", "TaskSecurityGroup", 5432),
)
ascii_diagram("RDS primary in AZ-a", settled="Zones of the databases")
ascii_diagram("RDS replica in AZ-b", settled="Zones of the databases")
ascii_diagram("ElastiCache in AZ-c", settled="Zones of Redis")
for name, kind in (
    ("ECR", "AWS::ECR::Repository"),
    ("Secrets Manager", "AWS::SecretsManager::Secret"),
    ("KMS", "AWS::KMS::Key"),
    ("S3", "AWS::S3::Bucket"),
    ("CloudWatch", "AWS::CloudWatch::Alarm"),
    ("Route 53", RECORD),
):
    ascii_diagram(f"managed service: {name}", lambda s, kind=kind: bool(every(s, kind)))

mermaid = section("Overview, Mermaid")


def distribution(s: Shipped) -> dict:
    """CloudFront as it is when it is asked for."""
    return s.templates["edge"]["Resources"]["Distribution"]


mermaid(
    "users → CloudFront",
    lambda s: distribution(s)["Type"] == "AWS::CloudFront::Distribution",
    settled="CloudFront",
)
mermaid(
    "CloudFront → Route 53",
    lambda s: "origin." in str(distribution(s)["Properties"]["DistributionConfig"]["Origins"])
    and any(str(record["Name"]).startswith("origin.") for record in every(s, RECORD)),
    settled="Order at the edge",
)
mermaid(
    "Route 53 → WAF",
    lambda s: {str(record.get("Failover")) for record in every(s, RECORD)} == {"PRIMARY"},
    settled="Order at the edge",
)
mermaid("WAF → ALB", rule("the_firewall_stands_before_the_balancer"))
mermaid("ALB → ECS tasks in three zones", hears("TaskSecurityGroup", "LoadBalancerSecurityGroup", 3000))
mermaid("two NAT gateways, AZ-a and AZ-b", settled="NAT gateways")
mermaid("ECS tasks → NAT", rule("only_public_subnets_face_the_internet"))
mermaid("ECS tasks → RDS primary", reaches("TaskSecurityGroup", 5432))
mermaid(
    "ECS tasks → RDS replica",
    lambda s: "DATABASE_REPLICA_URL" in {one["Name"] for one in tasks.container(s.production)["Secrets"]},
)
mermaid("ECS tasks → ElastiCache", hears("CacheSecurityGroup", "TaskSecurityGroup", 6379))
mermaid("ECS tasks → ElastiCache, out of their group", reaches("TaskSecurityGroup", 6379))
mermaid(
    "RDS primary → RDS replica",
    lambda s: any("SourceDBInstanceIdentifier" in database for database in every(s, protection.DATABASE)),
)
mermaid("ECS tasks → Secrets Manager", rule("secrets_are_granted_exactly"))
mermaid("ECS tasks → CloudWatch", rule("the_task_may_publish_metrics"))
mermaid("ECS tasks → Secrets Manager and CloudWatch by HTTPS", reaches("TaskSecurityGroup", 443))
mermaid("VPC 10.0.0.0/16", lambda s: one(s, "AWS::EC2::VPC").get("CidrBlock") == "10.0.0.0/16")
mermaid(
    "ECR, KMS and S3 are managed services",
    lambda s: all(every(s, f"AWS::{k}") for k in ("ECR::Repository", "KMS::Key", "S3::Bucket")),
)

services = section("AWS Services Used")


def managed_rules(s: Shipped) -> set:
    rules = one(s, ACL, Scope="REGIONAL").get("Rules", [])
    return {r["Statement"].get("ManagedRuleGroupStatement", {}).get("Name") for r in rules}


services(
    "Route 53: hosted zone for the domain",
    lambda s: any(
        r["Type"] == "AWS::Route53::HostedZone" for r in s.templates["edge"]["Resources"].values()
    ),
)
services(
    "CloudFront: optional, edge caching for static responses",
    lambda s: s.templates["edge"]["Parameters"]["CloudFront"]["Default"] == "no"
    and "CachedPath" in str(distribution(s)["Properties"]["DistributionConfig"]["CacheBehaviors"]),
    settled="CloudFront",
)
services(
    "WAF: SQL injection", lambda s: "AWSManagedRulesSQLiRuleSet" in managed_rules(s), settled="Firewall"
)
services("WAF: XSS", lambda s: "AWSManagedRulesCommonRuleSet" in managed_rules(s), settled="Firewall")
services("ALB: HTTPS termination", rule("clients_speak_tls"), settled="TLS behind the load balancer")
services("ALB: health checks", rule("health_is_asked_where_the_gateway_answers"))
services(
    "ECS Fargate: serverless containers",
    lambda s: one(s, "AWS::ECS::Service").get("LaunchType") == "FARGATE",
)
services("ECR: Docker image storage", rule("images_are_what_they_were"))
services("RDS PostgreSQL: Multi-AZ", rule("the_database_is_doubled_and_closed"))
services("RDS PostgreSQL: 15.x", rule("the_database_can_still_be_made"))
services("ElastiCache: cluster mode enabled", rule("redis_is_a_cluster_with_tls_and_a_password"))
services("S3: logs", lambda s: bool(s.production.export("datahub-LogBucket")))
services("S3: backups", lambda s: bool(s.production.export("datahub-BackupBucket")))
services(
    "Secrets Manager: database credentials",
    lambda s: bool(s.production.export("datahub-DatabaseUrlSecret")),
)
services(
    "Secrets Manager: API keys",
    lambda s: bool(s.production.export("datahub-ApiKeyPepperSecret")),
    settled="API keys",
)
services("KMS: encryption keys", rule("keys_turn_and_disks_have_one"))
services("CloudWatch: metrics", rule("every_series_of_an_alarm_has_data"))
services("CloudWatch: logs", rule("every_log_has_an_end"))
services("CloudWatch: alarms", rule("the_alarms_of_the_architecture_are_as_it_says"))
services("IAM: service roles", lambda s: bool(every(s, "AWS::IAM::Role", RoleName="datahub-task-role")))
services("IAM: policies", rule("resources_are_named"))
