"""Provide settings, clients and clock from one place, each built at its first use and then kept."""

import json
import os
from collections.abc import Mapping
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from kling_relay import observability
from kling_relay.aws_clients import AwsClients
from kling_relay.clock import Clock
from kling_relay.observability import Metric
from kling_relay.provider import models
from kling_relay.provider.admission import AdmissionStore
from kling_relay.provider.credentials import TokenSigner, entries, entry_of, key_in, webhook_secrets_in
from kling_relay.provider.models import Catalogue
from kling_relay.provider.positive_controls import Controls
from kling_relay.provider.profiles import Account, profile
from kling_relay.security.api_keys import Keys
from kling_relay.security.cloudfront_signer import DeliveryKey
from kling_relay.security.keyring import Keyring
from kling_relay.security.stored_secrets import Cached, StoredSecrets
from kling_relay.security.webhook_secrets import SigningSecrets
from kling_relay.settings import Settings
from kling_relay.tasks import metrics
from kling_relay.tasks.batch_counts import BatchCountStore
from kling_relay.tasks.outbox import Outbox
from kling_relay.tasks.queries import Backlog, Ended
from kling_relay.tasks.semaphore import Permits
from kling_relay.tasks.spend_cap import Spending
from kling_relay.tasks.table import TaskTable
from kling_relay.tasks.task import Task

if TYPE_CHECKING:  # what only some functions use is imported where it is made
    from kling_relay.provider.client import Provider

# Two calls of the table without an answer end within the gateway's 29 s: idempotency.py answers after the second one.
_TABLE_CONFIG = Config(connect_timeout=1, read_timeout=3)
# The overlay of the models is not worth a wait: without it the shipped catalogue applies.
_QUICK = Config(connect_timeout=1, read_timeout=1, retries={"mode": "standard", "total_max_attempts": 1})


