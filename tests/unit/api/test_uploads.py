"""Test uploads: the form for a client, the references in a request, and the stored parts of a task."""

import base64
import json
from typing import Any

import pytest
from kling_relay.api import create, request, uploads
from kling_relay.errors import KlingError
from kling_relay.kinds import image_places
from kling_relay.lifecycle import provider_request
from kling_relay.media.images import MAX_BYTES
from kling_relay.tasks.task import Phase, Task

from tests.support.image_files import jpeg, png, segment
from tests.support.stack_in_memory import BODY, START, World, client_error

BAD_SIZES = (0, -1, MAX_BYTES + 1, 1.5, True, "5.5", "", "0", [1], 10**400)
FOREIGN_BUCKET = "s3://videos/uploads/acme/" + "0" * 32 + ".png"


def offer(
    world: World, body: Any = None, *, tenant: str = "acme", prefix: str = "/kling/v1"
) -> tuple[int, dict[str, Any]]:
    return world.http(
        "POST", f"{prefix}/uploads", body or {"content_type": "image/png"}, authorization=world.key(tenant)
    )


def upload(world: World, data: bytes | None = None, *, tenant: str = "acme", kind: str = "png") -> str:
    """The reference of an image that was uploaded."""
    content_type = {"png": "image/png", "jpg": "image/jpeg"}[kind]
    reference: str = offer(world, {"content_type": content_type}, tenant=tenant)[1]["data"]["image"]
    world.cloud.s3.put_object(
        Bucket="inputs", Key=reference.removeprefix("s3://inputs/"), Body=png() if data is None else data
    )
    return reference


def refused(world: World, body: dict[str, Any], *, tenant: str = "acme", kind: str = "image2video") -> str:
    """Why a request is refused; nothing may come of it."""
    before = world.cloud.s3.list_objects_v2(Bucket="inputs", Prefix="inputs/").get("KeyCount")
    status, answer = world.http("POST", f"/v1/videos/{kind}", body, authorization=world.key(tenant))
    assert (status, answer["code"]) == (400, 1201) and world.tasks() == [] and world.provider.posts == []
    assert world.cloud.s3.list_objects_v2(Bucket="inputs", Prefix="inputs/").get("KeyCount") == before
    message: str = answer["message"]
    return message


# -- the form


@pytest.mark.parametrize("prefix", ["/kling/v1", "/v1"])
@pytest.mark.parametrize(("content_type", "extension"), [("image/jpeg", "jpg"), ("image/png", "png")])
@pytest.mark.parametrize("size", [None, 1, 8.0, MAX_BYTES])
def test_the_form(world: World, prefix: str, content_type: str, extension: str, size: int | None) -> None:
    asked = {"content_type": content_type} | ({} if size is None else {"size": size})
    status, answer = offer(world, asked, prefix=prefix)
    data = answer["data"]
    assert (status, answer["code"]) == (200, 0) and set(data) == {"upload", "image", "expires_at"}
    assert data["expires_at"] == START + 3_600_000
    fields = data["upload"]["fields"]
    key = fields["key"]
    assert data["image"] == f"s3://inputs/{key}"
    assert key.startswith("uploads/acme/") and key.endswith(f".{extension}") and len(key.split("/")[2]) == 36
    assert data["upload"]["url"].startswith("https://") and "inputs" in data["upload"]["url"]
    policy = json.loads(base64.b64decode(fields["policy"]))["conditions"]
    assert ["content-length-range", size or 1, size or MAX_BYTES] in policy
    assert {"Content-Type": content_type} in policy and {"key": key} in policy and {"bucket": "inputs"} in policy
    assert fields["Content-Type"] == content_type


def test_every_form_has_a_key_of_its_own(world: World) -> None:
    assert len({offer(world)[1]["data"]["image"] for _ in range(5)}) == 5


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        *[(body, "body") for body in ("{", "[]", "null", '"x"', "[" * 5000, "\x00")],
        *[({"content_type": given}, "content_type") for given in ("image/gif", "", 5, None, ["image/png"], "x" * 9000)],
        ({"size": 5}, "content_type"),
        *[({"content_type": "image/png", "size": given}, "size") for given in BAD_SIZES],
    ],
)
def test_bad_forms(world: World, sent: Any, field: str) -> None:
    status, answer = offer(world, sent)
    assert (status, answer["code"]) == (400, 1201) and answer["message"].startswith(f"{field}: ")
    assert len(answer["message"]) < 200


