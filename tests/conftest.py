"""What all tests have in common."""

from __future__ import annotations

import os

from machine import QUICK_RECORD

# JAX reads it when it starts: eight devices on one CPU, so that any test may spread arrays over several
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

for name in [name for name in os.environ if name.startswith(("TRACKLAYER_", "WANDB_"))]:
    del os.environ[name]
os.environ.update(QUICK_RECORD)
