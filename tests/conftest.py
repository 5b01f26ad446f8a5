"""What all tests have in common."""

from __future__ import annotations

import os

# JAX reads it when it starts: eight devices on one CPU, so that any test may spread arrays over several
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
