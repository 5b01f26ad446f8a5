"""The client's protobuf messages, of which a type checker sees nothing, since they are made at import."""

from __future__ import annotations

from typing import Any, Final

from wandb.proto import wandb_internal_pb2

pb: Final[Any] = wandb_internal_pb2
