"""Figures of "ECS Fargate Configuration"."""

from typing import Any

from architecture import every, hears, one, rule, section
from contract import tasks
from contract.resolve import ACCOUNTS
from contract.shipped import Shipped

POLICY = "AWS::ApplicationAutoScaling::ScalingPolicy"
TARGET = "AWS::ApplicationAutoScaling::ScalableTarget"


def task(s: Shipped) -> dict[str, Any]:
    return tasks.family(s.production, "datahub-gateway")


def box(s: Shipped) -> dict[str, Any]:
    return tasks.container(s.production)


def role(s: Shipped, name: str) -> str:
    return f"arn:aws:iam::{ACCOUNTS['production']}:role/{name}"


definition = section("Task Definition")
definition("task: datahub-gateway", lambda s: task(s).get("Family") == "datahub-gateway")
definition("CPU: 512 (0.5 vCPU)", lambda s: str(task(s)["Cpu"]) == "512")
definition("memory: 1024 MB", lambda s: str(task(s)["Memory"]) == "1024")
definition("network mode: awsvpc", lambda s: task(s)["NetworkMode"] == "awsvpc")
definition("task role: datahub-task-role", lambda s: task(s)["TaskRoleArn"] == role(s, "datahub-task-role"))
definition(
    "execution role: datahub-execution-role",
    lambda s: task(s)["ExecutionRoleArn"] == role(s, "datahub-execution-role"),
)
definition(
    "container: gateway", lambda s: [one["Name"] for one in task(s)["ContainerDefinitions"]] == ["gateway"]
)
definition(
    "image: xxxx.dkr.ecr.us-east-1.amazonaws.com/datahub",
    lambda s: one(s, "AWS::ECR::Repository").get("RepositoryName") == "datahub"
    and "/datahub" in s.templates["service"]["Parameters"]["Image"]["AllowedPattern"],
)
definition("image: tag latest", settled="Images")
definition(
    "port mappings: 3000 (HTTP)",
    lambda s: [int(p["ContainerPort"]) for p in box(s)["PortMappings"]] == [3000],
)
definition("health check: /health", rule("health_is_asked_where_the_gateway_answers"))
definition("log driver: awslogs", lambda s: box(s)["LogConfiguration"]["LogDriver"] == "awslogs")
for variable in ("DATABASE_URL", "REDIS_URL", "JWT_SECRET"):
    definition(
        f"from Secrets Manager: {variable}",
        lambda s, variable=variable: variable in {secret["Name"] for secret in box(s)["Secrets"]},
    )
definition("limit: CPU 512 units", lambda s: str(box(s)["Cpu"]) == "512")
definition("limit: memory 1024 MB, hard", lambda s: str(box(s)["Memory"]) == "1024", settled="Memory")
definition(
    "limit: memory 512 MB, soft", lambda s: str(box(s)["MemoryReservation"]) == "512", settled="Memory"
)

service = section("ECS Service Architecture, Mermaid")
service(
    "cluster: datahub-cluster",
    lambda s: one(s, "AWS::ECS::Cluster").get("ClusterName") == "datahub-cluster",
)
service(
    "service: datahub-gateway",
    lambda s: one(s, "AWS::ECS::Service").get("ServiceName") == "datahub-gateway",
)
service(
    "tasks 1, 2 and 3 in AZ-a, AZ-b and AZ-c",
    lambda s: one(s, "AWS::ECS::Service").get("AvailabilityZoneRebalancing") == "ENABLED",
)
service(
    "target tracking: CPU > 70 %",
    lambda s: [
        float(p["TargetTrackingScalingPolicyConfiguration"]["TargetValue"])
        for p in every(s, POLICY, PolicyType="TargetTrackingScaling")
        if "CPUUtilization" in str(p)
    ]
    == [70.0],
)
service("min: 2 tasks", lambda s: str(one(s, TARGET).get("MinCapacity")) == "2")
service("max: 10 tasks", lambda s: str(one(s, TARGET).get("MaxCapacity")) == "10")
service("desired: 3 tasks", lambda s: str(one(s, "AWS::ECS::Service").get("DesiredCount")) == "3")
service(
    "target group: protocol HTTP",
    lambda s: one(s, tasks.TARGETS).get("Protocol") == "HTTP",
    settled="TLS behind the load balancer",
)
service("target group: port 3000", rule("one_port_from_the_balancer_to_the_listener"))
service("health check: path /health", lambda s: one(s, tasks.TARGETS).get("HealthCheckPath") == "/health")
service(
    "health check: interval 30 s",
    lambda s: str(one(s, tasks.TARGETS).get("HealthCheckIntervalSeconds")) == "30",
)
service("load balancer → target group", rule("the_service_runs_the_container_that_is_defined"))
service("target group → tasks", hears("TaskSecurityGroup", "LoadBalancerSecurityGroup", 3000))
service(
    "health check → tasks",
    lambda s: str(one(s, tasks.TARGETS).get("HealthCheckPort")) == "traffic-port",
)
service(
    "scaling policy → service",
    lambda s: one(s, TARGET).get("ScalableDimension") == "ecs:service:DesiredCount"
    and "datahub-cluster" in str(one(s, TARGET).get("ResourceId")),
)
