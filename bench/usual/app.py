"""Show a typical implementation: a resolver with validation, a tracer, the resource API, models of pydantic."""

from typing import Any

import boto3
import requests
from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from pydantic import BaseModel, Field

logger = Logger(service="usual")
tracer = Tracer(service="usual")
metrics = Metrics(namespace="Usual", service="usual")
app = APIGatewayRestResolver(enable_validation=True)
table = boto3.resource("dynamodb").Table("tasks")
workflows = boto3.client("stepfunctions")
http = requests.Session()


class Task(BaseModel):
    model_name: str = "kling-v3"
    image: str
    prompt: str = Field("", max_length=2500)
    negative_prompt: str = Field("", max_length=2500)
    mode: str = "std"
    duration: str = "5"
    callback_url: str | None = None
    external_task_id: str | None = None


@app.post("/v1/videos/image2video")
@tracer.capture_method
def create(task: Task) -> dict[str, Any]:
    answer = http.post("https://provider.example/v1/videos/image2video", json=task.model_dump(), timeout=15).json()
    table.put_item(Item={"pk": answer["data"]["task_id"], "prompt": task.prompt})
    workflows.start_execution(stateMachineArn="arn", name=answer["data"]["task_id"])
    return dict(answer)


@logger.inject_lambda_context
@tracer.capture_lambda_handler
@metrics.log_metrics
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return app.resolve(event, context)
