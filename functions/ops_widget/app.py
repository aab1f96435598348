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
How the stack stands, and buttons for what an operator may do. A button calls OperateTasksFunction with your own rights.
Whoever may invoke this function sees prompts, images and videos.

Parameter | Values
---|---
**show** | `open_tasks`: against their deadline; `task`: find one, and its story; `failures`: by kind, with remedies;
 | `videos`: the newest; `account`: the provider, what waits, what was spent; `dead_letters`: what could not be handled
**limit** | how many are listed, where a view has a list
**task**, **tenant** | for `task`: its id, or the external id and whose it is

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
