"""A port between a role and the API server, which leads where a test says: there, nowhere, or elsewhere."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.cluster.control_plane import ControlPlane

HOST = "127.0.0.1"
CHUNK_BYTES = 65_536


class Wire:
    """Relays bytes: TLS goes from end to end."""

    def __init__(self, cluster: ControlPlane) -> None:
        self._home = cluster.port
        self._target: int | None = cluster.port
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def reroute(self, kubeconfig: Path) -> None:
        """Let each program that reads the kubeconfig come through here."""
        content = json.loads(kubeconfig.read_text())
        content["clusters"][0]["cluster"]["server"] = f"https://{HOST}:{self.port}"
        written = kubeconfig.with_suffix(".new")
        written.write_text(json.dumps(content))
        written.rename(kubeconfig)

    @contextmanager
    def leading_to(self, port: int | None) -> Iterator[None]:
        """Every connection is cut, and new ones go to that port; None cuts them, too."""
        self._lead_to(port)
        try:
            yield
        finally:
            self._lead_to(self._home)

    def close(self) -> None:
        """No connection is left."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._lead_to(None)

    def _lead_to(self, port: int | None) -> None:
        with self._lock:
            self._target = port
            for end in self._ends:
                _shut(end)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._join(self._listener.accept()[0])

    def _join(self, here: socket.socket) -> None:
        with self._lock:
            try:
                if self._target is None:
                    raise ConnectionRefusedError
                there = socket.create_connection((HOST, self._target))
            except OSError:
                here.close()
                return
            self._ends |= {here, there}
        for source, sink in ((here, there), (there, here)):
            threading.Thread(target=self._relay, args=(source, sink), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(CHUNK_BYTES):
                sink.sendall(content)
        with self._lock:
            self._ends.discard(source)
        _shut(sink)
        source.close()


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def silence() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server((HOST, 0), backlog=128) as listener:
        yield listener.getsockname()[1]


@contextmanager
def unavailable(cluster: ControlPlane) -> Iterator[int]:
    """A port that answers 503 to everything, as what stands before an API server does: in HTML, and asking
    for an hour's patience."""
    own = cluster.authority.issue("unavailable", "unavailable", alternative_names=[f"IP:{HOST}"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    server = _Unavailable((HOST, 0), _Refusing)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


class _Unavailable(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is none."""


class _Refusing(BaseHTTPRequestHandler):
    timeout = 10

    def do_GET(self) -> None:
        content = b"<html><body>503 Service Unavailable</body></html>"
        self.send_response(503)
        self.send_header("Content-Type", "text/html")
        self.send_header("Retry-After", "3600")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def do_PATCH(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *arguments: object) -> None:
        """The test looks at the roles."""
