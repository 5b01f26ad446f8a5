"""What measuring the machine costs: CPU time of a row, and the share of a core that this is every 10 s.

    python benchmarks/system.py

The time is that of the whole process, so it holds the thread's waking up, too.
"""

from __future__ import annotations

import threading
import time

from tracklayer.surroundings import SystemRow
from tracklayer.system.sampling import SystemSampler

INTERVAL = 10.0  # seconds: the default
ROWS = 300
TARGET = 0.1  # percent of a core


def main() -> None:
    rows: list[SystemRow] = []
    enough = threading.Event()

    def sink(row: SystemRow) -> None:
        rows.append(row)
        if len(rows) == ROWS:
            enough.set()

    sampler = SystemSampler(sink, 0.02, lambda: len(rows))
    opening = time.process_time()
    sampler.start()
    while not rows:
        time.sleep(0.001)
    opening = time.process_time() - opening
    begun, used = len(rows), time.process_time()
    enough.wait()
    used = (time.process_time() - used) / (len(rows) - begun)
    sampler.stop()
    share = 100 * used / INTERVAL
    print(f"  the first row, with imports       {1000 * opening:8.2f} ms of CPU time, once")
    print(f"  a row of {len(rows[-1].values):2} values                {1000 * used:8.3f} ms of CPU time")
    print(f"  share of a core, every {INTERVAL:.0f} s       {share:8.4f} %   target < {TARGET} %")


if __name__ == "__main__":
    main()
