"""A W&B server small enough to read, on loopback, for the real wandb client to talk to.

It keeps what it is sent and answers what the client asks.  That protocol is undocumented: what
stands here was observed on wandb 0.31.0, and an operation not known here is answered with status
400 and stays visible in `requests`.  Tests read the outcome from `WandbServer.runs`, and make the
network bad with `WandbServer.fail`, `stop` and `start`.
"""

from wandb_server.records import (
    API_KEY,
    DEFAULT_ENTITY,
    Failure,
    Request,
    ServedArtifact,
    ServedRun,
    ServedSweep,
)
from wandb_server.server import WandbServer

__all__ = [
    "API_KEY",
    "DEFAULT_ENTITY",
    "Failure",
    "Request",
    "ServedArtifact",
    "ServedRun",
    "ServedSweep",
    "WandbServer",
]
