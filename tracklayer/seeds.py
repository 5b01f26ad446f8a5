"""Series that belong together: one a seed, such as a `vmap` over seeds makes.

The metric `loss` of seed 3 is recorded as `loss/seed_3`: every backend shows that, TensorBoard and W&B side
by side, and readers put the seeds of a metric together again.
"""

from __future__ import annotations

import re
from typing import Final

_SEED: Final = re.compile(r"(.+)/seed_(0|[1-9]\d*)")


def seed_key(key: str, seed: int) -> str:
    """Return the key of one seed's series."""
    return f"{key}/seed_{seed}"


def split_seed(key: str) -> tuple[str, int] | None:
    """Return the metric and the seed of a key that `seed_key` made; None for any other key."""
    found = _SEED.fullmatch(key)
    return (found[1], int(found[2])) if found else None
