"""The resolver under the rules: each intrinsic function gives what CloudFormation gives."""

from typing import Any

import pytest
from contract.resolve import Stack, resolve

TEMPLATE = {
    "Parameters": {
        "Environment": {"Type": "String"},
        "Size": {"Type": "Number", "Default": 3},
        "Zones": {"Type": "CommaDelimitedList", "Default": "a, b,c"},
        "Name": {"Type": "String", "Default": ""},
        "Given": {"Type": "String"},
    },
    "Conditions": {
        "Production": {"Fn::Equals": [{"Ref": "Environment"}, "production"]},
        "Three": {"Fn::Equals": [{"Ref": "Size"}, 3]},
        "Both": {"Fn::And": [{"Condition": "Production"}, {"Condition": "Three"}]},
        "Either": {"Fn::Or": [{"Fn::Not": [{"Condition": "Production"}]}, {"Condition": "Three"}]},
        "Named": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Name"}, ""]}]},
    },
    "Mappings": {"Branch": {"production": {"Name": "main"}}},
    "Resources": {
        "Key": {"Type": "AWS::KMS::Key", "Properties": {}},
        "Role": {"Type": "AWS::IAM::Role", "Properties": {"RoleName": {"Fn::Sub": "r-${Environment}"}}},
        "Hidden": {"Type": "AWS::KMS::Key", "Condition": "Named", "Properties": {}},
    },
}


def value(written: Any, **stacks: Stack) -> Any:
    """What a property of a stack in production's us-east-1 becomes."""
    template = {**TEMPLATE, "Outputs": {"Tested": {"Value": written}}}
    made = dict(stacks)
    resolve("own", template, {"Given": "given"}, "production", "us-east-1", made)
    return made["own"].outputs["Tested"]


@pytest.mark.parametrize(
    "written, expected",
    [
        ({"Ref": "Size"}, "3"),
        ({"Ref": "Zones"}, ["a", "b", "c"]),
        ({"Ref": "Given"}, "given"),
        ({"Ref": "Environment"}, "production"),
        ({"Ref": "AWS::Region"}, "us-east-1"),
        ({"Ref": "Key"}, "<own/Key>"),
        ({"Ref": "Role"}, "r-production"),
        ({"Fn::GetAtt": ["Key", "Arn"]}, "<own/Key.Arn>"),
        ({"Fn::GetAtt": "Key.Arn"}, "<own/Key.Arn>"),
        ({"Fn::GetAtt": ["Role", "Arn"]}, "arn:aws:iam::222222222222:role/r-production"),
        ({"Fn::Sub": "${Size} ${Key.Arn} ${!literal}"}, "3 <own/Key.Arn> ${literal}"),
        ({"Fn::Sub": ["${own}-${Size}", {"own": {"Ref": "Given"}}]}, "given-3"),
        ({"Fn::If": ["Both", "yes", "no"]}, "yes"),
        ({"Fn::If": ["Either", "yes", "no"]}, "yes"),
        ({"Fn::If": ["Named", "yes", "no"]}, "no"),
        ([{"Fn::If": ["Named", "x", {"Ref": "AWS::NoValue"}]}, "y"], ["y"]),
        ({"kept": 1, "gone": {"Ref": "AWS::NoValue"}}, {"kept": 1}),
        ({"Fn::FindInMap": ["Branch", {"Ref": "Environment"}, "Name"]}, "main"),
        ({"Fn::Select": [1, {"Fn::Split": [",", "a,b,c"]}]}, "b"),
        ({"Fn::Select": [2, {"Fn::GetAZs": ""}]}, "us-east-1c"),
        ({"Fn::Join": [":", ["a", {"Ref": "Size"}]]}, "a:3"),
        ({"Fn::Join": [",", {"Ref": "Zones"}]}, "a,b,c"),
        ({"Fn::Cidr": ["10.0.0.0/16", 2, 8]}, ["10.0.0.0/24", "10.0.1.0/24"]),
        ({"Fn::ImportValue": "datahub-Nothing"}, "<?datahub-Nothing>"),
    ],
    ids=str,
)
def test_a_function_gives_what_cloudformation_gives(written: Any, expected: Any) -> None:
    assert value(written) == expected


def test_an_import_is_what_the_other_stack_exports() -> None:
    other = Stack("other", {}, exports={"datahub-KeyArn": "<other/Key.Arn>"})
    assert value({"Fn::ImportValue": {"Fn::Sub": "datahub-KeyArn"}}, other=other) == "<other/Key.Arn>"


def test_a_resource_behind_a_condition_is_there_only_when_it_holds() -> None:
    made: dict[str, Stack] = {}
    resolve("own", TEMPLATE, {}, "staging", "us-east-1", made)
    assert set(made["own"].resources) == {"Key", "Role"}
    assert made["own"].conditions["Production"] is False
    assert made["own"].parameters["Given"] == "<own?Given>", "what nobody gives stays open, and is seen"
    resolve("own", TEMPLATE, {"Name": "x"}, "staging", "us-east-1", made)
    assert "Hidden" in made["own"].resources
