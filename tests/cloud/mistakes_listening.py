"""Further mistakes in ports, names and health, and in what is off by default."""

from contract.shipped import Shipped
from mistakes import alarm, container, mistake, properties, resource

RECORD = "AWS::Route53::RecordSet"


@mistake("stores_listen_where_tasks_speak")
def the_database_listens_elsewhere(shipped: Shipped) -> None:
    properties(shipped, "data", "AWS::RDS::DBInstance")["Port"] = "5433"


@mistake("each_tier_speaks_only_to_the_one_behind_it")
def tasks_may_speak_to_everybody(shipped: Shipped) -> None:
    group = shipped.templates["network"]["Resources"]["TaskSecurityGroup"]["Properties"]
    group["SecurityGroupEgress"][0]["FromPort"] = 0


@mistake("each_tier_speaks_only_to_the_one_behind_it")
def the_database_may_speak_to_the_internet(shipped: Shipped) -> None:
    del shipped.templates["network"]["Resources"]["DatabaseSecurityGroup"]["Properties"][
        "SecurityGroupEgress"
    ]


@mistake("a_redirect_leads_to_the_listener_with_tls")
def a_redirect_leads_to_a_closed_port(shipped: Shipped) -> None:
    listener = properties(shipped, "service", "AWS::ElasticLoadBalancingV2::Listener", Port=80)
    listener["DefaultActions"][0]["RedirectConfig"]["Port"] = "8443"


@mistake("nobody_reaches_into_a_task")
def commands_can_be_run_in_a_task(shipped: Shipped) -> None:
    properties(shipped, "service", "AWS::ECS::Service")["EnableExecuteCommand"] = True


@mistake("nobody_reaches_into_a_task")
def the_operators_port_is_changed_in_the_configuration_only(shipped: Shipped) -> None:
    shipped.conf["production"]["admin"]["address"] = "0.0.0.0:9902"


@mistake("nobody_reaches_into_a_task")
def a_container_keeps_its_capabilities(shipped: Shipped) -> None:
    del container(shipped)["LinuxParameters"]


@mistake("names_follow_health")
def a_name_leads_to_a_balancer_without_tasks(shipped: Shipped) -> None:
    properties(shipped, "service", RECORD)["AliasTarget"]["EvaluateTargetHealth"] = False


@mistake("names_follow_health")
def a_failure_is_seen_late(shipped: Shipped) -> None:
    properties(shipped, "service", "AWS::Route53::HealthCheck")["HealthCheckConfig"][
        "FailureThreshold"
    ] = 10


@mistake("generated_secrets_are_long_and_go_anywhere")
def a_generated_token_has_signs_that_elasticache_refuses(shipped: Shipped) -> None:
    secret = properties(shipped, "data", "AWS::SecretsManager::Secret", Name="datahub/redis")
    secret["GenerateSecretString"]["ExcludePunctuation"] = False


@mistake("generated_secrets_are_long_and_go_anywhere")
def a_generated_secret_is_too_short_for_the_gateway(shipped: Shipped) -> None:
    secret = properties(shipped, "data", "AWS::SecretsManager::Secret", Name="datahub/jwt-secret")
    secret["GenerateSecretString"]["PasswordLength"] = 24


@mistake("names_resolve_inside_the_network")
def the_network_has_no_names(shipped: Shipped) -> None:
    properties(shipped, "network", "AWS::EC2::VPC")["EnableDnsSupport"] = False


@mistake("names_resolve_inside_the_network")
def an_endpoint_that_is_off_by_default_has_no_name(shipped: Shipped) -> None:
    properties(shipped, "network", "AWS::EC2::VPCEndpoint", VpcEndpointType="Interface")[
        "PrivateDnsEnabled"
    ] = False


@mistake("scaling_comes_before_its_alarm")
def scaling_waits_for_the_alarm(shipped: Shipped) -> None:
    for one in shipped.templates["service"]["Resources"].values():
        if "ECSServiceAverageMemoryUtilization" in str(one):
            one["Properties"]["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] = 85


@mistake("what_is_copied_can_be_read_there")
def the_key_is_of_one_region(shipped: Shipped) -> None:
    properties(shipped, "data", "AWS::KMS::Key")["MultiRegion"] = False


@mistake("no_resource_is_left_out_of_the_checks")
def a_resource_stands_behind_a_condition_that_is_never_true(shipped: Shipped) -> None:
    shipped.templates["network"]["Conditions"]["Never"] = {"Fn::Equals": ["a", "b"]}
    resource(shipped, "network", "AWS::EC2::FlowLog")["Condition"] = "Never"


@mistake("metric_math_is_complete")
def an_alarm_that_is_off_by_default_returns_two_series(shipped: Shipped) -> None:
    for metric in alarm(shipped, "upstream-error-rate-6")["Metrics"]:
        metric.pop("ReturnData", None)


@mistake("names_follow_health")
def a_name_is_not_checked_from_outside(shipped: Shipped) -> None:
    del properties(shipped, "service", RECORD)["HealthCheckId"]


@mistake("names_follow_health")
def a_primary_name_behind_cloudfront_has_no_health_check(shipped: Shipped) -> None:
    name = shipped.templates["service"]["Resources"]["Name"]["Properties"]
    name["HealthCheckId"] = {"Fn::If": ["LeadsToCloudFront", {"Ref": "AWS::NoValue"}, name["HealthCheckId"]]}
