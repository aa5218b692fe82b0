"""Google Cloud Storage and Azure Blob Storage as programs of their own: fake-gcs-server and Azurite.

`go install github.com/fsouza/fake-gcs-server@latest` and `npm install azurite` bring them; AGOLA_FAKE_GCS_SERVER and
AGOLA_AZURITE name where they are, if that is not on the PATH.
"""

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
import uuid
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, quote, unquote

from agola_pytest.servers.ports import free_ports

BUCKET = "agola"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # Azurite's own
SCHEMES = ("gs", "az")


def program(scheme):
    """Return the path of a cloud's program; None when there is none."""
    variable, name = {"gs": ("AGOLA_FAKE_GCS_SERVER", "fake-gcs-server"), "az": ("AGOLA_AZURITE", "azurite-blob")}[
        scheme
    ]
    return os.environ.get(variable) or shutil.which(name)


@contextlib.contextmanager
def start_cloud(scheme, directory):
    """Run a cloud with one empty bucket; yields a function from prefix and options to a storage's URL."""
    (port,) = free_ports(1)
    command = {
        "gs": ["-scheme=http", "-host=127.0.0.1", f"-port={port}", "-backend=memory", f"-public-host=127.0.0.1:{port}"],
        "az": [
            *("--blobHost", "127.0.0.1", "--blobPort", str(port)),
            *("--silent", "--skipApiVersionCheck", "--disableTelemetry", "--inMemoryPersistence"),
        ],
    }[scheme]
    variables = {"GOOGLE_BEARER_TOKEN": "a-test"} if scheme == "gs" else {"AZURE_STORAGE_ACCOUNT_KEY": KEY}
    with (directory / f"{scheme}.log").open("wb") as log:
        process = subprocess.Popen([program(scheme), *command], stdout=log, stderr=log, cwd=directory)
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    cloud = contextlib.ExitStack()
    try:
        _wait(process, port)
        endpoint = f"http://127.0.0.1:{port}"
        if scheme == "gs":
            _create_bucket(endpoint)
            endpoint = cloud.enter_context(_xml_uploads(port))
        else:
            _create_container(endpoint)
            endpoint += f"/{ACCOUNT}"
        account = f"&account={ACCOUNT}" if scheme == "az" else ""
        yield lambda prefix: f"{scheme}://{BUCKET}/{prefix}?endpoint={endpoint}{account}&part_size=5242880"
    finally:
        cloud.close()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        process.kill()
        process.wait()


def _wait(process, port):
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, "the cloud's program did not start"
        assert time.monotonic() < deadline
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)


def _create_bucket(endpoint):
    body = json.dumps({"name": BUCKET}).encode()
    headers = {"content-type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/storage/v1/b", body, headers)).close()


@contextlib.contextmanager
def _xml_uploads(port):
    """Stand before fake-gcs-server, which has no uploads of the XML API: they go on as uploads of its JSON API.

    The parts of an upload become objects, of which the server composes the whole one.
    """
    uploads = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            method, target = self.command, self.path
            path, _, query = target.partition("?")
            fields = dict(parse_qsl(query, keep_blank_values=True))
            if "uploads" in fields or "uploadId" in fields:
                self.answer(*_multipart(port, uploads, method, path, fields, headers, body))
                return
            if method == "PUT" and not query:
                method, target, headers, body = _json_upload(path, headers, body)
            upstream = http.client.HTTPConnection("127.0.0.1", port)
            upstream.request(method, target, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            given = dict(answer.getheaders())
            if method == "POST" and answer.status == 200 and "uploadType" in target:
                made = json.loads(content)
                given = {"ETag": f'"{made["etag"]}"', "x-goog-generation": made["generation"]}
                content = b""
            for name, value in given.items():
                if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                    self.send_header(name, value)
            length = given.get("Content-Length", "0") if method == "HEAD" else str(len(content))
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(content)
            upstream.close()

        def answer(self, status, headers, content):
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815 - names of the standard library

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _multipart(port, uploads, method, path, fields, headers, body):
    """Return status, headers and body of the answer to a request of an upload in parts."""
    if "uploads" in fields:
        upload = uuid.uuid4().hex
        uploads[upload] = headers
        result = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
        return 200, {}, result.encode()
    upload = fields["uploadId"]
    if upload not in uploads:
        return 404, {}, b"<Error><Code>NoSuchUpload</Code></Error>"
    if method == "PUT":
        part = f"/{BUCKET}/parts-{upload}/{int(fields['partNumber']):05}"
        status, content = _ask(port, *_json_upload(part, {}, body))
        return status, {"ETag": f'"{json.loads(content)["etag"]}"'}, b""
    parts = [item["name"] for item in _listed(port, f"parts-{upload}/")]
    answer = 204, {}, b""
    if method == "POST":
        described = {"metadata": _metadata(uploads[upload])}
        sources = [{"name": part} for part in parts]
        request = json.dumps({"sourceObjects": sources, "destination": described}).encode()
        key = quote(unquote(path.removeprefix(f"/{BUCKET}/")), safe="")
        target = f"/storage/v1/b/{BUCKET}/o/{key}/compose"
        status, content = _ask(port, "POST", target, {"content-type": "application/json"}, request)
        etag = json.loads(content)["etag"]
        result = f'<CompleteMultipartUploadResult><ETag>"{etag}"</ETag></CompleteMultipartUploadResult>'
        answer = status, {}, result.encode()
    for part in parts:
        _ask(port, "DELETE", f"/storage/v1/b/{BUCKET}/o/{quote(part, safe='')}", {}, b"")
    del uploads[upload]
    return answer


def _listed(port, prefix):
    return json.loads(_ask(port, "GET", f"/storage/v1/b/{BUCKET}/o?prefix={prefix}", {}, b"")[1]).get("items", [])


def _ask(port, method, target, headers, body):
    upstream = http.client.HTTPConnection("127.0.0.1", port)
    upstream.request(method, target, body, headers)
    answer = upstream.getresponse()
    content = answer.read()
    upstream.close()
    return answer.status, content


def _metadata(headers):
    mark = "x-goog-meta-"
    return {name.lower().removeprefix(mark): value for name, value in headers.items() if name.lower().startswith(mark)}


def _json_upload(path, headers, body):
    key = unquote(path.removeprefix(f"/{BUCKET}/"))
    described = json.dumps({"name": key, "metadata": _metadata(headers)}).encode()
    head = b"--cut\r\nContent-Type: application/json\r\n\r\n%s\r\n--cut\r\nContent-Type: x/y\r\n\r\n" % described
    query = "uploadType=multipart" + ("&ifGenerationMatch=0" if "x-goog-if-generation-match" in headers else "")
    kept = {"content-type": "multipart/related; boundary=cut"}
    return "POST", f"/upload/storage/v1/b/{BUCKET}/o?{query}", kept, head + body + b"\r\n--cut--\r\n"


def _create_container(endpoint):
    """Send Azure's Create Container, signed with the account's key."""
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = {"x-ms-date": date, "x-ms-version": "2021-12-02"}
    lines = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
    resource = f"/{ACCOUNT}/{ACCOUNT}/{BUCKET}\nrestype:container"
    text = "PUT\n\n\n\n\n\n\n\n\n\n\n\n" + lines + resource
    signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()
    headers["authorization"] = f"SharedKey {ACCOUNT}:{signature}"
    request = urllib.request.Request(f"{endpoint}/{ACCOUNT}/{BUCKET}?restype=container", headers=headers, method="PUT")
    urllib.request.urlopen(request).close()
