"""Test the videos behind CloudFront: private, always signed, and no distribution without a key."""

import re
from typing import Any

import pytest
from kling_relay.transfer.s3_copy import CACHE_CONTROL

from kling_relay_cli.operators.delivery_key import new_pair
from local.stack import deploy_template
from tests.template.rules import of_type, references

Template = dict[str, Any]

DELIVERY = {
    *("DeliveryPublicKeyA", "DeliveryPublicKeyB", "DeliveryKeyGroup", "DeliveryKeySecret"),
    *("DeliveryAccess", "DeliveryCache", "DeliveryHeaders", "Delivery"),
}


def behaviour(template: Template) -> dict[str, Any]:
    found: dict[str, Any] = template["Resources"]["Delivery"]["Properties"]["DistributionConfig"][
        "DefaultCacheBehavior"
    ]
    return found


def test_without_a_key_there_is_nothing_of_it(template: Template) -> None:
    conditional = {
        name: resource["Condition"]
        for name, resource in template["Resources"].items()
        if resource.get("Condition", "").startswith("HasDelivery")
    }
    letters = {"DeliveryPublicKeyA": "HasDeliveryKeyA", "DeliveryPublicKeyB": "HasDeliveryKeyB"}
    assert conditional == dict.fromkeys(DELIVERY, "HasDelivery") | letters
    assert {name for name in template["Resources"] if name.startswith("Delivery")} == DELIVERY
    cloudfront = {name for name, one in template["Resources"].items() if one["Type"].startswith("AWS::CloudFront::")}
    assert cloudfront == DELIVERY - {"DeliveryKeySecret"}


def test_who_gives_addresses_out_reads_the_private_half(template: Template) -> None:
    readers = {name for name, one in template["Resources"].items() if "DeliveryKeySecret" in references(one)}
    assert readers == {
        f"{name}Function{role}" for name in ("TaskApi", "NotifyClient", "OpsWidget") for role in ("", "Role")
    }


def test_no_address_without_a_signature(template: Template) -> None:
    assert behaviour(template)["TrustedKeyGroups"] == [{"Ref": "DeliveryKeyGroup"}]
    config = template["Resources"]["Delivery"]["Properties"]["DistributionConfig"]
    assert "CacheBehaviors" not in config  # a second behaviour could be open
    items = template["Resources"]["DeliveryKeyGroup"]["Properties"]["KeyGroupConfig"]["Items"]
    assert [item["Fn::If"] for item in items] == [
        [f"HasDeliveryKey{slot}", {"Ref": f"DeliveryPublicKey{slot}"}, {"Ref": "AWS::NoValue"}] for slot in "AB"
    ]


def test_a_new_key_is_a_new_resource(template: Template) -> None:
    """CloudFront changes no public key in place; the reference says whether two requests are the same."""
    for slot in "AB":
        config = template["Resources"][f"DeliveryPublicKey{slot}"]["Properties"]["PublicKeyConfig"]
        assert config["EncodedKey"] == {"Ref": f"DeliveryKey{slot}"}
        second_line = {"Fn::Split": ["\n", {"Fn::Sub": f"${{DeliveryKey{slot}}}\n"}]}  # there even without a key
        assert config["CallerReference"] == {"Fn::Select": [1, second_line]}


