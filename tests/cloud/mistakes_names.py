"""Further mistakes in names that are written out, and in what is written once for each region."""

from contract.shipped import Shipped
from mistakes import mistake, properties, statement


@mistake("scripts_call_things_by_their_names")
def a_script_calls_the_cluster_otherwise(shipped: Shipped) -> None:
    for name, text in shipped.scripts.items():
        shipped.scripts[name] = text.replace("cluster=datahub-cluster", "cluster=datahub")


@mistake("scripts_call_things_by_their_names")
def an_output_is_renamed_under_a_script(shipped: Shipped) -> None:
    outputs = shipped.templates["service"]["Outputs"]
    outputs["Migration"] = outputs.pop("MigrationTaskDefinition")


@mistake("arns_that_are_written_out_exist")
def a_service_is_renamed_under_a_policy(shipped: Shipped) -> None:
    properties(shipped, "service", "AWS::ECS::Service")["ServiceName"] = "gateway"


@mistake("arns_that_are_written_out_exist")
def a_role_is_renamed_under_the_one_that_passes_it(shipped: Shipped) -> None:
    properties(shipped, "service", "AWS::ECS::TaskDefinition", Family="datahub-gateway")
    for one in shipped.templates["service"]["Resources"].values():
        if one["Type"] == "AWS::IAM::Role" and "task-role" in str(one["Properties"]["RoleName"]):
            one["Properties"]["RoleName"] = "datahub-gateway-role"


@mistake("arns_that_are_written_out_exist")
def copies_go_to_a_vault_that_does_not_exist(shipped: Shipped) -> None:
    properties(shipped, "data", "AWS::Backup::BackupVault")["BackupVaultName"] = "datahub-backups"
    properties(shipped, "recovery", "AWS::Backup::BackupVault")["BackupVaultName"] = "datahub-copies"


@mistake("functions_know_their_cluster_and_service")
def new_tasks_are_asked_of_another_service(shipped: Shipped) -> None:
    function = properties(shipped, "data", "AWS::Lambda::Function", FunctionName="datahub-compose")
    function["Environment"]["Variables"]["SERVICE"] = "gateway"


@mistake("the_recovery_region_names_secrets_that_are_copied_to_it")
def the_pepper_is_not_copied_to_the_recovery_region(shipped: Shipped) -> None:
    del properties(shipped, "data", "AWS::SecretsManager::Secret", Name="datahub/api-key-pepper")[
        "ReplicaRegions"
    ]


@mistake("policies_of_a_region_stay_in_their_account")
def a_policy_names_the_account(shipped: Shipped) -> None:
    statement(shipped, "pipeline", "ecs:UpdateService")[
        "Resource"
    ] = "arn:aws:ecs:us-east-1:222222222222:service/datahub-cluster/datahub-gateway"


@mistake("the_recovery_region_is_made_like_the_first")
def the_replica_allows_fewer_connections(shipped: Shipped) -> None:
    shipped.templates["recovery"]["Parameters"]["MaxConnections"]["Default"] = 200


@mistake("the_recovery_region_is_made_like_the_first")
def a_setting_of_the_database_is_changed_in_one_region(shipped: Shipped) -> None:
    properties(shipped, "data", "AWS::RDS::DBParameterGroup")["Parameters"]["log_statement"] = "all"


@mistake("every_door_has_the_same_firewall")
def the_firewall_is_changed_in_one_region(shipped: Shipped) -> None:
    rules = properties(shipped, "edge", "AWS::WAFv2::WebACL", Scope="REGIONAL")["Rules"]
    rules[:] = [one for one in rules if one.get("Name") != "reputation"]


@mistake("the_recovery_region_is_configured_like_the_first")
def a_route_is_added_in_one_region(shipped: Shipped) -> None:
    shipped.conf["production"]["routes"]["billing"] = {
        "path": "/billing/*",
        "auth": "jwt",
        "upstream": "api",
    }


@mistake("the_recovery_region_is_configured_like_the_first")
def an_upstream_is_added_in_one_region(shipped: Shipped) -> None:
    shipped.conf["production"]["upstreams"]["billing"] = {"endpoints": ["10.0.11.201:8080"]}
