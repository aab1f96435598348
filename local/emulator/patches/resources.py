"""Correct S3, DynamoDB, Secrets Manager, and in templates: state machines, CloudFront's keys, saved queries."""

import json
from collections.abc import Callable
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import yaml
from ministack.core.responses import new_uuid
from ministack.services import cloudfront, dynamodb, s3, secretsmanager
from ministack.services.cloudformation import provisioners

from local.emulator.patches.patching import UnexpectedMiniStackError, correction, swap, wrap


@correction
def presigned_requests_carry_one_signature() -> None:
    """MiniStack ignores an Authorization header next to a presigned URL. AWS refuses the request with 400."""

    @wrap(s3, "_verify_presigned_sigv4", "a71da1859e2a")
    def verify(stock: Any, method: str, path: str, headers: dict[str, Any], query: dict[str, Any]) -> Any:
        if "X-Amz-Signature" in query and any(name.lower() == "authorization" for name in headers):
            return s3._error("InvalidArgument", "Only one auth mechanism allowed", 400, path)
        return stock(method, path, headers, query)


@correction
def object_events_name_the_version() -> None:
    """MiniStack's EventBridge events of a versioned bucket lack `version-id`."""
    swap(
        s3._fire_s3_event,
        (
            "                if reason is not None:\n",
            "                if version_id:\n"
            '                    detail["object"]["version-id"] = version_id\n'
            "                if reason is not None:\n",
        ),
    )


def _part_of_version(asked: str, headers: dict[str, Any], body: bytes, bucket: str, key: str) -> Any:
    """Return the answer to a GET of a version with `Range: {asked}`."""
    found = s3._parse_range(asked, len(body))
    if found is None:
        sent = {"Content-Type": "application/xml", "Content-Range": f"bytes */{len(body)}"}
        return 416, sent, s3._xml_body(s3._range_error_xml(bucket, key))
    start, end = found
    part = body[start : end + 1]
    sent = {"Content-Length": str(len(part)), "Content-Range": f"bytes {start}-{end}/{len(body)}"}
    return 206, {**headers, **sent}, part


@correction
def versions_are_read_in_ranges() -> None:
    """MiniStack ignores Range if a GET names a version. AWS: as without a version."""
    swap(
        s3._get_object,
        (
            '                include_checksums = (headers.get("x-amz-checksum-mode") or "").upper() == "ENABLED"\n',
            '                checksums_asked = (headers.get("x-amz-checksum-mode") or "").upper() == "ENABLED"\n'
            '                include_checksums = checksums_asked and not headers.get("range")\n',
        ),
        (
            '                return 200, resp_headers, body\n        return _error("NoSuchVersion"',
            '                if headers.get("range"):\n'
            '                    return _part_of_version(headers["range"], resp_headers, body, bucket_name, key)\n'
            '                return 200, resp_headers, body\n        return _error("NoSuchVersion"',
        ),
        _part_of_version=_part_of_version,
    )


