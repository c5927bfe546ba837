"""The gateway as a task: what ECS, the load balancer, the image and `conf/environments` must agree on."""

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

from contract.rule import rule, rule_about
from contract.shipped import Place, Shipped

TASKS = "AWS::ECS::TaskDefinition"
TARGETS = "AWS::ElasticLoadBalancingV2::TargetGroup"
BALANCER = "AWS::ElasticLoadBalancingV2::LoadBalancer"
LISTENER = "AWS::ElasticLoadBalancingV2::Listener"
RULE = "AWS::ElasticLoadBalancingV2::ListenerRule"

# What the gateway takes where its configuration says nothing; conf/gateway.toml shows the same.
DEFAULTS = {
    ("drain", "announce"): "10s",
    ("drain", "deadline"): "50s",
    ("http", "idle_timeout"): "75s",
    ("http", "head_timeout"): "10s",
}


def seconds(shipped: Shipped, place: Place, table: str, key: str) -> float:
    """A duration of the gateway's configuration."""
    text = shipped.configuration(place).get(table, {}).get(key, DEFAULTS[table, key])
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def family(place: Place, name: str) -> dict[str, Any]:
    """The task definition of a family; empty if there is none."""
    return next((one for one in place.resources(TASKS).values() if one.get("Family") == name), {})


def container(place: Place, name: str = "datahub-gateway") -> dict[str, Any]:
    """The one container of a family; empty if there is none."""
    return next(iter(family(place, name).get("ContainerDefinitions", [])), {})


def attributes(resource: dict[str, Any], key: str) -> dict[str, str]:
    """The attributes of a load balancer or a target group."""
    return {pair["Key"]: str(pair["Value"]) for pair in resource.get(key, [])}


def with_service(shipped: Shipped) -> Iterator[Place]:
    """The places that run the gateway: all."""
    yield from (place for place in shipped.places if "service" in place.stacks)


@rule_about(TASKS, TARGETS, "AWS::ECS::Service")
def one_port_from_the_balancer_to_the_listener(shipped: Shipped) -> Iterator[str]:
    """Target group, service, container, image, security group and `[listeners]` name the same port."""
    exposed = re.findall(r"^EXPOSE (\d+)", shipped.dockerfile, re.M)
    for place in with_service(shipped):
        listeners = shipped.configuration(place).get("listeners", {}).values()
        ports = {int(one["address"].rsplit(":", 1)[1]) for one in listeners if "tls" not in one}
        if len(ports) != 1 or exposed != [str(port) for port in ports]:
            yield f"{place}: the gateway listens on {sorted(ports)}, the image exposes {exposed}"
            continue
        (port,) = ports
        seen = {
            "container": [int(one["ContainerPort"]) for one in container(place).get("PortMappings", [])],
            "target group": [int(one["Port"]) for one in place.resources(TARGETS).values()],
            "service": [
                int(one["ContainerPort"])
                for service in place.resources("AWS::ECS::Service").values()
                for one in service.get("LoadBalancers", [])
            ],
        }
        for what, found in seen.items():
            if found != [port]:
                yield f"{place}: the port of the {what} is {found}, the gateway listens on {port}"
        for target in place.resources(TARGETS).values():
            if str(target.get("HealthCheckPort", "traffic-port")) not in ("traffic-port", str(port)):
                yield f"{place}: the health check asks port {target['HealthCheckPort']}"
            if target.get("Protocol") != "HTTP" or target.get("TargetType") != "ip":
                yield f"{place}: a task of awsvpc is an ip target, and speaks HTTP"


