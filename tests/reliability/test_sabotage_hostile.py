"""Test the campaigns of hostile input: each protection is removed in turn, and its campaign fails."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from kling_relay.lifecycle import callback, poll
from kling_relay.media import mp4
from kling_relay.provider.responses import ProviderTask
from kling_relay.security import callback_tokens, standard_webhooks
from kling_relay.security.keyring import Keyring
from kling_relay.tasks.table import TaskTable
from kling_relay.transfer import pinned_connection, s3_copy, ssrf_rules
from kling_relay.transfer.deadline import Deadline

from tests.reliability import (
    hostile_servers,
    test_downloads,
    test_forged_callbacks,
    test_hostile_addresses,
    test_hostile_servers,
    test_lying_bodies,
)
from tests.reliability.campaign import Campaign
from tests.reliability.hostile_urls import INSIDE
from tests.reliability.test_downloads import origin, s3, source, steps, visible  # noqa: F401  (fixtures)
from tests.reliability.test_forged_callbacks import calls  # noqa: F401  (fixture)
from tests.reliability.test_hostile_servers import bucket, meter, sink  # noqa: F401  (fixtures)
from tests.support.stack_in_memory import Cloud

pytestmark = pytest.mark.enable_socket

Patch = pytest.MonkeyPatch


def _no_deny_table(patch: Patch, cloud: Cloud) -> None:
    patch.setattr(ssrf_rules, "_DENIED_NETWORKS", [])


def _only_the_first_answer(patch: Patch, cloud: Cloud) -> None:
    """Of several addresses, the one that is connected to is the only one that is looked at."""
    resolve = ssrf_rules._resolve_in_time
    patch.setattr(ssrf_rules, "_resolve_in_time", lambda host, seconds: resolve(host, seconds)[:1])


def _any_port_and_scheme(patch: Patch, cloud: Cloud) -> None:
    origin_of = ssrf_rules.origin
    patch.setattr(ssrf_rules, "origin", lambda url: ("https", origin_of(url)[1], 443))


def _unchecked_redirects(patch: Patch, cloud: Cloud) -> None:
    checked = ssrf_rules.checked
    patch.setattr(
        ssrf_rules,
        "checked",
        lambda url, *, trusted, seconds: checked(url, trusted=trusted or url.path != "/0", seconds=seconds),
    )


def _not_pinned(patch: Patch, cloud: Cloud) -> None:
    """The name is resolved once more for the connection."""
    checked = ssrf_rules.checked

    def name(url: Any, *, trusted: bool, seconds: float) -> str:
        checked(url, trusted=trusted, seconds=seconds)
        return str(url.host)

    patch.setattr(ssrf_rules, "checked", name)


def _no_watchdog(patch: Patch, cloud: Cloud) -> None:
    patch.setattr(Deadline, "_pass", lambda deadline: None)
    patch.setattr(hostile_servers, "PATIENCE", 1)


def _no_meter(patch: Patch, cloud: Cloud) -> None:
    patch.setattr(pinned_connection, "FRAME_BYTES", 1 << 40)


def _no_walk(patch: Patch, cloud: Cloud) -> None:
    patch.setattr(mp4.BoxWalk, "feed", lambda walk, data: None)
    patch.setattr(mp4.BoxWalk, "finish", lambda walk: None)


def _no_end_of_the_walk(patch: Patch, cloud: Cloud) -> None:
    patch.setattr(mp4.BoxWalk, "finish", lambda walk: None)


def _overwriting(patch: Patch, cloud: Cloud) -> None:
    put = s3_copy._put

    class Careless:
        def __init__(self, client: Any) -> None:
            self.client = client

        def __getattr__(self, name: str) -> Any:
            return lambda **call: getattr(self.client, name)(**{k: v for k, v in call.items() if k != "IfNoneMatch"})

    patch.setattr(s3_copy, "_put", lambda client, *rest: put(Careless(client), *rest))


def _half_a_token(patch: Patch, cloud: Cloud) -> None:
    def half(ring: Keyring, task_id: str, token: str) -> bool:
        return any(token[:20] == callback_tokens._token(ring, key_id, task_id)[:20] for key_id in ring.versions)

    patch.setattr(callback, "is_callback_token", half)


def _any_signature(patch: Patch, cloud: Cloud) -> None:
    patch.setattr(callback, "is_signed", lambda *_: True)


def _any_age(patch: Patch, cloud: Cloud) -> None:
    patch.setattr(standard_webhooks, "_TOLERANCE_SECONDS", 10**12)


def _believed_body(patch: Patch, cloud: Cloud) -> None:
    ask, real = poll.query, callback.on_callback

    def believe(services: Any, task_id: str, claim: ProviderTask | None) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(poll, "query", lambda services, task: claim or ask(services, task))
            real(services, task_id, claim)

    patch.setattr(callback, "on_callback", believe)


def _no_gap(patch: Patch, cloud: Cloud) -> None:
    patch.setattr(TaskTable, "claim_callback_slot", lambda *_, **__: True)


SABOTAGES: dict[str, tuple[Callable[[Patch, Cloud], None], str]] = {
    "the deny table is empty": (_no_deny_table, "hostile_addresses"),
    "scheme and port are not looked at": (_any_port_and_scheme, "hostile_addresses"),
    "only the first answer is checked": (_only_the_first_answer, "hostile_addresses"),
    "the name is resolved twice": (_not_pinned, "rebinding"),
    "redirects are not checked": (_unchecked_redirects, "redirect_chains"),
    "nobody watches the clock": (_no_watchdog, "hostile_servers"),
    "only the body is counted": (_no_meter, "hostile_servers"),
    "the boxes are not walked": (_no_walk, "wrong_types"),
    "the walk has no end": (_no_end_of_the_walk, "cut_downloads"),
    "objects are overwritten": (_overwriting, "copiers"),
    "half a token is enough": (_half_a_token, "forged_callbacks"),
    "signatures are not compared": (_any_signature, "forged_signatures"),
    "a signature does not age": (_any_age, "forged_signatures"),
    "a callback's body is believed": (_believed_body, "lying_bodies"),
    "every callback asks": (_no_gap, "lying_bodies"),
}
CAMPAIGNS: dict[str, Callable[..., None]] = {
    "hostile_addresses": test_hostile_addresses.test_hostile_addresses,
    "rebinding": test_hostile_addresses.test_rebinding,
    "redirect_chains": test_hostile_addresses.test_redirect_chains,
    "hostile_servers": test_hostile_servers.test_hostile_servers,
    "wrong_types": test_downloads.test_wrong_types,
    "cut_downloads": test_downloads.test_cut_downloads,
    "copiers": test_downloads.test_a_death_or_a_second_copier_at_each_part,
    "forged_callbacks": test_forged_callbacks.test_forged_callbacks,
    "forged_signatures": test_forged_callbacks.test_forged_signatures,
    "lying_bodies": test_lying_bodies.test_lying_bodies,
}


@pytest.mark.parametrize("name", SABOTAGES)
def test_sabotage_is_noticed(name: str, request: pytest.FixtureRequest, cloud: Cloud, monkeypatch: Patch) -> None:
    sabotage, campaign = SABOTAGES[name]
    given: dict[str, Any] = {"campaign": Campaign(f"sabotage: {name}"), "framing": "length"}
    wanted = inspect.signature(CAMPAIGNS[campaign]).parameters
    given |= {one: request.getfixturevalue(one) for one in wanted if one not in given}
    if campaign in ("hostile_addresses", "rebinding", "redirect_chains"):
        given["internet"].names |= INSIDE
    sabotage(monkeypatch, cloud)
    with pytest.raises((AssertionError, pytest.fail.Exception)) as caught:
        CAMPAIGNS[campaign](**{one: given[one] for one in wanted})
    assert f"of sabotage: {name} (" in "".join(caught.value.__notes__), "and not for another reason"
