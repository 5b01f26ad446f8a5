"""HTTP alone: a listening socket that reads requests, has them decided, and writes the answers."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, TypeAlias, final

from wandb_server.records import Json, Request


@final
@dataclass(frozen=True)
class Answer:
    """A status, a body, and what stands in the `Retry-After` header."""

    status: int
    body: bytes
    retry_after: float | None = None
    cut: bool = False
    """Whether half of the body is all that comes."""


Decide: TypeAlias = Callable[["Listener", Request, bool], Answer | None]
"""Takes who asks, the request, and whether it may be carried out; None drops the connection."""


@final
class Listener(ThreadingHTTPServer):
    """The listening socket, and the open connections so that they can be cut."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, decide: Decide) -> None:
        self.decide: Final = decide
        self.connections: Final[set[socket.socket]] = set()
        super().__init__(("127.0.0.1", port), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), name="wandb-server", daemon=True).start()

    def close(self) -> None:
        """Refuse connections, and cut the open ones."""
        self.shutdown()
        self.server_close()
        for connection in self.connections.copy():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that break, on purpose."""


@final
class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener  # pyright: ignore[reportIncompatibleVariableOverride] - what it is here

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def do_POST(self) -> None:
        body: Json = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        size = len(body)
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if body and self.command == "POST":
            body = json.loads(body)
        operation = None
        if self.path == "/graphql":  # the Python side of the client names it in the query alone
            named = re.findall(r"(?:query|mutation)\s+(\w+)", body["query"])
            operation = body.get("operationName") or named[0]
        request = Request(time.time(), self.command, self.path, operation, body or None, size)
        # a storage URL is a signed one on W&B: it is its own permission
        authorized = "Authorization" in self.headers or self.path.startswith("/storage/")
        answer = self.server.decide(self.server, request, authorized)
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer.body)))
        if answer.retry_after is not None:
            self.send_header("Retry-After", f"{answer.retry_after:g}")
        self.end_headers()
        if answer.cut:
            self.wfile.write(answer.body[: len(answer.body) // 2])
            self.close_connection = True
            return
        self.wfile.write(answer.body)

    do_PUT = do_GET = do_POST  # noqa: N815 - the base class's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing: `WandbServer.requests` has them all."""
