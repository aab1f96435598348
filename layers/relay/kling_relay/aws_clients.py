"""boto3 clients of one session, each made at its first use and then kept."""

import encodings.idna  # noqa: F401  (every connection needs it; loaded here, the first one is quicker)
from functools import cached_property
from typing import Any

from boto3.session import Session
from botocore.config import Config
from botocore.httpsession import DEFAULT_CA_BUNDLE

from kling_relay.settings import Settings

_CONFIG = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})


class AwsClients:
    """The clients that the functions use. All share one session: the second client starts faster."""

    def __init__(self, settings: Settings, session: Session | None = None) -> None:
        self.settings = settings
        self._session = session

    def client(self, service: str, config: Config | None = None) -> Any:
        """Return a new client of `service`, with `config` over the common timeouts and retries."""
        return self._create_client(service, _CONFIG.merge(config) if config else _CONFIG)

    def _create_client(self, service: str, config: Config) -> Any:
        self._session = self._session or Session()
        # botocore's own roots: in the layer these are AWS's alone, because they are loaded for every connection.
        return self._session.client(service, config=config, verify=DEFAULT_CA_BUNDLE)

    @cached_property
    def s3(self) -> Any:
        return self._owned(_regional(self.client("s3", Config(signature_version="s3v4"))))

    @cached_property
    def archive_s3(self) -> Any:
        """The S3 client for copies: a streamed body cannot be sent twice, so the SDK makes no retries."""
        from kling_relay.transfer import s3_copy  # for archive_video alone

        return self._owned(_regional(self._create_client("s3", s3_copy.client_config())))

    def _owned(self, client: Any) -> Any:
        """Add the expected bucket owner to every call: another account may have created a bucket under a released name.

        Presigned URLs, which are not calls, do not have it.
        """
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


def _regional(s3: Any) -> Any:
    """Make `s3` presign URLs for the host of its own region.

    botocore's default is the global host, which leads to us-east-1. The addressing style "virtual" would change that
    too, and make a bucket a subdomain of any endpoint.
    """
    here = {"use_global_endpoint": False}
    s3.meta.events.register_first("before-endpoint-resolution.s3", lambda context, **_: context.update(here))
    return s3
