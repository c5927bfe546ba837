"""Ports and names along the way of a request, and along the way of a failover."""

from collections.abc import Iterator
from typing import Any

from contract import alarms
from contract.networks import GROUP, identity, networks
from contract.protection import CACHE, DATABASE, true
from contract.rule import rule, rule_about
from contract.shipped import Place, Shipped
from contract.tasks import LISTENER, container, with_service

# The zone of all distributions: no health is known of them, and a name that leads there has no second place.
CLOUDFRONT = "Z2FDTNDATAQYW2"

NOWHERE = ("127.0.0.1/32", 1, 1)


@rule_about(DATABASE, CACHE)
def stores_listen_where_tasks_speak(shipped: Shipped) -> Iterator[str]:
    """5432 and 6379: the ports that security groups open and that URLs name."""
    for place in shipped.places:
        for kind, port in ((DATABASE, 5432), (CACHE, 6379)):
            for key, store in place.resources(kind).items():
                if int(store.get("Port", port)) != port:
                    yield f"{place}: {key} listens on {store['Port']}, and tasks may speak to {port}"


def egress(place: Place, export: str) -> set[tuple[str, Any, Any]]:
    """(to whom, first port, last port) for everything that a group may reach."""
    token = identity(place, export)
    for key, group in place.resources(GROUP).items():
        if token in (f"<{key}>", f"<{key}.GroupId>"):
            return {
                (
                    rule.get("DestinationSecurityGroupId") or rule.get("CidrIp", "?"),
                    int(rule["FromPort"]),
                    int(rule["ToPort"]),
                )
                for rule in group.get("SecurityGroupEgress", [])
            }
    return set()


@rule_about(GROUP)
def each_tier_speaks_only_to_the_one_behind_it(shipped: Shipped) -> Iterator[str]:
    """The balancer to tasks, tasks to stores, to upstreams in the VPC and by HTTPS; stores to nobody."""
    for place in networks(shipped):
        network = place.stacks["network"]
        tasks, database, cache = (
            identity(place, f"{name}SecurityGroup") for name in ("Task", "Database", "Cache")
        )
        upstreams = tuple(int(network.parameters[f"UpstreamPort{end}"]) for end in ("From", "To"))
        inside = "<network/Vpc.CidrBlock>"
        wanted = {
            "LoadBalancerSecurityGroup": {(tasks, 3000, 3000)},
            "TaskSecurityGroup": {
                ("0.0.0.0/0", 443, 443),
                (database, 5432, 5432),
                (cache, 6379, 6379),
                (inside, *upstreams),
            },
            "DatabaseSecurityGroup": {NOWHERE},
            "CacheSecurityGroup": {NOWHERE},
        }
        for name, allowed in wanted.items():
            if egress(place, name) != allowed:
                yield f"{place}: {name} speaks to {sorted(egress(place, name))}, not {sorted(allowed)}"


@rule_about(LISTENER)
def a_redirect_leads_to_the_listener_with_tls(shipped: Shipped) -> Iterator[str]:
    """From 80 to the port that answers, for good."""
    for place in with_service(shipped):
        ports = {
            str(one["Port"]) for one in place.resources(LISTENER).values() if one["Protocol"] == "HTTPS"
        }
        for key, listener in place.resources(LISTENER).items():
            for action in listener["DefaultActions"]:
                redirect = action.get("RedirectConfig")
                if redirect and (
                    {str(redirect.get("Port"))} != ports or redirect.get("StatusCode") != "HTTP_301"
                ):
                    yield f"{place}: {key}: leads to {redirect}"


@rule
def nobody_reaches_into_a_task(shipped: Shipped) -> Iterator[str]:
    """No shell, and the operator's port only for the group that a parameter names."""
    for place in with_service(shipped):
        for key, service in place.resources("AWS::ECS::Service").items():
            if true(service.get("EnableExecuteCommand")):
                yield f"{place}: {key}: commands can be run in tasks"
        for name in ("datahub-gateway", "datahub-migrate"):
            inside = container(place, name)
            if not true(inside.get("Essential")):
                yield f"{place}: {name}: goes on without its container"
            if inside.get("LinuxParameters", {}).get("Capabilities", {}).get("Drop") != ["ALL"]:
                yield f"{place}: {name}: keeps capabilities"
        address = shipped.configuration(place).get("admin", {}).get("address", "127.0.0.1:9901")
        port = int(address.rsplit(":", 1)[1])
        for key, ingress in place.resources("AWS::EC2::SecurityGroupIngress").items():
            if key.startswith("service/") and (ingress["FromPort"], ingress["ToPort"]) != (port, port):
                yield f"{place}: {key}: opens {ingress['FromPort']}, the operator's port is {port}"


