"""Further mistakes around the task: its container, its secrets, its roles, and the balancer before it."""

from contract.shipped import Shipped
from mistakes import attribute, container, mistake, properties, statement

SERVICE = "AWS::ECS::Service"
TARGETS = "AWS::ElasticLoadBalancingV2::TargetGroup"
BALANCER = "AWS::ElasticLoadBalancingV2::LoadBalancer"
LISTENER = "AWS::ElasticLoadBalancingV2::Listener"
TASK = "AWS::ECS::TaskDefinition"


@mistake("one_port_from_the_balancer_to_the_listener")
def the_gateway_listens_on_another_port(shipped: Shipped) -> None:
    for listener in shipped.conf["production"]["listeners"].values():
        listener["address"] = "0.0.0.0:8080"


@mistake("one_port_from_the_balancer_to_the_listener")
def the_health_check_asks_the_operators_port(shipped: Shipped) -> None:
    properties(shipped, "service", TARGETS)["HealthCheckPort"] = "9901"


@mistake("the_service_runs_the_container_that_is_defined")
def the_container_is_renamed_in_one_place(shipped: Shipped) -> None:
    container(shipped)["Name"] = "datahub"


@mistake("health_is_asked_where_the_gateway_answers")
def the_health_check_asks_a_path_that_needs_a_route(shipped: Shipped) -> None:
    properties(shipped, "service", TARGETS)["HealthCheckPath"] = "/healthz"


@mistake("health_is_asked_where_the_gateway_answers")
def the_containers_health_check_wants_a_shell(shipped: Shipped) -> None:
    container(shipped)["HealthCheck"]["Command"] = ["CMD-SHELL", "curl -f http://localhost:3000/health"]


@mistake("a_drain_has_its_time")
def ecs_kills_before_the_drain_is_over(shipped: Shipped) -> None:
    container(shipped)["StopTimeout"] = 30


@mistake("a_drain_has_its_time")
def the_drain_is_made_longer_in_the_configuration_only(shipped: Shipped) -> None:
    shipped.conf["production"].setdefault("drain", {})["deadline"] = "90s"


@mistake("a_drain_has_its_time")
def the_balancer_drains_for_five_minutes(shipped: Shipped) -> None:
    attribute(
        properties(shipped, "service", TARGETS),
        "TargetGroupAttributes",
        "deregistration_delay.timeout_seconds",
        "300",
    )


@mistake("the_gateway_keeps_connections_longer_than_the_balancer")
def the_balancer_keeps_connections_longer_than_the_gateway(shipped: Shipped) -> None:
    attribute(
        properties(shipped, "service", BALANCER),
        "LoadBalancerAttributes",
        "idle_timeout.timeout_seconds",
        "120",
    )


@mistake("the_container_is_closed")
def the_root_of_the_container_can_be_written_to(shipped: Shipped) -> None:
    container(shipped)["ReadonlyRootFilesystem"] = False


@mistake("the_container_is_closed")
def tasks_have_public_addresses(shipped: Shipped) -> None:
    network = properties(shipped, "service", SERVICE)["NetworkConfiguration"]["AwsvpcConfiguration"]
    network["AssignPublicIp"] = "ENABLED"


@mistake("the_container_is_closed")
def tasks_run_in_the_public_subnets(shipped: Shipped) -> None:
    network = properties(shipped, "service", SERVICE)["NetworkConfiguration"]["AwsvpcConfiguration"]
    network["Subnets"] = {"Fn::Split": [",", {"Fn::ImportValue": "datahub-PublicSubnets"}]}


@mistake("a_bad_deployment_rolls_back_by_itself")
def a_bad_deployment_is_stopped_but_not_rolled_back(shipped: Shipped) -> None:
    properties(shipped, "service", SERVICE)["DeploymentConfiguration"]["DeploymentCircuitBreaker"][
        "Rollback"
    ] = False


@mistake("a_deployment_does_not_undo_scaling")
def memory_does_not_scale(shipped: Shipped) -> None:
    resources = shipped.templates["service"]["Resources"]
    for key, one in list(resources.items()):
        if "ECSServiceAverageMemoryUtilization" in str(one):
            del resources[key]


@mistake("a_deployment_does_not_undo_scaling")
def fewer_tasks_are_wanted_than_scaling_allows(shipped: Shipped) -> None:
    shipped.parameters["staging/service"]["Parameters"]["DesiredCount"] = "1"
    shipped.parameters["staging/service"]["Parameters"]["MinTasks"] = "2"