@rule_about("AWS::ECS::Service", LISTENER)
def the_service_runs_the_container_that_is_defined(shipped: Shipped) -> Iterator[str]:
    """The balancer's container is in the task definition, and its target group has a listener."""
    for place in with_service(shipped):
        used = {
            group.get("TargetGroupArn")
            for listener in [*place.resources(LISTENER).values(), *place.resources(RULE).values()]
            for action in listener.get("DefaultActions", listener.get("Actions", []))
            for group in [action, *action.get("ForwardConfig", {}).get("TargetGroups", [])]
        }
        for key, service in place.resources("AWS::ECS::Service").items():
            names = [
                one["Name"] for one in family(place, "datahub-gateway").get("ContainerDefinitions", [])
            ]
            for balancer in service.get("LoadBalancers", []):
                if balancer.get("ContainerName") not in names:
                    yield f"{place}: {key}: no container is called {balancer.get('ContainerName')}"
                if balancer.get("TargetGroupArn") not in used:
                    yield f"{place}: {key}: no listener forwards to its target group"


@rule_about(TARGETS, "AWS::Route53::HealthCheck")
def health_is_asked_where_the_gateway_answers(shipped: Shipped) -> Iterator[str]:
    """`/health` needs no route; every 30 s, as the architecture has it, and answered in time."""
    for place in with_service(shipped):
        for key, target in place.resources(TARGETS).items():
            if (
                target.get("HealthCheckPath") != "/health"
                or target.get("Matcher", {}).get("HttpCode") != "200"
            ):
                yield f"{place}: {key}: asks {target.get('HealthCheckPath')}, and takes {target.get('Matcher')}"
            if int(target.get("HealthCheckIntervalSeconds", 0)) != 30:
                yield f"{place}: {key}: every {target.get('HealthCheckIntervalSeconds')} s"
            if int(target.get("HealthCheckTimeoutSeconds", 5)) >= int(
                target.get("HealthCheckIntervalSeconds", 30)
            ):
                yield f"{place}: {key}: the time-out is not below the interval"
        for key, check in place.resources("AWS::Route53::HealthCheck").items():
            config = check.get("HealthCheckConfig", {})
            if config.get("Type") == "HTTPS" and config.get("ResourcePath") != "/health":
                yield f"{place}: {key}: asks {config.get('ResourcePath')}"
        command = container(place).get("HealthCheck", {}).get("Command", [])
        if command != ["CMD", "/usr/local/bin/gateway", "healthcheck"]:
            yield f"{place}: the container's health check is {command}: the image has no shell"


@rule_about(TARGETS)
def a_drain_has_its_time(shipped: Shipped) -> Iterator[str]:
    """SIGTERM, then `announce` while the balancer stops sending, then to `deadline`; ECS kills after that."""
    for place in with_service(shipped):
        announce = seconds(shipped, place, "drain", "announce")
        deadline = seconds(shipped, place, "drain", "deadline")
        if not 5 <= announce < deadline:
            yield f"{place}: {announce:g} s of announcing, before {deadline:g} s"
        stop = int(container(place).get("StopTimeout", 30))
        if not deadline < stop <= 120:
            yield f"{place}: stopTimeout {stop} s must be above drain.deadline {deadline:g} s, and at most 120"
        for key, target in place.resources(TARGETS).items():
            delay = int(
                attributes(target, "TargetGroupAttributes").get("deregistration_delay.timeout_seconds", 300)
            )
            # The balancer must not cut off what the gateway still answers.
            if not deadline <= delay <= stop:
                yield f"{place}: {key}: deregistration {delay} s is not within {deadline:g} to {stop} s"


@rule_about(BALANCER)
def the_gateway_keeps_connections_longer_than_the_balancer(shipped: Shipped) -> Iterator[str]:
    """Or the balancer sends a request on a connection that is just being closed: a 502."""
    for place in with_service(shipped):
        keep = seconds(shipped, place, "http", "idle_timeout")
        for key, balancer in place.resources(BALANCER).items():
            idle = int(
                attributes(balancer, "LoadBalancerAttributes").get("idle_timeout.timeout_seconds", 60)
            )
            if keep < idle + 5:
                yield f"{place}: {key}: idle {idle} s, the gateway's keep-alive is {keep:g} s"