@rule_about("AWS::Route53::RecordSet", "AWS::Route53::HealthCheck")
def names_follow_health(shipped: Shipped) -> Iterator[str]:
    """Both records of a failover look at their balancer, the first also at a check from outside."""
    for place in with_service(shipped):
        for key, record in place.resources("AWS::Route53::RecordSet").items():
            if "Failover" not in record:
                continue
            # Route 53 takes no primary record without one, whatever it leads to.
            if record["Failover"] == "PRIMARY" and not record.get("HealthCheckId"):
                yield f"{place}: {key}: has no health check"
            target = record.get("AliasTarget", {})
            if target.get("HostedZoneId") == CLOUDFRONT:
                continue
            if not true(target.get("EvaluateTargetHealth")):
                yield f"{place}: {key}: leads to a balancer without healthy tasks"
            if record.get("SetIdentifier") != place.region:
                yield f"{place}: {key}: is called {record.get('SetIdentifier')}"
        for key, check in place.resources("AWS::Route53::HealthCheck").items():
            config = check["HealthCheckConfig"]
            if (config.get("Type"), config.get("Port")) != ("HTTPS", 443) or not true(
                config.get("EnableSNI")
            ):
                yield f"{place}: {key}: asks {config.get('Type')} on {config.get('Port')}"
            # CAPACITY.md counts two minutes of the thirty for it.
            if int(config["RequestInterval"]) * int(config["FailureThreshold"]) > 90:
                yield f"{place}: {key}: sees a failure only after two minutes"


@rule_about("AWS::SecretsManager::Secret")
def generated_secrets_are_long_and_go_anywhere(shipped: Shipped) -> Iterator[str]:
    """At least 32 bytes, as the gateway demands, and no sign that a URL or ElastiCache would not take."""
    for place in shipped.places:
        for key, secret in place.resources("AWS::SecretsManager::Secret").items():
            how = secret.get("GenerateSecretString")
            if how and (int(how.get("PasswordLength", 32)) < 32 or not true(how.get("ExcludePunctuation"))):
                yield f"{place}: {key}: is generated as {how}"


@rule_about("AWS::EC2::VPC")
def names_resolve_inside_the_network(shipped: Shipped) -> Iterator[str]:
    """Databases, Redis and endpoints of AWS are known by name."""
    for place in networks(shipped):
        for key, vpc in place.resources("AWS::EC2::VPC").items():
            if not (true(vpc.get("EnableDnsSupport")) and true(vpc.get("EnableDnsHostnames"))):
                yield f"{place}: {key}: has no names"
        for key, endpoint in place.resources("AWS::EC2::VPCEndpoint").items():
            if endpoint.get("VpcEndpointType") == "Interface" and not true(
                endpoint.get("PrivateDnsEnabled")
            ):
                yield f"{place}: {key}: nobody would find it"


@rule_about("AWS::ApplicationAutoScaling::ScalingPolicy")
def scaling_comes_before_its_alarm(shipped: Shipped) -> Iterator[str]:
    """A target below the alarm's threshold: the alarm says that scaling was not enough."""
    for place in shipped.places:
        for kind, name in (("CPU", "datahub-high-cpu"), ("Memory", "datahub-high-memory")):
            alarm = alarms.alarms(place).get(name)
            for key, policy in place.resources("AWS::ApplicationAutoScaling::ScalingPolicy").items():
                target = policy.get("TargetTrackingScalingPolicyConfiguration", {})
                if alarm and f"Average{kind}Utilization" in str(target):
                    if float(target["TargetValue"]) > float(alarm["Threshold"]) - 10:
                        yield f"{place}: {key} aims at {target['TargetValue']}, {name} is at {alarm['Threshold']}"


@rule_about("AWS::KMS::Key")
def what_is_copied_can_be_read_there(shipped: Shipped) -> Iterator[str]:
    """The key of the data is of several regions: that cannot be changed later."""
    arn = shipped.production.export("datahub-KeyArn")
    for key, one in shipped.production.resources("AWS::KMS::Key").items():
        if arn == f"<{key}.Arn>" and not true(one.get("MultiRegion")):
            yield f"{key} is of one region only"
    if not shipped.place("production", "us-west-2").resources("AWS::KMS::ReplicaKey"):
        yield "us-west-2 has no replica of the key"