@correction
def templates_can_set_time_to_live() -> None:
    """MiniStack ignores TimeToLiveSpecification in a template. Expired items are deleted within about a minute."""
    handlers = provisioners._RESOURCE_HANDLERS["AWS::DynamoDB::Table"]
    create, update = handlers["create"], handlers["update"]

    def set_ttl(name: str, properties: dict[str, Any]) -> None:
        specification = dict(properties.get("TimeToLiveSpecification") or {})
        if not specification:
            dynamodb._ttl_settings.pop(name, None)
            return
        specification["Enabled"] = str(specification["Enabled"]).lower() == "true"  # a parameter arrives as text
        status, _, body = dynamodb._update_ttl({"TableName": name, "TimeToLiveSpecification": specification})
        if status >= 400:
            raise ValueError(f"TimeToLiveSpecification of {name}: {body!r}")

    def created(logical_id: str, properties: dict[str, Any], stack: str) -> Any:
        name, attributes = create(logical_id, properties, stack)
        set_ttl(name, properties)
        return name, attributes

    def updated(physical_id: str, old: dict[str, Any], new: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        name, attributes = update(physical_id, old, new, *args, **kwargs)
        set_ttl(name, new)
        return name, attributes

    handlers.update(create=created, update=updated)


def _random_password(options: dict[str, Any]) -> str:
    """Return the answer of GetRandomPassword. Template scalars may be text."""
    typed = {name: value == "true" if value in ("true", "false") else value for name, value in options.items()}
    typed["PasswordLength"] = int(typed.get("PasswordLength", 32))
    status, _, body = secretsmanager._get_random_password(typed)
    if status >= 400:
        raise ValueError(f"GenerateSecretString: {body!r}")
    return str(json.loads(body)["RandomPassword"])


@correction
def generated_secrets_follow_their_options() -> None:
    """MiniStack draws secrets from a predictable generator and ignores the Exclude flags. AWS: GetRandomPassword."""
    swap(
        provisioners._sm_secret_string,
        (
            'generated = "".join(random.choices(chars, k=length))\n',
            "generated = _random_password(gen)\n",
        ),
        _random_password=_random_password,
    )


@correction
def secrets_without_a_value_have_no_version() -> None:
    """MiniStack stores an empty text. AWS: a secret without a value, for which GetSecretValue returns not found."""
    swap(
        provisioners._sm_secret_create,
        (
            '    if props.get("ReplicaRegions"):\n',
            "    if not secret_string:\n"
            '        _sm._secrets[name]["Versions"].clear()\n'
            '    if props.get("ReplicaRegions"):\n',
        ),
    )


def _with_json_definition(properties: dict[str, Any]) -> dict[str, Any]:
    """Return `properties` with a YAML definition in S3 replaced by the same definition as JSON."""
    place = properties.get("DefinitionS3Location") or {}
    stored = s3._get_object_data(place["Bucket"], place["Key"], version_id=place.get("Version")) if place else None
    if stored is None or stored.lstrip().startswith(b"{"):
        return properties
    kept = {name: value for name, value in properties.items() if name != "DefinitionS3Location"}
    return {**kept, "DefinitionString": json.dumps(yaml.safe_load(stored))}


@correction
def definitions_in_s3_may_be_yaml() -> None:
    """MiniStack takes a state machine's definition from S3 as JSON only. AWS: JSON or YAML."""
    handlers = provisioners._RESOURCE_HANDLERS["AWS::StepFunctions::StateMachine"]
    create, update = handlers["create"], handlers["update"]

    def created(logical_id: str, properties: dict[str, Any], stack: str) -> Any:
        return create(logical_id, _with_json_definition(properties), stack)

    def updated(physical_id: str, old: dict[str, Any], new: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        return update(physical_id, old, _with_json_definition(new), *args, **kwargs)

    handlers.update(create=created, update=updated)


def _public_key_xml(properties: dict[str, Any]) -> bytes:
    config = Element("PublicKeyConfig")
    for name, value in properties["PublicKeyConfig"].items():
        SubElement(config, name).text = value
    return tostring(config)


def _key_group_xml(properties: dict[str, Any]) -> bytes:
    config = Element("KeyGroupConfig")
    SubElement(config, "Name").text = properties["KeyGroupConfig"]["Name"]
    items = SubElement(config, "Items")
    for key_id in properties["KeyGroupConfig"]["Items"]:
        SubElement(items, "PublicKey").text = key_id
    return tostring(config)


def _templates_know(kind: str, name: str, store: Any, as_xml: Callable[[dict[str, Any]], bytes]) -> None:
    """Create, change and delete resources of type `kind` as the API's own operations on a `name` do."""
    operations = {verb: getattr(cloudfront, f"_{verb}_{name}") for verb in ("create", "update", "delete")}

    def done(verb: str, *arguments: Any) -> dict[str, Any]:
        status, headers, body = operations[verb](*arguments)
        if status >= 400:
            raise ValueError(f"{kind}: {body!r}")
        answered: dict[str, Any] = headers
        return answered

    def created(_logical_id: str, properties: dict[str, Any], _stack: str) -> Any:
        made = str(done("create", as_xml(properties))["Location"].rpartition("/")[2])
        return made, {"Id": made}

    def updated(physical_id: str, _old: dict[str, Any], new: dict[str, Any], _stack: str) -> Any:
        done("update", physical_id, {"if-match": store[physical_id]["ETag"]}, as_xml(new))
        return physical_id, {"Id": physical_id}

    def deleted(physical_id: str, _properties: dict[str, Any]) -> None:
        if physical_id in store:
            done("delete", physical_id, {"if-match": store[physical_id]["ETag"]})

    handlers = provisioners._RESOURCE_HANDLERS
    if kind in handlers:
        raise UnexpectedMiniStackError(f"templates know {kind} already")
    handlers[kind] = {"create": created, "update": updated, "delete": deleted}


@correction
def templates_know_cloudfronts_keys() -> None:
    """MiniStack has public keys and key groups in CloudFront's API, but refuses templates that contain them."""
    _templates_know("AWS::CloudFront::PublicKey", "public_key", cloudfront._public_keys, _public_key_xml)
    _templates_know("AWS::CloudFront::KeyGroup", "key_group", cloudfront._key_groups, _key_group_xml)


@correction
def templates_know_saved_queries() -> None:
    """MiniStack has no saved queries of Logs Insights, and refuses templates that contain them. Here they have no
    effect."""
    kind, handlers = "AWS::Logs::QueryDefinition", provisioners._RESOURCE_HANDLERS
    if kind in handlers:
        raise UnexpectedMiniStackError(f"templates know {kind} already")

    def created(_logical_id: str, properties: dict[str, Any], _stack: str) -> Any:
        if not properties.get("Name") or not properties.get("QueryString"):
            raise ValueError(f"{kind}: Name and QueryString are required")
        made = new_uuid()
        return made, {"QueryDefinitionId": made}

    def updated(physical_id: str, _old: dict[str, Any], _new: dict[str, Any], _stack: str) -> Any:
        return physical_id, {"QueryDefinitionId": physical_id}

    handlers[kind] = {"create": created, "update": updated, "delete": lambda physical_id, properties: None}
