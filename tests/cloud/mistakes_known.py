"""The 23 mistakes on which the linter was tried: it saw the first fourteen and missed the last nine."""

from contract.shipped import Shipped
from mistakes import alarm, container, dashboard, mistake, properties, statement

LINT = "cfn_lint_has_no_findings"
SERVICE = "AWS::ECS::Service"


@mistake(LINT)
def a_property_is_misspelt(shipped: Shipped) -> None:
    service = properties(shipped, "service", SERVICE)
    service["ServiceNme"] = service.pop("ServiceName")


@mistake(LINT)
def a_value_is_none_of_the_allowed(shipped: Shipped) -> None:
    properties(shipped, "service", SERVICE)["LaunchType"] = "FARGATE_SERVERLESS"


@mistake(LINT)
def a_reference_leads_nowhere(shipped: Shipped) -> None:
    properties(shipped, "service", SERVICE)["Cluster"] = {"Ref": "Clustre"}


@mistake(LINT)
def an_attribute_does_not_exist(shipped: Shipped) -> None:
    task = properties(shipped, "service", "AWS::ECS::TaskDefinition", Family="datahub-gateway")
    task["TaskRoleArn"]["Fn::GetAtt"][1] = "Name"


@mistake(LINT)
def fargate_has_no_task_of_this_size(shipped: Shipped) -> None:
    properties(shipped, "service", "AWS::ECS::TaskDefinition", Family="datahub-gateway")["Memory"] = "8192"


@mistake(LINT)
def an_alarm_has_two_statistics(shipped: Shipped) -> None:
    alarm(shipped, "high-latency")["Statistic"] = "Average"


@mistake(LINT)
def a_block_of_addresses_is_none(shipped: Shipped) -> None:
    properties(shipped, "network", "AWS::EC2::Subnet")["CidrBlock"] = "10.0.1.0/33"


@mistake("subnets_lie_in_their_network_and_apart")
def a_subnet_lies_outside_of_its_network(shipped: Shipped) -> None:
    properties(shipped, "network", "AWS::EC2::Subnet")["CidrBlock"] = "10.9.1.0/24"


@mistake("subnets_lie_in_their_network_and_apart")
def two_subnets_overlap(shipped: Shipped) -> None:
    properties(shipped, "network", "AWS::EC2::Subnet")["CidrBlock"] = {"Fn::Sub": "${AddressPrefix}.0.0/22"}


@mistake(LINT)
def an_action_is_misspelt(shipped: Shipped) -> None:
    statement(shipped, "service", "ecr:GetAuthorizationToken")["Action"] = "ecr:GetAuthorisationToken"


@mistake(LINT)
def a_database_has_a_class_that_does_not_exist(shipped: Shipped) -> None:
    properties(shipped, "data", "AWS::RDS::DBInstance")["DBInstanceClass"] = "db.r6g.largest"


@mistake(LINT)
def https_has_no_certificate(shipped: Shipped) -> None:
    del properties(shipped, "service", "AWS::ElasticLoadBalancingV2::Listener", Port=443)["Certificates"]


@mistake(LINT)
def an_alarm_has_a_period_of_45_seconds(shipped: Shipped) -> None:
    alarm(shipped, "high-cpu")["Period"] = 45


@mistake("every_alarm_reaches_a_composite")
def a_composite_names_no_alarm(shipped: Shipped) -> None:
    alarm(shipped, "page")["AlarmRule"] = 'ALARM("datahub-low-helth")'


# ---- and those that the linter does not see ----


@mistake("every_series_of_an_alarm_has_data")
def an_alarm_names_a_metric_that_nobody_publishes(shipped: Shipped) -> None:
    alarm(shipped, "high-cpu")["MetricName"] = "CpuUtilization"


@mistake("every_series_of_an_alarm_has_data")
def an_alarm_names_a_dimension_that_does_not_exist(shipped: Shipped) -> None:
    alarm(shipped, "high-cpu")["Dimensions"][0]["Name"] = "Cluster"


@mistake("metric_math_is_complete")
def metric_math_names_an_unknown_id(shipped: Shipped) -> None:
    metric = next(one for one in alarm(shipped, "db-connections-primary")["Metrics"] if one["Id"] == "c")
    metric["Id"] = "connections"


@mistake("metric_math_is_complete")
def metric_math_returns_two_series(shipped: Shipped) -> None:
    for metric in alarm(shipped, "high-error-rate")["Metrics"]:
        metric.pop("ReturnData", None)


@mistake("every_series_of_an_alarm_has_data")
def a_percentile_is_above_a_hundred(shipped: Shipped) -> None:
    alarm(shipped, "high-latency")["ExtendedStatistic"] = "p199"


@mistake("one_port_from_the_balancer_to_the_listener")
def the_container_listens_on_another_port_than_the_target_group(shipped: Shipped) -> None:
    container(shipped)["PortMappings"][0]["ContainerPort"] = 8080


@mistake("redis_is_a_cluster_with_tls_and_a_password")
def redis_has_a_password_and_no_tls(shipped: Shipped) -> None:
    properties(shipped, "data", "AWS::ElastiCache::ReplicationGroup")["TransitEncryptionEnabled"] = False


@mistake("secrets_are_granted_exactly")
def a_secret_is_not_granted_to_the_execution_role(shipped: Shipped) -> None:
    readable = statement(shipped, "service", "secretsmanager:GetSecretValue")["Resource"]
    readable.remove({"Fn::ImportValue": "datahub-RedisUrlSecret"})


@mistake("dashboards_parse")
def the_dashboard_is_not_json(shipped: Shipped) -> None:
    dashboard(shipped, '"widgets": [', '"widgets": [,')
