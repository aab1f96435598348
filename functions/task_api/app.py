"""Serve the API that clients call. api/routes.py holds its paths."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay.api.routes import ClientApi
from kling_relay.observability import logger
from kling_relay.services import get_services

api = ClientApi()


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return api.answer(get_services(), event, context)