class Services(AwsClients):
    """Everything that a function may need; unused parts are never built."""

    def __init__(self, settings: Settings, clock: Clock | None = None, session: Session | None = None) -> None:
        super().__init__(settings, session)
        self.clock = clock or Clock()

    @cached_property
    def table(self) -> TaskTable:
        settings = self.settings
        name, days = settings.need("task_table"), settings.task_retention_days
        return TaskTable(self.client("dynamodb", _TABLE_CONFIG), name, days, on_move=self.report_move)

    @cached_property
    def admissions(self) -> AdmissionStore:
        return AdmissionStore(self.table.rows)

    @cached_property
    def controls(self) -> Controls:
        return Controls(self.table.rows)

    @cached_property
    def spending(self) -> Spending:
        return Spending(self.table.rows, self.settings.monthly_cap_units * 1000)

    @cached_property
    def keys(self) -> Keys:
        return Keys(self.table.rows)

    @cached_property
    def outbox(self) -> Outbox:
        return Outbox(self.table.rows)

    @cached_property
    def permits(self) -> Permits:
        return Permits(self.table.rows)

    @cached_property
    def signing(self) -> SigningSecrets:
        return SigningSecrets(self.table.rows)

    @cached_property
    def batch_counts(self) -> BatchCountStore:
        return BatchCountStore(self.table.rows)

    @cached_property
    def backlog(self) -> Backlog:
        return Backlog(self.table.rows)

    @cached_property
    def ended(self) -> Ended:
        return Ended(self.table.rows)

    def measure(self, values: Mapping[Metric, float]) -> None:
        """Publish metrics of this stack. Never raises."""
        self._emit(values)

    def count(self, metric: Metric, reason: str) -> None:
        """Publish one count of a metric that has reasons. Never raises."""
        self._emit({metric: 1}, reason)

    def report_move(self, before: Task | None, after: Task) -> None:
        """Write the metrics and the log line of a task's move. Never raises."""
        metrics.report_move(before, after, self.measure, self.count)

    def _emit(self, values: Mapping[Metric, float], reason: str | None = None) -> None:
        observability.emit(self.settings.stack_name or "kling-relay", values, reason)

    @property
    def account(self) -> str:
        """The account that new tasks are sent to: provider.profiles.Account as text."""
        settings = self.settings
        chosen = profile(settings.provider, settings.kling_base_url)
        return str(Account(settings.provider, chosen.base_url, settings.provider_account))

    @property
    def provider(self) -> "Provider":
        """The provider of new tasks."""
        return self.provider_at(self.account)

    @provider.setter
    def provider(self, given: "Provider") -> None:
        self._providers[self.account] = given

    @cached_property
    def _providers(self) -> "dict[str, Provider]":
        return {}

    def account_of(self, task: Task) -> str:
        """Return the account that `task` was sent to, or will be sent to."""
        return task.account or self.account

    def provider_of(self, task: Task) -> "Provider":
        return self.provider_at(self.account_of(task))

    def provider_at(self, account: str) -> "Provider":
        """Return the provider of `account`, with that account's key. Raises SettingsError without a profile for it."""
        if account not in self._providers:
            self._providers[account] = self._connect(account)
        return self._providers[account]

    def _connect(self, account: str) -> "Provider":
        from kling_relay.provider.client import Provider  # not for functions that never ask a provider

        named = Account.read(account)
        chosen = profile(named.profile, named.base_url)

        def stored(refresh: bool) -> str:
            return key_in(entry_of(self.secrets.provider.get(refresh), account))

        key = TokenSigner(stored, lambda: self.clock.now_ms() / 1000) if chosen.auth == "aksk" else stored
        return Provider(chosen, key, lambda outcome: self.count(Metric.PROVIDER_CALLS, outcome))

    def provider_secret(self) -> str:
        """Return the stored secret of all accounts. Raises SettingsError if nothing is stored."""
        return self.secrets.provider.get(True)

    def webhook_secrets(self, refresh: bool = False) -> list[str]:
        """Return the secrets that the providers may sign their callbacks with; none if none is stored."""
        held = entries(self.secrets.provider.get(refresh)).values()
        return [secret for entry in held for secret in webhook_secrets_in(entry)]

    @cached_property
    def secrets(self) -> StoredSecrets:
        return StoredSecrets(self.settings, lambda: self.client("secretsmanager"))

    @property
    def keyring(self) -> Keyring:
        signing_keys = self.secrets.relay
        return Keyring(json.loads(signing_keys.get()), lambda: json.loads(signing_keys.get(refresh=True)))

    @property
    def delivery_key(self) -> DeliveryKey | None:
        """The key that signs video URLs; None if the stack has no distribution, or no key is stored yet."""
        return self.secrets.delivery.get()

    @property
    def base_url(self) -> str:
        """The API's own public URL, without a slash at its end."""
        return self._base_url.get()

    @cached_property
    def _base_url(self) -> Cached[str]:
        parameter = self.settings.need("base_url_parameter")
        return Cached(lambda: self.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"].rstrip("/"))

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue of models, with the operator's overlay if it is usable."""
        return self._catalogue.get()

    @cached_property
    def _catalogue(self) -> Cached[Catalogue]:
        if not (name := self.settings.models_parameter):
            return Cached(models.shipped)
        return Cached(partial(models.current, name, partial(self._read_overlay, name)))

    def _read_overlay(self, name: str) -> str | None:
        """Return the text of the operator's overlay; None if there is none. Raises OverlayError if SSM fails."""
        try:
            text: str = self.client("ssm", _QUICK).get_parameter(Name=name)["Parameter"]["Value"]
        except ClientError as exc:
            if (code := exc.response["Error"]["Code"]) == "ParameterNotFound":
                return None
            raise models.OverlayError(code) from exc
        except BotoCoreError as exc:
            raise models.OverlayError(type(exc).__name__) from exc
        return text


@cache
def get_services() -> Services:
    """Return the services of this process, built from its environment."""
    return Services(Settings.read(os.environ))
