"""Structured logs with stable keys, and metrics with stable names. No secret, token, signed URL, prompt or raw body
ever gets in here."""

from collections.abc import Mapping
from enum import StrEnum

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics

logger = Logger(service="kling-relay")

NAMESPACE = "KlingRelay"


class Metric(StrEnum):
    """Every metric that there is. Their only dimension is `service`, the stack's name: each is one series a stack."""

    SWEEPER_HEARTBEAT = "SweeperHeartbeat"  # a sweep that came to its end
    ACCOUNT_TROUBLE = "AccountTrouble"  # 1 while the provider's account keeps tasks from being sent; every minute
    WAITING_TASKS = "WaitingTasks"  # for room at the provider; every minute
    PARKED_TASKS = "ParkedTasks"  # whose submission is in doubt for good; every minute
    OLDEST_OPEN_TASK = "OldestOpenTask"  # the age of the oldest whose client sees no end; 0 without any; every minute
    UNCONFIRMED = "Unconfirmed"  # a POST whose outcome is unknown
    WEBHOOKS_DELIVERED = "WebhooksDelivered"
    WEBHOOKS_FAILED = "WebhooksFailed"  # for good: ten tries, or a receiver that wants no more
    CALLBACKS_RECEIVED = "CallbacksReceived"
    CALLBACKS_REJECTED = "CallbacksRejected"  # a wrong token, or a wrong signature


UNITS = {metric: "Seconds" if metric is Metric.OLDEST_OPEN_TASK else "Count" for metric in Metric}


def emit(service: str, values: Mapping[Metric, float]) -> None:
    """One line in CloudWatch's embedded metric format. Never raises: a metric is worth no task."""
    try:
        metrics = EphemeralMetrics(namespace=NAMESPACE, service=service)
        for metric, value in values.items():
            metrics.add_metric(name=metric, unit=UNITS[metric], value=value)
        metrics.flush_metrics()
    except Exception as exc:
        logger.warning("metrics_lost", extra={"error": type(exc).__name__})
