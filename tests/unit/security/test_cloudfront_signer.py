"""Test signed addresses of videos with an independent implementation of CloudFront's check."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.signers import CloudFrontSigner
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from kling_relay.client_view import task_object
from kling_relay.security.cloudfront_signer import LIFE_SECONDS, DeliveryKey
from kling_relay.services import Services
from kling_relay.settings import SettingsError
from kling_relay.tasks.task import Phase

from kling_relay_cli.operators.delivery_key import new_pair, secret_text
from tests.support.stack_in_memory import START, Cloud, World, video_keys

PRIVATE, PUBLIC = new_pair()
URL, DAY = "https://d111111abcdef8.cloudfront.net", 86_400
KEY = "videos/acme/0123456789abcdef/0.mp4"


def stored(**more: Any) -> str:
    return secret_text(**{"url": URL, "slot": "A", "key_pair_id": "K1", "private_key": PRIVATE, **more})


def signed(message: bytes) -> bytes:
    key: Any = serialization.load_pem_private_key(PRIVATE.encode(), None)
    return key.sign(message, ec.ECDSA(SHA256(), deterministic_signing=True))


@given(st.floats(min_value=1.7e9, max_value=4e9))
def test_it_is_what_botocore_would_make(now: float) -> None:
    url = DeliveryKey.read(stored()).url_of(KEY, now)
    expires = datetime.fromtimestamp(int(parse_qs(urlsplit(url).query)["Expires"][0]), UTC)
    theirs = CloudFrontSigner("K1", signed).generate_presigned_url(f"{URL}/{KEY}", date_less_than=expires)
    assert url == f"{theirs}&Hash-Algorithm=SHA256"


@given(st.floats(min_value=1.7e9, max_value=4e9), st.floats(min_value=0, max_value=DAY))
def test_it_lives_for_30_days_and_is_the_same_all_day(now: float, later: float) -> None:
    key = DeliveryKey.read(stored())
    urls = [key.url_of(KEY, at) for at in (now, now + later)]
    ends = [int(parse_qs(urlsplit(url).query)["Expires"][0]) for url in urls]
    assert LIFE_SECONDS == 30 * DAY
    for at, end in zip((now, now + later), ends, strict=True):
        assert at + 30 * DAY <= end < at + 31 * DAY and end % DAY == 0
    assert (urls[0] == urls[1]) == (ends[0] == ends[1])


def test_the_public_half_verifies_it_and_nothing_else() -> None:
    url = DeliveryKey.read(stored()).url_of(KEY, 1_790_000_000)
    query = {name: value for name, (value,) in parse_qs(urlsplit(url).query).items()}
    signature = base64.b64decode(query["Signature"].translate(str.maketrans("-_~", "+=/")))
    resource, expires = url.partition("?")[0], query["Expires"]
    policy = (
        f'{{"Statement":[{{"Resource":"{resource}","Condition":{{"DateLessThan":{{"AWS:EpochTime":{expires}}}}}}}]}}'
    )
    public: Any = serialization.load_pem_public_key(PUBLIC.encode())
    public.verify(signature, policy.encode(), ec.ECDSA(SHA256()))
    for other in (policy.replace(KEY, KEY.replace("acme", "evil")), policy.replace(expires, str(int(expires) + 1))):
        with pytest.raises(InvalidSignature):
            public.verify(signature, other.encode(), ec.ECDSA(SHA256()))


def test_what_a_path_may_not_hold_is_escaped_before_it_is_signed() -> None:
    url = DeliveryKey.read(stored()).url_of('videos/a b/"?&é.mp4', 1_790_000_000)
    assert url.startswith(f"{URL}/videos/a%20b/%22%3F%26%C3%A9.mp4?Expires=")


def rsa_key() -> str:
    key = rsa.generate_private_key(65537, 2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "[]", "null", "{}", stored(url=""), stored(key_pair_id=None), stored(private_key="canary")),
        *(stored(private_key=5), stored(private_key=PUBLIC), stored(private_key=rsa_key())),
    ],
    ids=range(11),
)
def test_a_secret_that_is_none_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(SettingsError, match="make delivery-key") as refused:
        DeliveryKey.read(text)
    assert "canary" not in str(refused.value) and "PRIVATE" not in str(refused.value)


def test_the_key_is_not_shown() -> None:
    assert "PRIVATE" not in repr(DeliveryKey.read(stored()))


# -- what a client gets


@pytest.fixture
def delivering(cloud: Cloud) -> World:
    """A relay whose stack has a distribution; its secret is empty."""
    secrets = cloud.session.client("secretsmanager")
    name = secrets.create_secret(Name=f"delivery-{len(secrets.list_secrets()['SecretList'])}")["ARN"]
    return World(cloud, delivery_key_secret_id=name)


def put(world: World, text: str) -> None:
    secret = world.services.settings.delivery_key_secret_id
    world.cloud.session.client("secretsmanager").put_secret_value(SecretId=secret, SecretString=text)
    world.services.secrets.__dict__.pop("delivery", None)  # five minutes later


def address(world: World, task_id: str) -> str:
    _, body = world.http("GET", f"/v1/videos/image2video/{task_id}", authorization=world.key())
    return str(body["data"]["task_result"]["videos"][0]["url"])


def test_until_the_key_is_stored_addresses_are_s3s_own(delivering: World) -> None:
    task = delivering.until_closed(delivering.create().id)
    assert "X-Amz-Signature=" in address(delivering, task.id)
    put(delivering, stored())
    url = address(delivering, task.id)
    assert url == DeliveryKey.read(stored()).url_of(video_keys(task)[0], delivering.clock.now / 1000)
    assert delivering.clock.now >= START and "Expires" not in json.dumps(delivering.row(f"task#{task.id}"))


def test_every_video_of_a_result_has_one_the_watermarked_one_too(delivering: World) -> None:
    put(delivering, stored())
    task = delivering.until_closed(delivering.create().id)
    assert task.phase is Phase.SUCCEEDED
    names = [f"videos/acme/{task.id}/{name}.mp4" for name in ("0", "0-watermark", "1")]
    videos = [
        {"id": "a", "duration": "5", "key": names[0], "watermark_key": names[1]},
        {"id": "b", "duration": "5", "key": names[2]},
    ]
    shown = task_object(delivering.services, replace(task, videos=videos))["task_result"]["videos"]
    urls = [shown[0]["url"], shown[0]["watermark_url"], shown[1]["url"]]
    assert [url.partition("?")[0] for url in urls] == [f"{URL}/{name}" for name in names]
    assert len({parse_qs(urlsplit(url).query)["Signature"][0] for url in urls}) == 3


def test_lists_have_the_same_addresses(delivering: World) -> None:
    put(delivering, stored())
    task = delivering.until_closed(delivering.create().id)
    _, body = delivering.http("GET", "/v1/videos/image2video", authorization=delivering.key())
    assert body["data"][0]["task_result"]["videos"][0]["url"] == address(delivering, task.id)


def test_a_task_without_a_video_asks_for_no_key(delivering: World) -> None:
    put(delivering, "broken")
    task = delivering.create()
    assert delivering.http("GET", f"/v1/videos/image2video/{task.id}", authorization=delivering.key())[0] == 200


def test_a_stack_without_a_distribution_asks_nobody(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(cloud)
    monkeypatch.setattr(Services, "client", lambda *_, **__: pytest.fail("asked"))
    assert world.services.delivery_key is None
