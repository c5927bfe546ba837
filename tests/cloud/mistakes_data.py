"""Further mistakes in networks, stores, buckets, and in how the stacks fit together."""

from contract.shipped import Shipped
from mistakes import mistake, properties, resource, statement

DATABASE = "AWS::RDS::DBInstance"
CACHE = "AWS::ElastiCache::ReplicationGroup"
BUCKET = "AWS::S3::Bucket"


def primary(shipped: Shipped) -> dict:
    """The database that is no replica."""
    for one in shipped.templates["data"]["Resources"].values():
        if one["Type"] == DATABASE and "SourceDBInstanceIdentifier" not in one["Properties"]:
            return one
    raise AssertionError("data has no primary")


@mistake("regions_have_addresses_of_their_own")
def both_regions_have_the_same_addresses(shipped: Shipped) -> None:
    shipped.parameters["production/us-west-2/network"]["Parameters"]["AddressPrefix"] = "10.0"


@mistake("each_tier_has_a_subnet_in_three_zones")
def two_subnets_stand_in_one_zone(shipped: Shipped) -> None:
    zone = {"Fn::Select": [0, {"Fn::GetAZs": ""}]}
    for one in shipped.templates["network"]["Resources"].values():
        if one["Type"] == "AWS::EC2::Subnet":
            one["Properties"]["AvailabilityZone"] = zone


@mistake("only_public_subnets_face_the_internet")
def the_database_can_reach_the_internet(shipped: Shipped) -> None:
    shipped.templates["network"]["Resources"]["Leak"] = {
        "Type": "AWS::EC2::Route",
        "Properties": {
            "RouteTableId": {"Ref": "DatabaseRoutes"},
            "DestinationCidrBlock": "0.0.0.0/0",
            "NatGatewayId": {"Ref": "NatGatewayA"},
        },
    }


@mistake("only_public_subnets_face_the_internet")
def a_zone_goes_out_through_another(shipped: Shipped) -> None:
    properties(shipped, "network", "AWS::EC2::Route", RouteTableId={"Ref": "AppRoutesC"})[
        "NatGatewayId"
    ] = {"Ref": "NatGatewayA"}


@mistake("each_tier_hears_only_the_one_before_it")
def the_database_hears_the_whole_network(shipped: Shipped) -> None:
    rule = properties(shipped, "network", "AWS::EC2::SecurityGroupIngress", FromPort=5432)
    del rule["SourceSecurityGroupId"]
    rule["CidrIp"] = "10.0.0.0/8"


@mistake("each_tier_hears_only_the_one_before_it")
def the_admin_port_is_open(shipped: Shipped) -> None:
    properties(shipped, "network", "AWS::EC2::SecurityGroupIngress", FromPort=443)["FromPort"] = 0


@mistake("stores_and_balancer_stand_in_their_tier")
def the_database_stands_beside_the_tasks(shipped: Shipped) -> None:
    properties(shipped, "data", "AWS::RDS::DBSubnetGroup")["SubnetIds"] = {
        "Fn::Split": [",", {"Fn::ImportValue": "datahub-AppSubnets"}]
    }


@mistake("the_database_is_doubled_and_closed")
def the_database_stands_in_one_zone(shipped: Shipped) -> None:
    primary(shipped)["Properties"]["MultiAZ"] = False


@mistake("the_database_is_doubled_and_closed")
def the_database_takes_plain_text(shipped: Shipped) -> None:
    properties(shipped, "data", "AWS::RDS::DBParameterGroup")["Parameters"]["rds.force_ssl"] = "0"


@mistake("the_database_is_doubled_and_closed")
def the_limit_of_connections_is_not_that_of_the_alarm(shipped: Shipped) -> None:
    properties(shipped, "data", "AWS::RDS::DBParameterGroup")["Parameters"]["max_connections"] = "100"


@mistake("the_database_can_still_be_made")
def postgresql_is_too_old_to_be_made(shipped: Shipped) -> None:
    primary(shipped)["Properties"]["EngineVersion"] = "15.10"


@mistake("redis_is_a_cluster_with_tls_and_a_password")
def redis_is_no_cluster(shipped: Shipped) -> None:
    properties(shipped, "data", CACHE)["CacheParameterGroupName"] = "default.redis7"


@mistake("redis_is_a_cluster_with_tls_and_a_password")
def redis_has_no_replicas(shipped: Shipped) -> None:
    properties(shipped, "data", CACHE)["ReplicasPerNodeGroup"] = 0


@mistake("buckets_are_private_and_clean_up")
def a_bucket_can_be_made_public(shipped: Shipped) -> None:
    properties(shipped, "data", BUCKET)["PublicAccessBlockConfiguration"]["BlockPublicPolicy"] = False


@mistake("buckets_are_private_and_clean_up")
def a_bucket_keeps_logs_for_ever(shipped: Shipped) -> None:
    del properties(shipped, "data", BUCKET)["LifecycleConfiguration"]


@mistake("buckets_are_private_and_clean_up")
def a_bucket_takes_plain_text(shipped: Shipped) -> None:
    for one in properties(shipped, "data", "AWS::S3::BucketPolicy")["PolicyDocument"]["Statement"]:
        one.get("Condition", {}).get("Bool", {}).pop("aws:SecureTransport", None)


@mistake("keys_turn_and_disks_have_one")
def a_key_never_turns(shipped: Shipped) -> None:
    properties(shipped, "data", "AWS::KMS::Key")["EnableKeyRotation"] = False


@mistake("keys_turn_and_disks_have_one")
def a_secret_lies_under_the_key_of_aws(shipped: Shipped) -> None:
    del properties(shipped, "data", "AWS::SecretsManager::Secret")["KmsKeyId"]