# -- the reference in a request


@pytest.mark.parametrize("data", [png(), jpeg(), jpeg(before=segment(0xE1, bytes(60_000)) * 4)])
def test_an_upload_is_a_tasks_image(world: World, data: bytes) -> None:
    reference = upload(world, data)
    task = world.create({**BODY, "image": reference})
    extension = "png" if data.startswith(b"\x89PNG") else "jpg"
    own = f"inputs/acme/{task.id}/image.{extension}"
    assert task.request["image"] == {"s3": own, "upload": reference.removeprefix("s3://inputs/")}
    assert world.provider.posts[0]["image"] == base64.b64encode(data).decode()
    stored = world.cloud.s3.get_object(Bucket="inputs", Key=own)
    assert stored["Body"].read() == data and stored["ContentType"].endswith({"png": "png", "jpg": "jpeg"}[extension])


def test_every_place_of_an_image_takes_a_reference(world: World) -> None:
    points = [{"x": 1, "y": 2}, {"x": 3, "y": 4}]
    image, mask = upload(world), upload(world)
    painted = {**BODY, "model_name": "kling-v1", "image": image}  # takes an end frame and masks
    masked = {**painted, "static_mask": mask, "dynamic_masks": [{"mask": mask, "trajectories": points}]}
    listed = {"prompt": "p", "image_list": [{"image": image}, {"image": mask}]}
    for kind, body, places in (
        ("image2video", masked, ["image", "static_mask", "dynamic_masks[0].mask"]),
        ("image2video", {**painted, "image_tail": mask}, ["image", "image_tail"]),
        ("multi-image2video", listed, ["image_list[0].image", "image_list[1].image"]),
    ):
        parsed = request.parse(kind, json.dumps(body).encode())
        task = create.record(world.services, "acme", parsed)
        kept = [(name, holder[key]) for name, holder, key in image_places.image_places(task.request)]
        assert [name for name, _ in kept] == places
        assert all(set(image) == {"s3", "upload"} for _, image in kept)
        assert len(json.dumps(kept)) < 1024
        sent = provider_request.upstream_body(world.services, task, {}, world.services.account)
        texts = [holder[key] for _, holder, key in image_places.image_places(sent)]
        assert texts == [base64.b64encode(png()).decode()] * len(places)


def references(world: World) -> dict[str, str]:
    """References that are none of acme's uploads, by what is wrong with them."""
    theirs, ours = upload(world, tenant="umbrella"), upload(world)
    name = ours.rpartition("/")[2]
    return {
        "foreign": theirs,
        "missing": f"s3://inputs/uploads/acme/{'0' * 32}.png",
        "other bucket": FOREIGN_BUCKET,
        "no bucket": "s3:///uploads/acme/x.png",
        "another folder": f"s3://inputs/inputs/acme/{name}",
        "up and down": f"s3://inputs/uploads/acme/../umbrella/{theirs.rpartition('/')[2]}",
        "encoded": f"s3://inputs/uploads/acme/%2e%2e/umbrella/{name}",
        "a prefix": "s3://inputs/uploads/acme/",
        "nothing": "s3://",
        "more behind": ours + "?versionId=x",
        "a line more": f"{ours}\nx",
        "another case": ours.replace("s3://", "S3://"),
        "tenant's beginning": ours.replace("/acme/", "/acm/"),
        "long": "s3://" + "x" * 100_000,
    }


def test_everything_else_is_refused_in_the_same_words(world: World) -> None:
    said = {what: refused(world, {**BODY, "image": reference}) for what, reference in references(world).items()}
    assert len(set(said.values())) == 1, said
    (message,) = set(said.values())
    assert (
        message.startswith("image: ")
        and "/uploads" in message
        and "(got an s3:// reference" in message
        and len(message) < 250
    )