@rule_about("AWS::ECS::Service")
def the_container_is_closed(shipped: Shipped) -> Iterator[str]:
    """Nothing to write to, not root, nothing on the internet, and everything it says is kept."""
    for place in with_service(shipped):
        for name in ("datahub-gateway", "datahub-migrate"):
            task, inside = family(place, name), container(place, name)
            if not inside:
                yield f"{place}: no task definition is called {name}"
                continue
            if str(inside.get("ReadonlyRootFilesystem")).lower() != "true":
                yield f"{place}: {name}: its root can be written to"
            if str(inside.get("User", "")).split(":")[0] != "65532":
                yield f"{place}: {name}: runs as {inside.get('User')}, the image's user is 65532"
            if str(inside.get("Privileged", "false")).lower() == "true":
                yield f"{place}: {name}: is privileged"
            log = inside.get("LogConfiguration", {})
            groups = {one.get("LogGroupName") for one in place.resources("AWS::Logs::LogGroup").values()}
            if log.get("LogDriver") != "awslogs" or log["Options"].get("awslogs-group") not in groups:
                yield f"{place}: {name}: its log goes to {log}"
            elif log["Options"].get("awslogs-region") != place.region:
                yield f"{place}: {name}: its log goes to region {log['Options'].get('awslogs-region')}"
            if task.get("NetworkMode") != "awsvpc" or task.get("RequiresCompatibilities") != ["FARGATE"]:
                yield f"{place}: {name}: is not a Fargate task"
        for key, service in place.resources("AWS::ECS::Service").items():
            network = service.get("NetworkConfiguration", {}).get("AwsvpcConfiguration", {})
            if network.get("AssignPublicIp", "DISABLED") != "DISABLED":
                yield f"{place}: {key}: its tasks have public addresses"
            if _flat(network.get("Subnets")) != _flat(place.export("datahub-AppSubnets")):
                yield f"{place}: {key}: runs in {network.get('Subnets')}, not in the application subnets"
            if _flat(network.get("SecurityGroups")) != _flat(place.export("datahub-TaskSecurityGroup")):
                yield f"{place}: {key}: has the security groups {network.get('SecurityGroups')}"


