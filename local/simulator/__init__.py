"""Simulate a Kling provider on this machine: several dialects, a billing ledger, a switch per fault, real videos.

``python -m local.simulator --port 8787`` runs it as a separate process. It ends on SIGTERM, or when its parent process
has ended. In a test: ``with Simulator(render_seconds=0.3, render_size=160) as sim: sim.url``. It binds to 127.0.0.1
only, sends callbacks to loopback addresses only, and writes nothing to the disk.

Official dialect: ``{url}/v1/videos/{kind}``. A relay's: ``{url}/kling/v1/videos/{kind}``, CometAPI's unless the
account's ``kling_path`` names another one. The control API:

    GET  /_sim/ledger        posts, tasks, counts
    GET  /_sim/tasks/{id}    one task by task_id or external_task_id, with progress 0..1
    GET  /_sim/faults        all switches; POST sets some (local/simulator/faults.py documents them)
    GET  /_sim/account       all settings; POST sets some (local/simulator/account.py)
    POST /_sim/reset         deletes tasks, resets switches, and restores the account's settings of the start
"""

from local.simulator.server import Simulator

__all__ = ["Simulator"]
