"""A real server on a real socket, in this process, over a run service whose executors are the tests' own requests."""

import contextlib
import json
import socket
import subprocess
import threading
import uuid

import pytest

import agola_core
from agola_core.datamanager import Options
from agola_core.maintenance import Gate
from agola_core.runservice.archive.projection import DATA_TYPES
from agola_core.runservice.inprocess import InProcessDirectory
from agola_core.runservice.service import RunService
from agola_http.access.control import Access, Tokens
from agola_http.app import App
from agola_http.server.connections.limits import Limits
from agola_http.server.connections.uvicorn_server import Server, listen

API = "/api/v1alpha"
LIMITS = Limits()


class Response:
    """One answer, as it came over the socket."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        return json.loads(self.body)

    @property
    def message(self):
        return self.json()["message"]


class Wire:
    """A connection on which literal requests are written."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.file = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def request(self, method, path, body=None, headers=()):
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers]
        if body is not None:
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode() + (body or b""))
        return self.response(head=method == "HEAD")

    def response(self, *, head=False):
        status, headers = self.head()
        if head or status == 304:
            return Response(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return Response(status, headers, b"".join(self.chunks()))
        return Response(status, headers, self.file.read(int(headers["content-length"])))

    def head(self):
        status = int(self.file.readline().split()[1])
        headers = {}
        while (line := self.file.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers

    def chunks(self):
        """Yield the chunks of a body; a connection that ends before the last one raises."""
        while size := int(self._line(), 16):
            piece = self.file.read(size)
            if len(piece) < size:
                raise ConnectionError("the connection broke off")
            self._line()
            yield piece
        self._line()

    def _line(self):
        line = self.file.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the connection broke off")
        return line

    def close(self):
        self.file.close()
        self.socket.close()


class Running:
    """A server, what it serves, and connections to it."""

    def __init__(self, datamanager, service, app, server, port):
        self.datamanager = datamanager
        self.service = service
        self.app = app
        self.server = server
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    @contextlib.contextmanager
    def connect(self):
        wire = Wire(self.port)
        try:
            yield wire
        finally:
            wire.close()

    def request(self, method, path, body=None, headers=()):
        with self.connect() as wire:
            return wire.request(method, path, body, headers)


@contextlib.contextmanager
def serving(app, limits=LIMITS, end_streams=None, tls=None):
    with listen("127.0.0.1", 0) as listener:
        server = Server(app, limits, tls=tls, end_streams=end_streams or app.end_streams)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield server, listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(scope="session", name="serving")
def serving_fixture():
    """Return `serving`, for tests that choose how the server listens."""
    return serving


@pytest.fixture(scope="session")
def start_server(tmp_path_factory):
    """Return a function that starts a server with its own store, until the context ends."""

    @contextlib.contextmanager
    def start(tokens=None, limits=LIMITS, remote=None, **access):
        path = tmp_path_factory.mktemp("store")
        options = Options(background=False)
        with (
            agola_core.open(path, data_types=DATA_TYPES, options=options) as datamanager,
            RunService(datamanager, path / "readdb.db", InProcessDirectory(remote)) as service,
        ):
            gate = Gate("in maintenance mode")
            gate.open(service)
            app = App(Backend(datamanager, gate), Access(tokens or Tokens(), **access), limits)
            with serving(app, limits) as (server, port):
                yield Running(datamanager, service, app, server, port)

    return start


@pytest.fixture(scope="session")
def start_app():
    """Return a function that serves any application, until the context ends."""

    @contextlib.contextmanager
    def start(app, limits=LIMITS, tls=None):
        with serving(app, limits, lambda: None, tls) as (server, port):
            yield Running(None, None, app, server, port)

    return start


class Backend:
    def __init__(self, datamanager, gate):
        self.datamanager = datamanager
        self.gate = gate


@pytest.fixture(scope="module")
def server(start_server):
    """A server without tokens, shared by the tests of a module."""
    with start_server() as running:
        yield running


@pytest.fixture
def create_run(server):
    """Create a run of one task and return its document."""

    def create(*, group="/project/p1/branch/main", task_id="", **fields):
        task_id = task_id or str(uuid.uuid4())
        steps = [{"type": "run", "name": "one", "command": "true"}]
        task = {"id": task_id, "name": "only", "depends": {}, "steps": steps, "runtime": {"type": "pod"}}
        body = {"name": "r", "group": group, "run_config_tasks": {task_id: task}, **fields}
        return server.request("POST", f"{API}/runs", body).json()["run"]

    return create


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return the files of a certificate of this machine and of its key."""
    path = tmp_path_factory.mktemp("tls")
    certificate, key = path / "cert.pem", path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key
