"""What all tests have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine import QUICK_RECORD
from wandb_server import WandbServer

# JAX reads it when it starts: eight devices on one CPU, so that any test may spread arrays over several
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

for name in [name for name in os.environ if name.startswith(("TRACKLAYER_", "WANDB_"))]:
    del os.environ[name]
os.environ.update(QUICK_RECORD)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store that `TRACKLAYER_DIR` names; the working folder is the one around it."""
    monkeypatch.setenv("TRACKLAYER_DIR", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store"


@pytest.fixture
def server() -> Iterator[WandbServer]:
    """A W&B server of the test's own."""
    with WandbServer() as running:
        yield running
