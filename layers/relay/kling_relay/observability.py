"""Write structured logs with stable keys and metrics with stable names.

Logs and metrics never contain a secret, token, signed URL, prompt or raw body.
"""

from collections.abc import Mapping
from enum import StrEnum

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics

logger = Logger(service="kling-relay")

NAMESPACE = "KlingRelay"
DIMENSION = "service"  # of every metric: the stack's name


class Metric(StrEnum):
    """Every metric. One in `REASONS` has a second dimension and exists only with both; all others have `service` alone.

    A count that equals another metric's SampleCount has no metric.
    """

    ACCEPTED = "Accepted"  # a task was recorded
    REJECTED = "Rejected"  # an API request that created no task
    SUBMITTED = "Submitted"  # the provider accepted a task
    UNCONFIRMED = "Unconfirmed"  # a POST whose outcome is unknown
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"  # the client was notified of it; a task that its owner cancelled is not counted
    ARCHIVED_BYTES = "ArchivedBytes"  # all videos of a task, once they are in our bucket; SampleCount: the copies
    ARCHIVE_SECONDS = "ArchiveSeconds"  # from rendered to succeeded
    ARCHIVE_FAILED = "ArchiveFailed"  # one failed attempt of a copy; another one follows
    WAITING_SECONDS = "WaitingSeconds"  # from accepted to the POST that the provider accepted
    PROVIDER_SECONDS = "ProviderSeconds"  # from that POST to rendered
    NOTICE_SECONDS = "NoticeSeconds"  # from a notice's creation to its webhook's delivery; SampleCount: the deliveries
    END_TO_END_SECONDS = "EndToEndSeconds"  # from accepted to succeeded
    CALLBACKS_RECEIVED = "CallbacksReceived"  # with a valid token and signature
    CALLBACKS_REJECTED = "CallbacksRejected"  # a wrong token, or a wrong signature
    CALLBACKS_LATE = "CallbacksLate"  # received after the task had ended
    CALLBACKS_DUPLICATE = "CallbacksDuplicate"  # received without any news, or too soon after the previous one
    POLLS_MADE = "PollsMade"  # queries that the workflow made because no callback arrived
    POLLS_FOUND_END = "PollsFoundEnd"  # such a query that found an end: the callback was missed
    PROVIDER_CALLS = "ProviderCalls"  # every call of the provider
    UNITS_SPENT = "UnitsSpent"  # units charged, once a task: as the provider states; else, for a video, estimated
    WEBHOOKS_FAILED = "WebhooksFailed"  # given up: ten attempts, or a receiver that unsubscribed
    FILES_REJECTED = "FilesRejected"  # an upload, or a line of one, that created no task
    # a result without a URL, or with one on a host that the profile does not list
    RESULT_HOST_NOT_LISTED = "ResultHostNotListed"
    RECONCILE_FINDINGS = "ReconcileFindings"  # findings of a report that no automation resolves; 0 too
    SWEEPER_HEARTBEAT = "SweeperHeartbeat"  # a sweep that completed
    ACCOUNT_TROUBLE = "AccountTrouble"  # 1 while the provider's account blocks submissions; every minute
    WAITING_TASKS = "WaitingTasks"  # waiting for a slot at the provider; every minute
    PARKED_TASKS = "ParkedTasks"  # whose submission stays unknown for good; every minute
    OLDEST_OPEN_TASK = "OldestOpenTask"  # age of the oldest task whose client sees no end; 0 if none; every minute


_UNITS = {Metric.ARCHIVED_BYTES: "Bytes", Metric.OLDEST_OPEN_TASK: "Seconds"}
UNITS = {metric: _UNITS.get(metric, "Seconds" if metric.endswith("Seconds") else "Count") for metric in Metric}

# Metric -> the name of its second dimension, and all its values.
REASONS: dict[Metric, tuple[str, tuple[str, ...]]] = {
    # by error code: 1000 to 1004; our cap (1102); 429 and 5xx; everything else
    Metric.REJECTED: ("reason", ("credentials", "cap", "busy", "request")),
    Metric.FAILED: ("reason", ("content", "provider", "refused", "expired")),  # the values of tasks.task.Failure
    # failed: not sent, outcome unknown, 5xx, or an unusable answer
    Metric.PROVIDER_CALLS: ("outcome", ("ok", "no_room", "refused", "account", "failed")),
}


def emit(service: str, values: Mapping[Metric, float], reason: str | None = None) -> None:
    """Write one line in CloudWatch's embedded metric format. Never raises: a metric is not worth failing a task.

    `reason`: the value of the second dimension, for metrics that have one. A value that is not in `REASONS` is dropped
    and logged, so that no unplanned series appears.
    """
    try:
        metrics = EphemeralMetrics(namespace=NAMESPACE, service=service)
        for metric, value in values.items():
            name, among = REASONS.get(metric, (None, (None,)))
            if reason not in among:
                raise ValueError(f"{metric}: {reason}")
            if name is not None and reason is not None:
                metrics.add_dimension(name=name, value=reason)
            metrics.add_metric(name=metric, unit=UNITS[metric], value=value)
        metrics.flush_metrics()
    except Exception as exc:
        logger.warning("metrics_lost", extra={"error": type(exc).__name__})