@mistake("the_balancer_is_believed_and_nobody_outside")
def the_recovery_region_is_not_a_trusted_proxy(shipped: Shipped) -> None:
    shipped.conf["recovery"]["http"]["trusted_proxies"] = ["10.0.0.0/16"]


@mistake("the_balancer_is_believed_and_nobody_outside")
def everybody_is_a_trusted_proxy(shipped: Shipped) -> None:
    shipped.conf["production"]["http"]["trusted_proxies"].append("0.0.0.0/0")


@mistake("the_fleet_is_as_large_as_its_configuration_says")
def more_tasks_are_wanted_than_the_configuration_knows(shipped: Shipped) -> None:
    shipped.parameters["production/service"]["Parameters"]["DesiredCount"] = "6"


@mistake("the_database_has_connections_for_all")
def the_pool_is_larger_than_the_database(shipped: Shipped) -> None:
    shipped.conf["production"]["store"]["postgres"]["pool"] = 200


@mistake("secrets_are_granted_exactly")
def a_role_reads_a_secret_that_no_task_has(shipped: Shipped) -> None:
    secrets = container(shipped)["Secrets"]
    secrets[:] = [one for one in secrets if one["Name"] != "ADMIN_TOKEN"]


@mistake("secrets_are_granted_exactly")
def a_role_decrypts_with_every_key(shipped: Shipped) -> None:
    statement(shipped, "service", "kms:Decrypt")["Resource"] = {
        "Fn::Sub": "arn:aws:kms:*:${AWS::AccountId}:key/*"
    }


@mistake("the_gateway_itself_reads_no_secret_and_no_key")
def the_gateway_may_read_secrets(shipped: Shipped) -> None:
    statement(shipped, "service", "cloudwatch:PutMetricData")["Action"] = [
        "cloudwatch:PutMetricData",
        "secretsmanager:GetSecretValue",
    ]


@mistake("every_secret_is_one_that_the_stacks_make")
def a_secret_is_named_by_hand(shipped: Shipped) -> None:
    arn = "arn:aws:secretsmanager:us-east-1:222222222222:secret:datahub/jwt"
    for one in container(shipped)["Secrets"]:
        if one["Name"] == "JWT_SECRET":
            one["ValueFrom"] = arn


@mistake("variables_and_configuration_agree")
def a_variable_is_misspelt(shipped: Shipped) -> None:
    for one in container(shipped)["Secrets"]:
        if one["Name"] == "API_KEY_PEPPER":
            one["Name"] = "APIKEY_PEPPER"


@mistake("variables_and_configuration_agree")
def the_task_runs_with_the_configuration_of_the_other_environment(shipped: Shipped) -> None:
    for one in container(shipped)["Environment"]:
        if one["Name"] == "DATAHUB_CONF":
            one["Value"] = "/app/conf/environments/production"


@mistake("variables_and_configuration_agree")
def a_secret_is_given_in_plain_text(shipped: Shipped) -> None:
    container(shipped)["Environment"].append({"Name": "JWT_SECRET", "Value": "0" * 32})


@mistake("a_migration_knows_only_the_database")
def a_migration_is_given_the_key_of_tokens(shipped: Shipped) -> None:
    container(shipped, "datahub-migrate")["Secrets"].append(
        {"Name": "JWT_SECRET", "ValueFrom": {"Fn::ImportValue": "datahub-JwtSecret"}}
    )


@mistake("a_migration_knows_only_the_database")
def a_migration_starts_a_gateway(shipped: Shipped) -> None:
    container(shipped, "datahub-migrate")["Command"] = ["run"]


@mistake("clients_speak_tls")
def clients_may_speak_tls_1_0(shipped: Shipped) -> None:
    properties(shipped, "service", LISTENER, Port=443)["SslPolicy"] = "ELBSecurityPolicy-2016-08"


@mistake("clients_speak_tls")
def port_80_answers(shipped: Shipped) -> None:
    properties(shipped, "service", LISTENER, Port=80)["DefaultActions"] = [
        {"Type": "forward", "TargetGroupArn": {"Ref": "TargetGroup"}}
    ]


