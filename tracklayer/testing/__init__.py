"""The conformance suite: what every backend must do, ours and others'.

A backend's test file names the backend and gives an independent way to read back what it recorded:

    class TestMyBackend(BackendConformance):
        backend_name = "mine"

        def read_back(self, folder: Path, info: RunInfo) -> Recorded:
            ...

Needs pytest.  What a backend cannot show is None in `Recorded`, and its tests are skipped by that, never by
the backend's name.
"""

from tracklayer.testing.conformance import BackendConformance
from tracklayer.testing.recorded import Point, Recorded

__all__ = ["BackendConformance", "Point", "Recorded"]
