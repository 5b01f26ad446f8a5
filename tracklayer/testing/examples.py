"""Example values of every kind, the awkward ones first."""

from __future__ import annotations

import math
from typing import Final

from tracklayer.values import Histogram, Scalar, Text

SCALARS: Final[dict[str, Scalar]] = {
    "zero": 0,
    "one": 1,
    "minus one": -1,
    "true": True,
    "false": False,
    "a float": 0.1,
    "an integral float": 3.0,
    "a small float": 1e-30,
    "a large float": 1e30,
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "an integer beyond double": 2**53 + 1,
    "the largest int64": 2**63 - 1,
    "the smallest int64": -(2**63),
}

TEXTS: Final[dict[str, Text]] = {
    "empty": Text(""),
    "a word": Text("word"),
    "lines": Text("one\ntwo\n"),
    "unicode": Text("naïve ∂ 学习 🎛"),
    "long": Text("0123456789" * 5_000),
    "quotes": Text('it\'s "quoted" \\ {json: [1]}'),
}

HISTOGRAMS: Final[dict[str, Histogram]] = {
    "ordinary": Histogram([0.0, 1.0, 1.0, 2.0, 5.0], num_bins=5),
    "constant": Histogram([7.0] * 10),
    "empty": Histogram([]),
    "with NaN and infinities": Histogram([1.0, 2.0, math.nan, math.inf, -math.inf]),
    "of integers": Histogram([1, 2, 3], num_bins=3),
    "one bin": Histogram([1.0, 2.0], num_bins=1),
    "most bins": Histogram([0.0, 1.0], num_bins=512),
    "given": Histogram(np_histogram=([1, 0, 4], [0.0, 0.5, 1.0, 2.0])),
    "huge numbers": Histogram([1e300, -1e300]),
}

KEYS: Final[dict[str, str]] = {
    "plain": "loss",
    "nested": "train/loss",
    "dots": "layers.0.kernel",
    "spaces": "my loss",
    "unicode": "损失/∂",
    "brackets": "w[0]{1}(2)",
    "percent and quotes": "100% 'x' \"y\"",
    "long": "k" * 600,
    "upper case": "LOSS",
}