@mistake("clients_speak_tls")
def the_balancer_writes_no_access_log(shipped: Shipped) -> None:
    attribute(
        properties(shipped, "service", BALANCER),
        "LoadBalancerAttributes",
        "access_logs.s3.enabled",
        "false",
    )


@mistake("the_firewall_stands_before_the_balancer")
def the_firewall_is_not_tied_to_the_balancer(shipped: Shipped) -> None:
    resources = shipped.templates["service"]["Resources"]
    for key, one in list(resources.items()):
        if one["Type"] == "AWS::WAFv2::WebACLAssociation":
            del resources[key]


@mistake("the_firewall_stands_before_the_balancer")
def sql_injection_is_only_counted(shipped: Shipped) -> None:
    for one in properties(shipped, "edge", "AWS::WAFv2::WebACL", Scope="REGIONAL")["Rules"]:
        if "AWSManagedRulesSQLiRuleSet" in str(one):
            one["OverrideAction"] = {"Count": {}}


@mistake("images_are_what_they_were")
def a_tag_can_move(shipped: Shipped) -> None:
    properties(shipped, "pipeline", "AWS::ECR::Repository")["ImageTagMutability"] = "MUTABLE"


@mistake("images_are_what_they_were")
def the_service_runs_latest(shipped: Shipped) -> None:
    container(shipped)["Image"] = {
        "Fn::Sub": "${AWS::AccountId}.dkr.ecr.us-east-1.amazonaws.com/datahub:latest"
    }


@mistake("no_role_may_do_everything")
def a_role_may_do_everything_with_containers(shipped: Shipped) -> None:
    statement(shipped, "pipeline", "ecs:UpdateService")["Action"] = "ecs:*"


@mistake("resources_are_named")
def a_role_updates_every_service(shipped: Shipped) -> None:
    statement(shipped, "pipeline", "ecs:UpdateService")["Resource"] = "*"


@mistake("metrics_go_only_to_the_namespace_of_the_gateway")
def the_gateway_may_publish_under_any_name(shipped: Shipped) -> None:
    del statement(shipped, "service", "cloudwatch:PutMetricData")["Condition"]


@mistake("the_task_may_publish_metrics")
def the_gateway_may_not_publish(shipped: Shipped) -> None:
    statement(shipped, "service", "cloudwatch:PutMetricData")["Action"] = "cloudwatch:PutDashboard"


@mistake("roles_are_passed_by_name_to_one_service")
def any_role_may_be_passed(shipped: Shipped) -> None:
    statement(shipped, "pipeline", "iam:PassRole")["Resource"] = {
        "Fn::Sub": "arn:aws:iam::${AWS::AccountId}:role/*"
    }


@mistake("trust_is_narrow")
def every_branch_may_deploy(shipped: Shipped) -> None:
    trust = properties(shipped, "pipeline", "AWS::IAM::Role", RoleName="datahub-deploy")[
        "AssumeRolePolicyDocument"
    ]
    condition = trust["Statement"][0]["Condition"]
    exact = condition["StringEquals"].pop("token.actions.githubusercontent.com:sub")
    assert exact
    condition["StringLike"] = {"token.actions.githubusercontent.com:sub": "repo:datahub/gateway:*"}


@mistake("a_release_asks_for_a_route_that_exists")
def the_route_that_a_release_asks_for_is_renamed(shipped: Shipped) -> None:
    routes = shipped.conf["production"]["routes"]
    assert routes["smoke"].pop("reply")


@mistake("github_proves_the_branch_that_the_role_trusts")
def production_is_deployed_from_another_branch(shipped: Shipped) -> None:
    shipped.workflows["deploy"]["on"]["push"]["branches"] = ["develop", "release"]


@mistake("github_proves_the_branch_that_the_role_trusts")
def a_test_can_prove_itself_to_aws(shipped: Shipped) -> None:
    shipped.workflows["ci"]["jobs"]["test"]["permissions"] = {"id-token": "write"}


@mistake("every_upstream_can_be_reached")
def an_upstream_has_a_port_that_tasks_may_not_speak_to(shipped: Shipped) -> None:
    shipped.conf["staging"]["upstreams"]["billing"] = {"endpoints": ["10.0.11.201:5000"]}


@mistake("every_upstream_can_be_reached")
def the_recovery_region_sends_requests_to_the_first(shipped: Shipped) -> None:
    shipped.conf["recovery"]["upstreams"] = shipped.conf["production"]["upstreams"]
