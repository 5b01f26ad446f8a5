"""The server as a test handles it: start and stop, make it fail, look at what it was sent."""

from __future__ import annotations

import json
import socket
import threading
import time
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Final, final

from wandb_server.records import (
    API_KEY,
    FailRule,
    Failure,
    RefusedError,
    Request,
    ServedArtifact,
    ServedRun,
    ServedSweep,
)
from wandb_server.store import Store
from wandb_server.transport import Answer, Listener

if TYPE_CHECKING:
    from pathlib import Path


@final
class WandbServer:
    """A context manager that listens on 127.0.0.1, and keeps its port and its memory.

    Leaving the context raises when the server itself went wrong: its defect must not pass for a
    client's behaviour.

    What can go wrong, at a test's wish:

    - `server.fail = rule`: the rule is given each request, and returns its `Failure` or None.
      `Failure(503)`, `Failure(429, retry_after=2)`, `Failure(429)`: refused.
      `Failure(drop=True)`: lost on its way.
      `Failure(drop=True, carried_out=True)`: done, and the answer lost.
      `Failure(cut=True)`: done, and the answer cut in its middle.
      `Failure(delay=3)`: late on its way, and done then.  `Failure(answer_delay=3)`: done, and answered late.
    - `server.body_limit = n`: a POST with a longer body is refused with 413, as by a proxy.
    - `stop()` and `start()`: the server is away, with all connections cut, and comes back as it was.  What
      was on its way when it went is lost; each request is carried out as a whole or not at all.

    Its methods may be called from any thread.
    """

    def __init__(self) -> None:
        """Take a free port, without listening yet."""
        # A socket that is bound and never listens keeps the port while the server is away: no
        # other server gets it, and a client that retries cannot get it as its own source port,
        # which would connect the client to itself.
        self._reservation = socket.socket()
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reservation.bind(("127.0.0.1", 0))
        self.port: Final[int] = self._reservation.getsockname()[1]
        self.url: Final = f"http://127.0.0.1:{self.port}"
        self.fail: FailRule | None = None
        """Asked about each request, one at a time; its `Failure` happens instead of the answer."""
        self.body_limit: int | None = None
        """Bytes of a POST's body, compressed or not, above which it is refused with 413."""
        self.store: Final = Store(self.url)
        self._lock = threading.RLock()
        self._requests: list[Request] = []
        self._errors: list[str] = []
        self._listener: Listener | None = None

    def __enter__(self) -> WandbServer:
        """Listen."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop for good; AssertionError when the server itself went wrong."""
        self.stop()
        self._reservation.close()
        if self._errors and kind is None:
            raise AssertionError("the test server failed:\n" + "\n".join(self._errors))

    @property
    def runs(self) -> dict[str, ServedRun]:
        """The runs by id.  Where two projects share an id, see `store.runs`."""
        with self._lock:
            return {run.id: run for run in self.store.runs.values()}

    @property
    def artifacts(self) -> list[ServedArtifact]:
        """All committed versions of all runs, in the order in which their uploads began."""
        with self._lock:
            return [one for one in self.store.artifacts.by_id.values() if one.version is not None]

    @property
    def sweep(self) -> ServedSweep:
        """The only sweep; ValueError when there is none, or another."""
        with self._lock:
            (sweep,) = self.store.sweeps.by_id.values()
            return sweep

    @property
    def requests(self) -> list[Request]:
        """Every request so far, failed ones included."""
        with self._lock:
            return list(self._requests)

    def history_ranges(self, run_id: str) -> list[tuple[int, int]]:
        """Return the (offset, count) of each upload of history lines that was carried out."""
        with self._lock:
            return list(self.store.find(run_id).history_ranges)

    def delete(self, run_id: str) -> None:
        """Delete a run as a user does in the app; from then on its id is refused."""
        with self._lock:
            self.store.delete(self.store.find(run_id))

    def environment(self, home: Path) -> dict[str, str]:
        """Return the environment of a client that is to reach this server and write under `home`.

        Retries are bounded to some seconds: by default a client whose server is gone tries for
        days.  Rows are sent each second instead of each 15; here the client takes whole seconds
        alone, and its default for a fraction.
        """
        folders = {
            name: home / name.lower()
            for name in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "ARTIFACT_DIR")
        }
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        bounds = {"MAX": "5", "WAIT_MIN_SECONDS": "1", "WAIT_MAX_SECONDS": "1"}
        services = ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")
        return {
            "HOME": str(home),
            "NETRC": str(home / "netrc"),
            "NO_PROXY": "127.0.0.1",
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": API_KEY,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1",
            **{f"WANDB_{name}": str(folder) for name, folder in folders.items()},
            **{f"WANDB_X_{part}_RETRY_{name}": bound for part in services for name, bound in bounds.items()},
        }

    def start(self) -> None:
        """Listen again, on the same port and with all that came before, unless it listens now."""
        if self._listener is None:
            self._listener = Listener(self.port, self._decide)

    def stop(self) -> None:
        """Go away: refuse connections, cut the open ones, carry out nothing more."""
        if self._listener is not None:
            with self._lock:  # a request is carried out before this, or never
                listener, self._listener = self._listener, None
            listener.close()

    def _decide(self, listener: Listener, request: Request, authorized: bool) -> Answer | None:
        with self._lock:
            self._requests.append(request)
            failure = (self.fail and self.fail(request)) or Failure()
        time.sleep(failure.delay)
        if self.body_limit is not None and request.method == "POST" and request.size > self.body_limit:
            return _error(413, "request entity too large")
        proper = failure.status is None and not failure.drop
        answer = None
        with self._lock:
            if self._listener is not listener:
                return None
            if proper or failure.carried_out:
                answer = self._carry_out(request) if authorized else _error(401, "user is not logged in")
        time.sleep(failure.answer_delay)
        if failure.drop or self._listener is not listener:
            return None
        if failure.status is not None:
            answer = _error(failure.status, failure.message, failure.retry_after)
        return replace(answer, cut=failure.cut) if answer else None

    def _carry_out(self, request: Request) -> Answer:
        try:
            if request.operation is not None:
                answer = self.store.graphql(request.operation, request.variables)
            elif request.is_stream:
                answer = self.store.receive_stream(request.path, request.body or {})
            elif request.method == "PUT":
                self.store.receive_file(request.path, request.body or b"")
                answer = None
            elif request.path.startswith("/storage/"):
                return Answer(200, self.store.send_file(request.path))
            else:
                return _error(404, f"the test server has nothing at {request.path}")
        except RefusedError as refusal:
            return _error(refusal.status, str(refusal))
        except Exception:  # noqa: BLE001 - whatever it is, `__exit__` raises it
            self._errors.append(f"{request!r:.3000}\n{traceback.format_exc()}")
            return _error(500, "the test server failed")
        return Answer(200, json.dumps(answer).encode())


def _error(status: int, message: str, retry_after: float | None = None) -> Answer:
    body = {"data": None, "errors": [{"message": message}]}
    return Answer(status, json.dumps(body).encode(), retry_after)
