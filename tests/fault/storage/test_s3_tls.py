"""S3 over TLS with certificates of one's own: trusted, missing, and shown by the client."""

import contextlib
import select
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import agola_core
from agola_core.errors import BadRequestError, UnavailableError

LIST = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, *files, *names], check=True, capture_output=True, cwd=directory)
    return directory


@pytest.fixture
def server(certificate, monkeypatch):
    """An HTTPS server that asks its clients for a certificate; the URL of a bucket that it says is empty."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header("content-length", str(len(LIST)))
            self.end_headers()
            self.wfile.write(LIST)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            pass  # clients without a certificate

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate / "cert.pem")
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # in 1.3 a client hears of a refusal with its first answer
    monkeypatch.setenv("MINE_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("MINE_SECRET_ACCESS_KEY", "secret")
    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"s3://bucket?endpoint=https://127.0.0.1:{server.server_port}&credentials=MINE&attempts=1"
        server.shutdown()
        thread.join()


def test_a_private_authority_and_a_certificate_of_the_client(server, certificate):
    files = f"&tls_ca={certificate}/cert.pem&tls_cert={certificate}/cert.pem&tls_key={certificate}/key.pem"
    with contextlib.closing(agola_core.open_storage(server + files)) as storage:
        assert list(storage.list()) == []


def test_who_shows_no_certificate_is_refused(server, certificate):
    with pytest.raises(UnavailableError, match="no TLS"):
        agola_core.open_storage(f"{server}&tls_ca={certificate}/cert.pem")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("tls_ca=/none/ca.pem", "option tls_ca .*/none/ca.pem cannot be used: No such file"),
        ("tls_cert=/none/cert.pem", "option tls_cert .*/none/cert.pem cannot be used: No such file"),
        ("tls_ca={key}", "option tls_ca .* cannot be used"),
        ("tls_cert={key}", "option tls_cert .* cannot be used"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_at_once(server, certificate, options, message):
    with pytest.raises(BadRequestError, match=message):
        agola_core.open_storage(f"{server}&{options.format(key=certificate / 'key.pem')}")


@pytest.fixture
def tunnel():
    """A proxy that connects for whoever shows user and password; its port, and what it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self):
            asked.append((self.path, self.headers["proxy-authorization"]))
            if not asked[-1][1]:
                self.send_response(407)
                self.end_headers()
                return
            host, _, port = self.path.partition(":")
            with socket.create_connection((host, int(port))) as server:
                self.send_response(200)
                self.end_headers()
                pair = {self.connection: server, server: self.connection}
                while True:
                    for ready in select.select(list(pair), [], [])[0]:
                        data = ready.recv(65536)
                        if not data:
                            return
                        pair[ready].sendall(data)

        def do_GET(self):
            asked.append((self.path, self.headers["proxy-authorization"]))
            self.send_response(200)
            self.send_header("content-length", str(len(LIST)))
            self.end_headers()
            self.wfile.write(LIST)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, asked
        server.shutdown()
        thread.join()


def test_a_proxy_on_the_way(server, certificate, tunnel, monkeypatch):
    port, asked = tunnel
    files = f"&tls_ca={certificate}/cert.pem&tls_cert={certificate}/cert.pem&tls_key={certificate}/key.pem"
    monkeypatch.setenv("https_proxy", f"http://user:p%40ss@127.0.0.1:{port}")
    with contextlib.closing(agola_core.open_storage(server + files)) as storage:
        assert list(storage.list()) == []
    assert asked[0][0] in server
    assert asked[0][1] == "Basic dXNlcjpwQHNz"

    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    with pytest.raises(UnavailableError, match=r"the proxy .* refuses: 407"):
        agola_core.open_storage(server + files)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    agola_core.open_storage(server + files).close()

    monkeypatch.setenv("http_proxy", f"127.0.0.1:{port}")
    agola_core.open_storage("s3://bucket?endpoint=http://bucket.invalid:1&credentials=MINE&attempts=1").close()
    assert asked[-1][0].startswith("http://bucket.invalid:1/bucket?")
    monkeypatch.setenv("http_proxy", "socks5://user:canary@127.0.0.1:1")
    with pytest.raises(BadRequestError, match="http_proxy") as caught:
        agola_core.open_storage("s3://bucket?endpoint=http://bucket.invalid:1&credentials=MINE")
    assert "canary" not in str(caught.value)
