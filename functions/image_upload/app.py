"""Create tasks from the objects below inbox/ of the input bucket, and from the lines of uploaded lists."""

import json
import traceback
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay.observability import logger
from kling_relay.s3_inbox import objects
from kling_relay.services import get_services

_MIN_REMAINING_MS = 10_000  # With less time left, a message is not started: SQS delivers it again.
_MAX_TRIES = 3  # then SQS moves it to the dead-letter queue: RedrivePolicy in template.yaml


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    services, failed = get_services(), []
    for record in event["Records"]:
        try:
            if context.get_remaining_time_in_millis() < _MIN_REMAINING_MS:
                raise TimeoutError("not enough time left for this message")
            objects.receive(services, json.loads(record["body"]), context.get_remaining_time_in_millis)
        except Exception as exc:  # its text may contain an object's name: the traceback is enough
            frames = traceback.format_tb(exc.__traceback__)[-3:]
            logger.error("upload_processing_failed", extra={"error": type(exc).__name__, "frames": frames})
            if int(record["attributes"]["ApproximateReceiveCount"]) >= _MAX_TRIES:
                _give_up(record["body"], type(exc).__name__)
            failed.append({"itemIdentifier": record["messageId"]})
        logger.remove_keys(["object", "task_id"])
    return {"batchItemFailures": failed}


def _give_up(body: str, error: str) -> None:
    try:
        objects.give_up(get_services(), json.loads(body), error)
    except Exception as exc:
        logger.error("result_write_failed", extra={"error": type(exc).__name__})