@mistake("backups_are_daily_and_kept")
def backups_are_kept_for_a_week(shipped: Shipped) -> None:
    for one in properties(shipped, "data", "AWS::Backup::BackupPlan")["BackupPlan"]["BackupPlanRule"]:
        one["Lifecycle"]["DeleteAfterDays"] = 7


@mistake("nothing_that_matters_goes_with_its_stack")
def the_database_goes_with_its_stack(shipped: Shipped) -> None:
    primary(shipped)["DeletionPolicy"] = "Delete"


@mistake("nothing_that_matters_goes_with_its_stack")
def a_bucket_is_replaced_and_lost(shipped: Shipped) -> None:
    resource(shipped, "data", BUCKET).pop("UpdateReplacePolicy")


@mistake("every_log_has_an_end")
def a_log_is_kept_for_ever(shipped: Shipped) -> None:
    del properties(shipped, "service", "AWS::Logs::LogGroup")["RetentionInDays"]


@mistake("what_is_open_to_all_has_a_condition")
def the_bucket_is_open_to_all(shipped: Shipped) -> None:
    properties(shipped, "data", "AWS::S3::BucketPolicy")["PolicyDocument"]["Statement"].append(
        {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::datahub/*",
        }
    )


@mistake("no_secret_is_written_down")
def a_secret_stands_in_the_template(shipped: Shipped) -> None:
    secret = properties(shipped, "data", "AWS::SecretsManager::Secret")
    secret.pop("GenerateSecretString", None)
    secret["SecretString"] = "correct horse battery staple"


@mistake("templates_are_plain")
def a_template_has_a_macro(shipped: Shipped) -> None:
    shipped.templates["data"]["Transform"] = "AWS::SecretsManager-2024-09-16"


@mistake("every_template_is_deployed_somewhere")
def a_template_is_forgotten_by_the_deployment(shipped: Shipped) -> None:
    shipped.templates["audit"] = {"Parameters": {}, "Resources": {}}


@mistake("every_stack_knows_its_environment")
def an_environment_is_called_otherwise(shipped: Shipped) -> None:
    shipped.templates["network"]["Parameters"]["Environment"]["AllowedValues"] = ["staging", "prod"]


@mistake("parameter_files_fit_their_templates")
def a_parameter_is_misspelt(shipped: Shipped) -> None:
    given = shipped.parameters["staging/network"]["Parameters"]
    given["NatGateway"] = given.pop("NatGateways")


@mistake("parameter_files_fit_their_templates")
def a_parameter_has_a_value_that_is_not_allowed(shipped: Shipped) -> None:
    shipped.parameters["staging/network"]["Parameters"]["NatGateways"] = "2"


@mistake("parameter_files_fit_their_templates")
def a_parameter_without_default_is_left_out(shipped: Shipped) -> None:
    del shipped.parameters["staging/edge"]["Parameters"]["DomainName"]


@mistake("every_default_is_allowed")
def a_default_does_not_match_its_pattern(shipped: Shipped) -> None:
    shipped.templates["network"]["Parameters"]["AddressPrefix"]["Default"] = "172.16"


@mistake("every_parameter_is_used")
def a_parameter_does_nothing(shipped: Shipped) -> None:
    shipped.templates["network"]["Parameters"]["FlowLogs"] = {"Type": "String", "Default": "yes"}


@mistake("every_import_is_exported_before")
def an_import_is_misspelt(shipped: Shipped) -> None:
    properties(shipped, "service", "AWS::ElasticLoadBalancingV2::TargetGroup")["VpcId"] = {
        "Fn::ImportValue": "datahub-Vpc"
    }


@mistake("every_import_is_exported_before")
def a_stack_imports_from_one_that_is_made_later(shipped: Shipped) -> None:
    statement(shipped, "network", "logs:DescribeLogGroups")["Resource"] = {
        "Fn::ImportValue": "datahub-KeyArn"
    }


@mistake("exports_are_named_after_their_outputs_and_unique")
def two_stacks_export_one_name(shipped: Shipped) -> None:
    shipped.templates["network"]["Outputs"]["KeyArn"] = {"Value": "x", "Export": {"Name": "datahub-KeyArn"}}


@mistake("every_export_is_read")
def an_export_is_read_by_nobody(shipped: Shipped) -> None:
    shipped.templates["network"]["Outputs"]["FlowLog"] = {
        "Value": "x",
        "Export": {"Name": "datahub-FlowLog"},
    }


@mistake("everything_resolves")
def a_map_has_no_row_for_an_environment(shipped: Shipped) -> None:
    del shipped.templates["pipeline"]["Mappings"]["Branch"]["staging"]


@mistake("a_lost_zone_leaves_a_database")
def the_replica_stands_beside_the_primary(shipped: Shipped) -> None:
    for one in shipped.templates["data"]["Resources"].values():
        if one["Type"] == DATABASE and "SourceDBInstanceIdentifier" in one["Properties"]:
            one["Properties"]["AvailabilityZone"] = {"Fn::Select": [0, {"Fn::GetAZs": ""}]}


@mistake("the_database_is_doubled_and_closed")
def the_password_of_the_database_never_changes(shipped: Shipped) -> None:
    resources = shipped.templates["data"]["Resources"]
    for key, one in list(resources.items()):
        if one["Type"] == "AWS::SecretsManager::RotationSchedule":
            del resources[key]


@mistake("nothing_that_matters_goes_with_its_stack")
def a_replica_asks_for_a_last_snapshot(shipped: Shipped) -> None:
    for one in shipped.templates["recovery"]["Resources"].values():
        if one["Type"] == DATABASE:
            one["UpdateReplacePolicy"] = "Snapshot"
            one["DeletionPolicy"] = "Snapshot"
