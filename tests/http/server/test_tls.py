"""TLS: what the server shows, what it asks clients for, and what our client takes."""

import httpx2
import pytest

from agola_core.errors import BadRequestError, UnavailableError
from agola_http.access.control import Access
from agola_http.access.principals import Principal
from agola_http.client import Client
from agola_http.protocol.records import Version
from agola_http.server.application import Application
from agola_http.server.connections.limits import Limits
from agola_http.server.connections.uvicorn_server import Server, Tls, listen
from agola_http.server.endpoints import Endpoint, json_answer


def app():
    def version(call):
        return json_answer(Version("agola-core", "1", "/"))

    return Application([Endpoint("GET", "/version", version, Principal.PUBLIC, "", "")], Access(), Limits())


def test_a_server_with_a_certificate_is_asked_by_who_knows_its_authority(serving, certificate):
    with serving(app(), end_streams=lambda: None, tls=Tls(certificate=certificate[0], key=certificate[1])) as (_, port):
        with Client(f"https://127.0.0.1:{port}", authority=certificate[0]) as client:
            assert client.version().version == "1"
        with Client(f"https://127.0.0.1:{port}", retries=0) as client, pytest.raises(UnavailableError, match="verify"):
            client.version()
        with Client(f"http://127.0.0.1:{port}", retries=0) as client, pytest.raises(UnavailableError):
            client.version()


def test_clients_show_a_certificate_where_the_server_asks_for_one(serving, certificate):
    tls = Tls(certificate=certificate[0], key=certificate[1], client_authority=certificate[0])
    context = httpx2.create_ssl_context()
    context.load_verify_locations(certificate[0])
    with serving(app(), end_streams=lambda: None, tls=tls) as (_, port):
        url = f"https://127.0.0.1:{port}/version"
        with httpx2.Client(verify=context, trust_env=False) as client, pytest.raises(httpx2.HTTPError):
            client.get(url)
        context.load_cert_chain(*certificate)
        with httpx2.Client(verify=context, trust_env=False) as client:
            assert client.get(url).status_code == 200


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_certificate_that_cannot_be_used_is_one_clear_error(tmp_path, content):
    path = tmp_path / "cert.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadRequestError, match="certificate"):
        Server(app(), Limits(), tls=Tls(certificate=path, key=path))
    with listen("127.0.0.1", 0), pytest.raises(BadRequestError):
        Client("https://127.0.0.1", authority=path)