def test_only_this_distribution_reads_the_bucket_and_only_videos(template: Template) -> None:
    statements = template["Resources"]["VideoBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    (condition, allowed, otherwise) = statements[1]["Fn::If"]
    assert len(statements) == 2 and condition == "HasDelivery" and otherwise == {"Ref": "AWS::NoValue"}
    source = "arn:${AWS::Partition}:cloudfront::${AWS::AccountId}:distribution/${Delivery}"
    assert allowed == {
        "Sid": "Delivery",
        "Effect": "Allow",
        "Principal": {"Service": "cloudfront.amazonaws.com"},
        "Action": "s3:GetObject",
        "Resource": {"Fn::Sub": "${VideoBucket.Arn}/videos/*"},
        "Condition": {"StringEquals": {"aws:SourceArn": {"Fn::Sub": source}}},
    }
    access = template["Resources"]["DeliveryAccess"]["Properties"]["OriginAccessControlConfig"]
    assert (access["SigningBehavior"], access["SigningProtocol"]) == ("always", "sigv4")
    (origin,) = template["Resources"]["Delivery"]["Properties"]["DistributionConfig"]["Origins"]
    assert origin["OriginAccessControlId"] == {"Ref": "DeliveryAccess"}
    assert origin["DomainName"] == {"Fn::GetAtt": ["VideoBucket", "RegionalDomainName"]}


def test_clients_get_what_they_can_use(template: Template) -> None:
    assert behaviour(template)["ViewerProtocolPolicy"] == "https-only"  # neither plain text nor a redirect
    assert behaviour(template)["AllowedMethods"] == ["GET", "HEAD", "OPTIONS"]
    config = template["Resources"]["Delivery"]["Properties"]["DistributionConfig"]
    assert (config["HttpVersion"], config["IPV6Enabled"]) == ("http2and3", True)
    assert not {"Logging", "WebACLId", "Aliases"} & set(config)


def test_a_deletion_reaches_the_edge_in_five_minutes(template: Template) -> None:
    policy = template["Resources"]["DeliveryCache"]["Properties"]["CachePolicyConfig"]
    assert CACHE_CONTROL == f"max-age={policy['MaxTTL']}" == "max-age=300"
    assert policy["MinTTL"] <= policy["DefaultTTL"] <= policy["MaxTTL"]
    forwarded = policy["ParametersInCacheKeyAndForwardedToOrigin"]
    assert forwarded["HeadersConfig"] == {"HeaderBehavior": "none"}  # Authorization among them
    assert forwarded["QueryStringsConfig"] == {"QueryStringBehavior": "none"}


def test_pages_may_read_and_nobody_guesses_types(template: Template) -> None:
    policy = template["Resources"]["DeliveryHeaders"]["Properties"]["ResponseHeadersPolicyConfig"]
    assert policy["SecurityHeadersConfig"]["ContentTypeOptions"] == {"Override": True}
    cors = policy["CorsConfig"]
    assert cors["AccessControlAllowCredentials"] is False and cors["OriginOverride"] is True
    assert {"Authorization", "Range"} <= set(cors["AccessControlAllowHeaders"]["Items"])  # `*` is not Authorization
    (rule,) = template["Resources"]["VideoBucket"]["Properties"]["CorsConfiguration"]["CorsRules"]
    assert (rule["AllowedMethods"], rule["AllowedOrigins"]) == (["GET", "HEAD"], ["*"])


def test_names_of_the_account_name_stack_and_region(template: Template) -> None:
    """CloudFront is one for all regions: two stacks must not meet there."""
    configs = [template["Resources"][name]["Properties"] for name in DELIVERY - {"Delivery", "DeliveryKeySecret"}]
    names = [next(iter(properties.values()))["Name"]["Fn::Sub"] for properties in configs]
    assert all(name.startswith("${AWS::StackName}-${AWS::Region}") for name in names)
    assert {names.count(f"${{AWS::StackName}}-${{AWS::Region}}-{slot}") for slot in "ab"} == {1}


@pytest.mark.parametrize("slot", ["A", "B"])
def test_the_parameters_take_what_delivery_key_makes(template: Template, slot: str) -> None:
    pattern = template["Parameters"][f"DeliveryKey{slot}"]["AllowedPattern"]
    private, public = new_pair()
    assert re.search(pattern, public) and re.search(pattern, "") and len(public) < 4096
    for wrong in (private, "x", public.replace("\n", " "), "x" + public, public + "x"):
        assert not re.search(pattern, wrong)


def test_the_laptop_drops_nothing_and_so_nothing_refers_to_what_is_dropped(template: Template) -> None:
    assert deploy_template.DROPPED == {}
    whole = deploy_template.load_template()
    assert deploy_template.without_dropped(whole)["Resources"].keys() == whole["Resources"].keys()
    assert of_type(template, "AWS::CloudFront::KeyGroup")
