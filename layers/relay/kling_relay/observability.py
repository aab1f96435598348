"""Structured logs with stable keys, and metrics with stable names. No secret, token, signed URL, prompt or raw body
ever gets in here."""

from collections.abc import Mapping
from enum import StrEnum

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics

logger = Logger(service="kling-relay")

NAMESPACE = "KlingRelay"
DIMENSION = "service"  # of every metric: the stack's name


class Metric(StrEnum):
    """Every metric that there is. One that is in `REASONS` has a second dimension and exists only with both; all others
    have `service` alone. A count that another metric's SampleCount tells has none of its own."""

    ACCEPTED = "Accepted"  # a task was recorded
    REJECTED = "Rejected"  # a request of the API that became no task
    SUBMITTED = "Submitted"  # the provider took a task
    UNCONFIRMED = "Unconfirmed"  # a POST whose outcome is unknown
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"  # its client was told so; a task that its owner cancelled counts nowhere
    ARCHIVED_BYTES = "ArchivedBytes"  # all videos of a task, when they are ours; SampleCount: the copies
    ARCHIVE_SECONDS = "ArchiveSeconds"  # from rendered to succeeded
    ARCHIVE_FAILED = "ArchiveFailed"  # one try of a copy; another one follows
    WAITING_SECONDS = "WaitingSeconds"  # from accepted to the POST that the provider took
    PROVIDER_SECONDS = "ProviderSeconds"  # from that POST to rendered
    NOTICE_SECONDS = "NoticeSeconds"  # from a notice's birth to its webhook's delivery; SampleCount: those delivered
    END_TO_END_SECONDS = "EndToEndSeconds"  # from accepted to succeeded
    CALLBACKS_RECEIVED = "CallbacksReceived"  # with a right token and signature
    CALLBACKS_REJECTED = "CallbacksRejected"  # a wrong token, or a wrong signature
    CALLBACKS_LATE = "CallbacksLate"  # received when the task had ended
    CALLBACKS_DUPLICATE = "CallbacksDuplicate"  # received, told nothing new, or too soon after the one before
    POLLS_MADE = "PollsMade"  # questions of the workflow's own, no callback having come
    POLLS_FOUND_END = "PollsFoundEnd"  # such a question that found an end: the callback was missed
    PROVIDER_CALLS = "ProviderCalls"  # every call of the provider
    UNITS_SPENT = (
        "UnitsSpent"  # what a task took, once a task: as stated or, where nothing is stated for a video, estimated
    )
    WEBHOOKS_FAILED = "WebhooksFailed"  # for good: ten tries, or a receiver that wants no more
    FILES_REJECTED = "FilesRejected"  # an upload, or a line of one, that became no task
    RESULT_HOST_NOT_LISTED = "ResultHostNotListed"  # a result has no address, or one on a host off the profile's list
    RECONCILE_FINDINGS = "ReconcileFindings"  # of a report, those that nothing looks after; 0 too
    SWEEPER_HEARTBEAT = "SweeperHeartbeat"  # a sweep that came to its end
    ACCOUNT_TROUBLE = "AccountTrouble"  # 1 while the provider's account keeps tasks from being sent; every minute
    WAITING_TASKS = "WaitingTasks"  # for room at the provider; every minute
    PARKED_TASKS = "ParkedTasks"  # whose submission is in doubt for good; every minute
    OLDEST_OPEN_TASK = "OldestOpenTask"  # the age of the oldest whose client sees no end; 0 without any; every minute


_UNITS = {Metric.ARCHIVED_BYTES: "Bytes", Metric.OLDEST_OPEN_TASK: "Seconds"}
UNITS = {metric: _UNITS.get(metric, "Seconds" if metric.endswith("Seconds") else "Count") for metric in Metric}

# Metric -> the name of its second dimension, and all values that it takes.
REASONS: dict[Metric, tuple[str, tuple[str, ...]]] = {
    # by error code: 1000 to 1004; our cap (1102); 429 and 5xx; everything else
    Metric.REJECTED: ("reason", ("credentials", "cap", "busy", "request")),
    Metric.FAILED: ("reason", ("content", "provider", "refused", "expired")),  # the values of tasks.task.Failure
    # failed: not sent, outcome unknown, 5xx, or nothing that can be used
    Metric.PROVIDER_CALLS: ("outcome", ("ok", "no_room", "refused", "account", "failed")),
}


def emit(service: str, values: Mapping[Metric, float], reason: str | None = None) -> None:
    """One line in CloudWatch's embedded metric format. `reason`: the value of the second dimension, for metrics that
    have one. Never raises: a metric is worth no task. What the catalogue does not have is lost, so that there is never
    a series too many."""
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