def _flat(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


@rule_about("AWS::ECS::Service")
def a_bad_deployment_rolls_back_by_itself(shipped: Shipped) -> Iterator[str]:
    """Circuit breaker with rollback, never fewer tasks than wanted, and room for the new ones."""
    for place in with_service(shipped):
        for key, service in place.resources("AWS::ECS::Service").items():
            how = service.get("DeploymentConfiguration", {})
            breaker = how.get("DeploymentCircuitBreaker", {})
            if not (_true(breaker.get("Enable")) and _true(breaker.get("Rollback"))):
                yield f"{place}: {key}: the circuit breaker does not roll back"
            if (int(how.get("MinimumHealthyPercent", 0)), int(how.get("MaximumPercent", 0))) != (100, 200):
                yield f"{place}: {key}: goes below what is wanted, or has no room"
            if str(service.get("PlatformVersion")) != "1.4.0":
                yield f"{place}: {key}: platform {service.get('PlatformVersion')}"


def _true(value: Any) -> bool:
    return str(value).lower() == "true"


@rule_about("AWS::ApplicationAutoScaling::ScalableTarget")
def a_deployment_does_not_undo_scaling(shipped: Shipped) -> Iterator[str]:
    """Scaling owns the number of tasks: the limits fit, and it starts from the number wanted."""
    for place in with_service(shipped):
        targets = place.resources("AWS::ApplicationAutoScaling::ScalableTarget")
        for key, target in targets.items():
            low, high = int(target["MinCapacity"]), int(target["MaxCapacity"])
            if not 0 <= low <= high:
                yield f"{place}: {key}: from {low} to {high}"
            wanted = [
                int(one["DesiredCount"])
                for one in place.resources("AWS::ECS::Service").values()
                if "DesiredCount" in one
            ]
            if any(not low <= one <= high for one in wanted):
                yield f"{place}: {key}: {wanted} is not within {low} to {high}"
        metrics = {
            policy.get("TargetTrackingScalingPolicyConfiguration", {})
            .get("PredefinedMetricSpecification", {})
            .get("PredefinedMetricType")
            for policy in place.resources("AWS::ApplicationAutoScaling::ScalingPolicy").values()
        }
        wanted_metrics = {"ECSServiceAverageCPUUtilization", "ECSServiceAverageMemoryUtilization"}
        if targets and not wanted_metrics <= metrics:
            yield f"{place}: no target tracking for {sorted(wanted_metrics - metrics)}"


@rule_about("AWS::EC2::Subnet")
def the_balancer_is_believed_and_nobody_outside(shipped: Shipped) -> Iterator[str]:
    """`http.trusted_proxies` has the subnets of the balancer in every region, and only private addresses."""
    for place in with_service(shipped):
        trusted = [
            ip_network(one)
            for one in shipped.configuration(place).get("http", {}).get("trusted_proxies", [])
        ]
        for key, subnet in place.resources("AWS::EC2::Subnet").items():
            block = ip_network(subnet["CidrBlock"])
            if "Public" in key and not any(block.subnet_of(one) for one in trusted):
                yield f"{place}: http.trusted_proxies leaves out {key} {block}"
        for one in trusted:
            if not one.is_private:
                yield f"{place}: http.trusted_proxies believes {one}"


@rule
def the_fleet_is_as_large_as_its_configuration_says(shipped: Shipped) -> Iterator[str]:
    """`fleet.expected` is the number of tasks wanted: what a limit is divided by while Redis is away."""
    for place in shipped.places:
        service = place.stacks.get("service")
        if service is None or service.parameters.get("Role") == "standby":
            continue
        expected = shipped.configuration(place).get("fleet", {}).get("expected", 1)
        if str(service.parameters.get("DesiredCount")) != str(expected):
            yield f"{place}: fleet.expected is {expected}, DesiredCount {service.parameters.get('DesiredCount')}"


@rule
def the_database_has_connections_for_all(shipped: Shipped) -> Iterator[str]:
    """The most tasks, twice over for a deployment, each with its pool and two more; RDS keeps some for itself."""
    for place in with_service(shipped):
        allowed = place.export("datahub-MaxConnections")
        pool = int(shipped.configuration(place).get("store", {}).get("postgres", {}).get("pool", 10))
        # Where the primary is its own replica, it has the connections of both.
        pools = (
            2 if place.export("datahub-ReplicaInstance") == place.export("datahub-DatabaseInstance") else 1
        )
        tasks = int(place.stacks["service"].parameters.get("MaxTasks", 10))
        if allowed is not None and 2 * tasks * (pools * pool + 2) > float(allowed) - 20:
            yield f"{place}: {tasks} tasks with {pools} pools of {pool}, and {allowed} connections of the database"


@rule
def every_upstream_can_be_reached(shipped: Shipped) -> Iterator[str]:
    """In each region: an endpoint in the VPC, or on the internet, and a port that tasks may speak to."""
    for place in with_service(shipped):
        network = place.stacks["network"]
        blocks = [ip_network(vpc["CidrBlock"]) for vpc in place.resources("AWS::EC2::VPC").values()]
        first, last = (int(network.parameters[f"UpstreamPort{end}"]) for end in ("From", "To"))
        for name, upstream in shipped.configuration(place).get("upstreams", {}).items():
            near = []
            for endpoint in upstream["endpoints"]:
                address, _, port = (
                    endpoint if isinstance(endpoint, str) else endpoint["address"]
                ).rpartition(":")
                inside = any(ip_address(address) in block for block in blocks)
                if inside and not (first <= int(port) <= last or int(port) == 443):
                    yield f"{place}: upstream {name}: tasks may not speak to port {port}"
                near += [address] * (inside or ip_address(address).is_global)
            if not near:
                yield f"{place}: upstream {name}: none of {upstream['endpoints']} can be reached from here"
