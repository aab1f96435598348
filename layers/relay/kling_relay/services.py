"""Provide settings, clients and clock from one place, each built at its first use and then kept."""

import encodings.idna  # noqa: F401  (every connection needs it; loaded here, the first one is quicker)
import json
import os
from collections.abc import Mapping
from functools import cache, cached_property
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import DEFAULT_CA_BUNDLE

from kling_relay import observability
from kling_relay.clock import Clock
from kling_relay.observability import Metric, logger
from kling_relay.provider import models
from kling_relay.provider.admission import AdmissionStore
from kling_relay.provider.client import Provider
from kling_relay.provider.credentials import TokenSigner, entries, entry_of, key_in, webhook_secrets_in
from kling_relay.provider.models import Catalogue
from kling_relay.provider.positive_controls import Controls
from kling_relay.provider.profiles import Account, profile
from kling_relay.security.api_keys import Keys
from kling_relay.security.cloudfront_signer import DeliveryKey
from kling_relay.security.keyring import Keyring
from kling_relay.security.stored_secrets import Cached
from kling_relay.security.webhook_secrets import SigningSecrets
from kling_relay.settings import Settings, SettingsError
from kling_relay.tasks import metrics
from kling_relay.tasks.batch_counts import BatchCountStore
from kling_relay.tasks.outbox import Outbox
from kling_relay.tasks.queries import Backlog, Ended
from kling_relay.tasks.semaphore import Permits
from kling_relay.tasks.spend_cap import Spending
from kling_relay.tasks.table import TaskTable
from kling_relay.tasks.task import Task
from kling_relay.transfer import s3_copy

_CONFIG = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
# Two calls of the table without an answer end within the gateway's 29 s: idempotency.py answers after the second one.
_TABLE_CONFIG = _CONFIG.merge(Config(connect_timeout=1, read_timeout=3))
# The overlay of the models is not worth a wait: without it the shipped catalogue applies.
_QUICK = Config(connect_timeout=1, read_timeout=1, retries={"mode": "standard", "total_max_attempts": 1})


