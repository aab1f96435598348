"""Test the operator's key commands, and their failures, against a local stack that plays the deployed one."""

import json
import re
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from kling_relay.provider.credentials import entry_of

from kling_relay_cli import commands
from kling_relay_cli.api_client import Client
from kling_relay_cli.api_client import ClientError as ApiError
from kling_relay_cli.operators.stack import DeployedStack, explained
from local.stack.stack import Stack
from tests.deployed.operator import STAGE, problems, run, stored_key, typed

REQUIRED = {"revoke": ("--key", "k"), "replay": ("--task", "t"), "retry-archive": ("--task", "t")}
SIGNING = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="


def entry() -> str:
    """What is stored for the account that new tasks go to."""
    return entry_of(stored_key(), DeployedStack(STAGE).account)


class TestProviderKey:
    def test_it_is_stored_without_the_blanks_around_it(
        self, restored_key: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        typed(monkeypatch, "  sk-new-key \n")
        assert run("provider-key") == 0
        assert entry() == "sk-new-key"
        said = capsys.readouterr().out
        assert "sk-new-key" not in said
        assert f"next: make key STAGE={STAGE}" in said

    def test_on_a_terminal_it_is_asked_for_without_echo(
        self, restored_key: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        typed(monkeypatch, "", terminal=True)
        monkeypatch.setattr("getpass.getpass", lambda prompt: "sk-typed")
        assert run("provider-key") == 0
        assert entry() == "sk-typed"

    @pytest.mark.parametrize(
        ("text", "problem"), [("", "required"), (" \n ", "required"), ("two words", "blanks"), ("a\nb", "blanks")]
    )
    def test_what_is_no_key_is_refused(
        self, aws: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, problem: str
    ) -> None:
        before = stored_key()
        typed(monkeypatch, text)
        assert run("provider-key") == 1
        assert problem in capsys.readouterr().err
        assert stored_key() == before


class TestWebhookSecret:
    def test_it_is_stored_beside_the_key_and_doctor_signs_with_it(
        self, aws: Stack, restored_key: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        key = stored_key()
        typed(monkeypatch, f"{SIGNING} \n")
        assert run("webhook-secret") == 0
        assert json.loads(entry()) == {"key": key, "webhook_secret": SIGNING}
        assert SIGNING not in capsys.readouterr().out
        assert set(problems()) == {"alarms have confirmed subscriptions"}
        typed(monkeypatch, "sk-another")
        assert run("provider-key") == 0
        assert json.loads(entry()) == {"key": "sk-another", "webhook_secret": SIGNING}
        typed(monkeypatch, "none\n")
        assert run("webhook-secret") == 0
        assert entry() == "sk-another"

    @pytest.mark.parametrize("text", ["", "sk-key", f"{SIGNING} sk-key", "none none", "whsec_%%%%%%%%%%%%%%%%%%%%"])
    def test_what_is_no_secret_is_refused(
        self, aws: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
    ) -> None:
        before = stored_key()
        typed(monkeypatch, text)
        assert run("webhook-secret") == 1
        assert f"make webhook-secret STAGE={STAGE}" in capsys.readouterr().err
        assert stored_key() == before


class TestKey:
    def test_it_is_shown_once_and_works(self, aws: Stack, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("key", "--tenant", "acme") == 0
        said = capsys.readouterr().out
        shown = dict(re.findall(r"^  (\w+) +(\S+)", said, re.MULTILINE))
        assert set(shown) == {"api_key", "access_key", "secret_key"}
        assert "shown once" in said
        with pytest.raises(ApiError, match="code 1203"):  # known, and asks for a task that is not there
            Client(aws.endpoint["api_url"], shown["api_key"]).query("image2video", "missing")

    def test_an_impossible_tenant_is_explained(self, aws: Stack, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("key", "--tenant", "Not Possible") == 1
        said = capsys.readouterr()
        assert "tenant: must be 1 to 63" in said.err
        assert said.out == ""

    def test_what_it_is_given_is_in_the_list(self, aws: Stack, capsys: pytest.CaptureFixture[str]) -> None:
        wishes = ("--label", "a shop", "--scopes", "read", "--until", "2099-01-31")
        assert run("key", "--tenant", "lists", *wishes) == 0
        assert run("key", "--tenant", "lists", "--scopes", "read, submit", "--days", "3650") == 0
        capsys.readouterr()
        assert run("keys", "--tenant", "lists") == 0
        said = capsys.readouterr().out
        head, first, second = (re.split(r"  +", line) for line in said.splitlines())
        assert head == ["key id", "state", "scopes", "created", "expires", "label"]
        assert first[1:3] == ["active", "read"] and first[4:] == ["2099-01-31", "a shop"]
        assert second[1:3] == ["active", "submit,read"] and re.fullmatch(r"20\d\d-\d\d-\d\d", second[4])
        assert "kr_" not in said

    def test_a_tenant_without_keys(self, aws: Stack, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("keys", "--tenant", "nobody") == 0
        assert f"make key STAGE={STAGE} TENANT=nobody" in capsys.readouterr().out

    @pytest.mark.parametrize("whole", [False, True])
    def test_it_is_revoked_by_its_id_or_as_a_whole(
        self, aws: Stack, capsys: pytest.CaptureFixture[str], whole: bool
    ) -> None:
        issued = DeployedStack(STAGE).operate("create_key", tenant="ends")
        assert run("revoke", "--key", issued["api_key" if whole else "key_id"]) == 0
        assert issued["api_key"] not in capsys.readouterr().out
        with pytest.raises(ApiError, match="code 1002"):
            Client(aws.endpoint["api_url"], issued["api_key"]).query("image2video", "missing")
        assert run("keys", "--tenant", "ends") == 0
        assert re.search(rf"{issued['key_id']}  revoked", capsys.readouterr().out)

    @pytest.mark.parametrize("key", ["", "none", "kr_none_x_y", "kr_"])
    def test_a_key_that_is_not_there(self, aws: Stack, capsys: pytest.CaptureFixture[str], key: str) -> None:
        assert run("revoke", "--key", key) == 1
        said = capsys.readouterr().err
        assert "key: not found" in said and f"make keys STAGE={STAGE}" in said

    @pytest.mark.parametrize(
        ("wrong", "problem"),
        [
            (("--scopes", "admin"), "scopes: "),
            (("--days", "0"), "expires_in_days: "),
            (("--until", "x"), "expires_at: "),
        ],
    )
    def test_wishes_that_cannot_be_met_are_explained(
        self, aws: Stack, capsys: pytest.CaptureFixture[str], wrong: tuple[str, str], problem: str
    ) -> None:
        assert run("key", *wrong) == 1
        assert problem in capsys.readouterr().err

    def test_a_key_for_reading_only(self, aws: Stack) -> None:
        issued = DeployedStack(STAGE).operate("create_key", tenant="reader", scopes=["read"])
        api = Client(aws.endpoint["api_url"], issued["api_key"])
        with pytest.raises(ApiError, match="code 1103"):
            api.send("image2video", {"image": "https://images.example/cat.png"})
        with pytest.raises(ApiError, match="code 1203"):
            api.query("image2video", "missing")


class TestTrouble:
    @pytest.mark.parametrize("command", sorted(commands.cli.commands))
    def test_no_stack(
        self, aws: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
    ) -> None:
        typed(monkeypatch, "sk-any\n")
        assert commands.main([command, *REQUIRED.get(command, ()), "--stage", "missing"]) == 1
        said = "".join(capsys.readouterr())
        assert "stack kling-relay-missing: not found in us-east-1" in said
        assert "-> make deploy STAGE=missing" in said

    @pytest.mark.parametrize("command", sorted(commands.cli.commands))
    def test_no_credentials(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
    ) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        assert run(command, *REQUIRED.get(command, ())) == 1
        said = "".join(capsys.readouterr())
        assert "AWS credentials: not usable" in said
        assert "aws sso login" in said

    def test_an_unknown_profile(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
        assert run("key") == 1
        assert "no-such-profile" in capsys.readouterr().err

    def test_no_region(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        assert run("key") == 1
        assert "set AWS_DEFAULT_REGION" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("code", "remedy"),
        [
            ("AccessDenied", "get the permission"),
            ("AccessDeniedException", "get the permission"),
            ("ExpiredToken", "sign in"),
            ("ThrottlingException", "try again"),
        ],
    )
    def test_refusals_of_aws(self, code: str, remedy: str) -> None:
        response: Any = {"Error": {"Code": code, "Message": "so it is"}}
        error = explained(ClientError(response, "DescribeStacks"), DeployedStack(STAGE))
        assert "so it is" in str(error)
        assert remedy in error.remedy

    def test_aws_out_of_reach(self) -> None:
        error = explained(EndpointConnectionError(endpoint_url="https://x.invalid"), DeployedStack(STAGE))
        assert "no connection" in str(error)