@pytest.mark.parametrize("field", ["image_tail", "static_mask"])
def test_a_refusal_names_its_field(world: World, field: str) -> None:
    assert refused(world, {**BODY, "model_name": "kling-v1", field: FOREIGN_BUCKET}).startswith(f"{field}: ")
    two = {"prompt": "p", "image_list": [{"image": upload(world)}, {"image": FOREIGN_BUCKET}]}
    assert refused(world, two, kind="multi-image2video").startswith("image_list[1].image: ")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GIF89a" + bytes(100), "must be a JPEG or PNG image"),
        (b"", "is not one of your uploads"),
        (png(299, 640), "300 px"),
        (png(1000, 300), "2.5:1"),
        (png(padding=MAX_BYTES), "10 MB"),
        (png()[:20], "must be a JPEG or PNG image"),
    ],
)
def test_a_bad_image_is_refused_before_money(world: World, data: bytes, words: str) -> None:
    message = refused(world, {**BODY, "image": upload(world, data)})
    assert message.startswith("image: ") and words in message


def test_all_are_looked_at_before_one_is_stored(world: World) -> None:
    inline = base64.b64encode(png()).decode()
    refused(world, {**BODY, "image": inline, "image_tail": FOREIGN_BUCKET})
    refused(world, {**BODY, "image": upload(world), "image_tail": upload(world, b"x")})


@pytest.mark.parametrize("data", [png(padding=2_000_000)[:-1], jpeg()[:-1]])
def test_an_upload_that_is_cut_off_is_refused(world: World, data: bytes) -> None:
    assert "without its end" in refused(world, {**BODY, "image": upload(world, data)})


def test_an_image_is_read_to_its_end_and_no_larger_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, asked = upload(world, png(padding=5_000_000)), []
    real = world.services.s3.get_object
    world.services.s3._client = type("S3", (), {"get_object": lambda _, **ask: asked.append(ask) or real(**ask)})()
    found = uploads.check(world.services, "acme", "image", {"ref": reference})
    assert [one["Range"] for one in asked] == ["bytes=0-10485759"] and found.header.width == 640


def test_an_upload_that_changes_after_its_check_is_not_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = uploads.check(world.services, "acme", "image", {"ref": upload(world)})

    def changed(**asked: Any) -> Any:  # moto knows no CopySourceIfMatch
        assert asked["CopySourceIfMatch"] == checked.etag and asked["CopySource"]["Key"] == checked.key
        raise client_error("PreconditionFailed", ResponseMetadata={"HTTPStatusCode": 412})

    monkeypatch.setattr(world.services.s3._client, "copy_object", changed)
    with pytest.raises(KlingError, match="not one of your uploads"):
        uploads.keep(world.services, "image", checked, "inputs/acme/t/image")


@pytest.mark.parametrize("operation", ["get_object", "copy_object"])
def test_trouble_of_s3_is_no_refusal(world: World, monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    reference = upload(world)

    def broken(**_: Any) -> Any:
        raise client_error("SlowDown", ResponseMetadata={"HTTPStatusCode": 503})

    monkeypatch.setattr(world.services.s3._client, operation, broken)
    status, answer = world.post({**BODY, "image": reference})
    assert (status, answer["code"]) == (503, 5001) and world.tasks() == []


# -- repeating


def test_a_repeated_request_finds_its_task_when_the_upload_is_gone(world: World) -> None:
    reference = upload(world)
    body, key = {**BODY, "image": reference}, {"Idempotency-Key": "k1"}
    task = world.create(body, **key)
    assert world.create(body, **key).id == task.id
    world.cloud.s3.delete_object(Bucket="inputs", Key=reference.removeprefix("s3://inputs/"))
    assert world.create(body, **key).id == task.id and len(world.provider.posts) == 1
    status, answer = world.post({**body, "prompt": "another"}, **key)
    assert (status, answer["code"]) == (400, 1201) and "Idempotency-Key" in answer["message"]
    assert world.post(body)[1]["message"].startswith("image: ")


def test_two_tasks_of_one_upload_have_their_own_copies(world: World) -> None:
    reference = upload(world)
    tasks: list[Task] = [world.create({**BODY, "image": reference}) for _ in range(2)]
    assert len({task.request["image"]["s3"] for task in tasks}) == 2
    assert all(world.until_closed(task.id).phase is Phase.SUCCEEDED for task in tasks)