class Services:
    """Everything that a function may need; unused parts are never built."""

    def __init__(self, settings: Settings, clock: Clock | None = None, session: Any = None) -> None:
        self.settings = settings
        self.clock = clock or Clock()
        self._session = session

    def client(self, service: str, config: Config | None = None) -> Any:
        """Create a botocore client. All clients share one session, which makes all but the first start faster."""
        return self._create_client(service, _CONFIG.merge(config) if config else _CONFIG)

    def _create_client(self, service: str, config: Config) -> Any:
        self._session = self._session or botocore.session.get_session()
        # botocore's own roots: in the layer these are AWS's alone, because they are loaded for every connection.
        return self._session.create_client(service, config=config, verify=DEFAULT_CA_BUNDLE)

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
        try:
            if (told := metrics.line(before, after)) is not None:
                logger.info("task_moved", extra=told)
            if plain := metrics.of_move(before, after):
                self.measure(plain)
            if (failure := metrics.failure(before, after)) is not None:
                self.count(Metric.FAILED, failure)
        except Exception as exc:
            logger.warning("metrics_lost", extra={"error": type(exc).__name__, "task_id": after.id})

    def _emit(self, values: Mapping[Metric, float], reason: str | None = None) -> None:
        observability.emit(self.settings.stack_name or "kling-relay", values, reason)

    @cached_property
    def s3(self) -> Any:
        return self._owned(_regional(self.client("s3", Config(signature_version="s3v4"))))

    @cached_property
    def archive_s3(self) -> Any:
        """The S3 client for copies: a streamed body cannot be sent twice, so the SDK makes no retries."""
        return self._owned(_regional(self._create_client("s3", s3_copy.client_config())))

    def _owned(self, client: Any) -> Any:
        """Add the expected bucket owner to every call: another account may have created a bucket under a released name.
        Presigned URLs, which are not calls, do not have it."""
        if owner := self.settings.account_id:
            name = {"x-amz-expected-bucket-owner": owner}
            client.meta.events.register("before-call.s3", lambda params, **_: params["headers"].update(name))
        return client

    @cached_property
    def queues(self) -> Any:
        return self.client("sqs")

    @cached_property
    def workflows(self) -> Any:
        return self.client("stepfunctions")

    @cached_property
    def lambdas(self) -> Any:
        return self.client("lambda")

    @cached_property
    def events(self) -> Any:
        return self.client("events")

    @property
    def account(self) -> str:
        """The account that new tasks are sent to: provider.profiles.Account as text."""
        settings = self.settings
        chosen = profile(settings.provider, settings.kling_base_url)
        return str(Account(settings.provider, chosen.base_url, settings.provider_account))

    @property
    def provider(self) -> Provider:
        """The provider of new tasks."""
        return self.provider_at(self.account)

    @provider.setter
    def provider(self, given: Provider) -> None:
        self._providers[self.account] = given

    @cached_property
    def _providers(self) -> dict[str, Provider]:
        return {}

    def account_of(self, task: Task) -> str:
        """Return the account that `task` was sent to, or will be sent to."""
        return task.account or self.account

    def provider_of(self, task: Task) -> Provider:
        return self.provider_at(self.account_of(task))

    def provider_at(self, account: str) -> Provider:
        """Return the provider of `account`, with that account's key. Raises SettingsError without a profile for it."""
        if account not in self._providers:
            self._providers[account] = self._connect(account)
        return self._providers[account]

    def _connect(self, account: str) -> Provider:
        named = Account.read(account)
        chosen = profile(named.profile, named.base_url)

        def stored(refresh: bool) -> str:
            return key_in(entry_of(self._provider_key.get(refresh), account))

        key = TokenSigner(stored, lambda: self.clock.now_ms() / 1000) if chosen.auth == "aksk" else stored
        return Provider(chosen, key, lambda outcome: self.count(Metric.PROVIDER_CALLS, outcome))

    def provider_secret(self) -> str:
        """Return the stored secret of all accounts. Raises SettingsError if nothing is stored."""
        return self._provider_key.get(True)

    def webhook_secrets(self, refresh: bool = False) -> list[str]:
        """Return the secrets that the providers may sign their callbacks with; none if none is stored."""
        held = entries(self._provider_key.get(refresh)).values()
        return [secret for entry in held for secret in webhook_secrets_in(entry)]

    @cached_property
    def _provider_key(self) -> Cached[str]:
        return Cached(lambda: self._secret("provider_key_secret_id", "store it with `make provider-key`"))

    @property
    def keyring(self) -> Keyring:
        return Keyring(json.loads(self._relay_secret.get()), lambda: json.loads(self._relay_secret.get(refresh=True)))

    @cached_property
    def _relay_secret(self) -> Cached[str]:
        return Cached(lambda: self._secret("relay_secret_id", "it belongs to the stack: deploy it again"))

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
        return Cached(self._read_catalogue)

    def _read_catalogue(self) -> Catalogue:
        """Read the catalogue. Never fails: a bad or unreachable overlay is logged, and the shipped one applies."""
        if not (name := self.settings.models_parameter):
            return models.shipped()
        try:
            return models.overlaid(self.client("ssm", _QUICK).get_parameter(Name=name)["Parameter"]["Value"])
        except models.OverlayError as exc:
            logger.error("models_overlay_ignored", extra={"parameter": name, "reason": str(exc)[:300]})
        except ClientError as exc:
            if exc.response["Error"]["Code"] != "ParameterNotFound":
                logger.error(
                    "models_overlay_ignored", extra={"parameter": name, "reason": exc.response["Error"]["Code"]}
                )
        except BotoCoreError as exc:
            logger.error("models_overlay_ignored", extra={"parameter": name, "reason": type(exc).__name__})
        return models.shipped()

    @property
    def delivery_key(self) -> DeliveryKey | None:
        """The key that signs the URLs of videos; None if the stack has no distribution, or no key is stored yet."""
        return self._delivery_key.get()

    @cached_property
    def _delivery_key(self) -> Cached[DeliveryKey | None]:
        return Cached(self._read_delivery_key)

    def _read_delivery_key(self) -> DeliveryKey | None:
        if not (name := self.settings.delivery_key_secret_id) or (text := self._stored(name)) is None:
            return None
        return DeliveryKey.read(text)

    def _secret(self, setting: str, remedy: str) -> str:
        value = self._stored(self.settings.need(setting))
        if value is None:
            raise SettingsError(f"the secret of {setting.upper()} has no value; {remedy}")
        return value

    def _stored(self, secret_id: str) -> str | None:
        """Return the value of a secret; None if nothing is stored."""
        try:
            value: str = self.client("secretsmanager").get_secret_value(SecretId=secret_id)["SecretString"]
        except ClientError as exc:
            if exc.response["Error"]["Code"] == "ResourceNotFoundException":
                return None
            raise
        return value.strip()


def _regional(s3: Any) -> Any:
    """Make `s3` presign URLs for the host of its own region. botocore's default is the global host, which leads to
    us-east-1. The addressing style "virtual" would change that too, and make a bucket a subdomain of any endpoint."""
    here = {"use_global_endpoint": False}
    s3.meta.events.register_first("before-endpoint-resolution.s3", lambda context, **_: context.update(here))
    return s3


@cache
def get_services() -> Services:
    """Return the services of this process, built from its environment."""
    return Services(Settings.read(os.environ))
