"""Structured logs with stable keys. No secret, token, signed URL, prompt or raw body ever gets in here."""

from aws_lambda_powertools import Logger

logger = Logger(service="kling-relay")
