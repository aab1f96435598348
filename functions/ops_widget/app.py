"""Render the custom widgets of the operations dashboard. CloudWatch calls it with the viewer's own rights.

`show` selects the view. "describe": true returns the parameters, for those who edit a dashboard.
"""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from kling_relay.observability import logger
from kling_relay.operations import widget_views
from kling_relay.operations.widget_parts import WidgetRequest
from kling_relay.services import get_services

DESCRIPTION = """## kling-relay
The state of the stack, and buttons for operators. A button calls OperateTasksFunction with your permissions.
This function shows prompts, images and videos to every caller.

Parameter | Values
---|---
**show** | `open_tasks`: with their deadlines; `task`: one task and its timeline; `failures`: by kind, with remedies;
 | `videos`: the newest; `account`: provider, queue and spend; `dead_letters`: messages that failed
**limit** | number of listed entries, for views with a list
**task**, **tenant** | for `task`: the task's id, or its external id and tenant

``` yaml
show: failures
limit: 20
```
"""


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> str:
    if event.get("describe"):
        return DESCRIPTION
    services = get_services()
    here, operate = context.invoked_function_arn, services.settings.operate_function
    return str(
        widget_views.show(services, WidgetRequest.read(event, now=services.clock.now_ms(), here=here, operate=operate))
    )
