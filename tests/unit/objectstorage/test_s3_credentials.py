"""Where credentials for S3 come from, and when they are fetched again."""

import json
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from agola_core.errors import BadRequestError
from agola_core.objectstorage.s3.auth.configuration import Configuration
from agola_core.objectstorage.s3.auth.credentials import CredentialCache, NoCredentialsError, credentials_of
from agola_core.objectstorage.s3.auth.signing import Credentials
from agola_core.objectstorage.s3.url import parse_s3_url

LATER = (datetime.now(UTC) + timedelta(hours=1)).isoformat()


@pytest.fixture
def files(tmp_path):
    """The variables that name a user's AWS files."""
    config, credentials = tmp_path / "config", tmp_path / "credentials"
    process = json.dumps(
        {"AccessKeyId": "process-key", "SecretAccessKey": "ps", "SessionToken": "pt", "Expiration": LATER}
    )
    (tmp_path / "answer.json").write_text(process)
    show = f"{sys.executable} -c \"print(open('{tmp_path}/answer.json').read())\""
    config.write_text(
        "[default]\nregion = eu-1\n[profile process]\n"
        f"credential_process = {show}\n[profile failing]\ncredential_process = false canary\n"
        "[profile sso]\nsso_session = corp\n[profile partial]\naws_access_key_id = x\n"
    )
    credentials.write_text(
        "[default]\naws_access_key_id = default-key\naws_secret_access_key = ds\n"
        "[other]\naws_access_key_id = other-key\naws_secret_access_key = os\naws_session_token = ot\n"
    )
    return {
        "AWS_CONFIG_FILE": str(config),
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def fetch(environment, options="", profile=""):
    cache = credentials_of(parse_s3_url(f"s3://bucket?{options}"), Configuration(environment, profile))
    return None if cache is None else tuple(cache.get())[:3]


def test_they_come_from_the_environment_then_from_the_profile(files):
    own = {"AWS_ACCESS_KEY_ID": "env-key", "AWS_SECRET_ACCESS_KEY": "es", "AWS_SESSION_TOKEN": "et"}
    assert fetch({**files, **own}) == ("env-key", "es", "et")
    assert fetch(files) == ("default-key", "ds", "")
    assert fetch({**files, "AWS_PROFILE": "other"}) == ("other-key", "os", "ot")
    assert fetch({**files, **own}, profile="other") == ("other-key", "os", "ot")  # who asks for it gets it
    assert fetch(files, profile="process") == ("process-key", "ps", "pt")
    assert fetch(files, "anonymous=true") is None
    assert Configuration(files).get("region") == "eu-1"


def test_what_is_missing_is_said_without_a_secret(files, tmp_path):
    with pytest.raises(BadRequestError, match=r"no profile 'nobody'.*config"):
        Configuration(files, "nobody")
    with pytest.raises(NoCredentialsError, match="'failing' failed: CalledProcessError") as caught:
        fetch(files, profile="failing")
    assert "canary" not in str(caught.value)
    with pytest.raises(NoCredentialsError, match="no secret"):
        fetch(files, profile="partial")
    with pytest.raises(NoCredentialsError, match="no AWS_SECRET_ACCESS_KEY"):
        fetch({**files, "AWS_ACCESS_KEY_ID": "x"})
    with pytest.raises(NoCredentialsError, match="Unable to locate"):
        fetch({**files, "AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none"})
    (tmp_path / "config").write_text("canary without a section")
    with pytest.raises(BadRequestError, match="cannot be read") as unreadable:
        Configuration(files)
    assert "canary" not in str(unreadable.value)


def test_a_profile_with_sso_needs_botocore(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "botocore", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NoCredentialsError, match="sso_session, for which botocore is needed"):
        fetch(files, profile="sso")


@pytest.fixture
def service():
    """An HTTP server of what AWS gives to containers, instances and web identities; its answers and its requests."""
    document = json.dumps({"AccessKeyId": "role-key", "SecretAccessKey": "rs", "Token": "rt", "Expiration": LATER})
    sts = (
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>web-key"
        "</AccessKeyId><SecretAccessKey>ws</SecretAccessKey><SessionToken>wt</SessionToken>"
        f"<Expiration>{LATER}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
        "</AssumeRoleWithWebIdentityResponse>"
    )
    answers = {
        "PUT /latest/api/token": "proof",
        "GET /latest/meta-data/iam/security-credentials/": "my-role\n",
        "GET /latest/meta-data/iam/security-credentials/my-role": document,
        "GET /container?x=1": document,
        "POST /": sts,
    }
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            requests.append((self.command, self.path, dict(self.headers.items()), body))
            text = answers[f"{self.command} {self.path}"].encode()
            self.send_response(200)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_POST = answer  # noqa: N815 - names of the standard library

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()
        thread.join()


def test_containers_instances_and_web_identities_are_asked(service, tmp_path):
    url, requests = service
    none = {"AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none"}
    assert fetch({**none, "AWS_EC2_METADATA_SERVICE_ENDPOINT": url}) == ("role-key", "rs", "rt")
    assert requests[-1][2]["x-aws-ec2-metadata-token"] == "proof"
    container = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/container?x=1", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "t"}
    assert fetch({**none, **container}) == ("role-key", "rs", "rt")
    assert requests[-1][2]["authorization"] == "t"
    with pytest.raises(NoCredentialsError, match="neither https"):
        fetch({**none, "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.org/x"})
    (tmp_path / "token").write_text("web-token")
    web = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"), "AWS_ROLE_ARN": "arn:aws:iam::1:role/r"}
    assert fetch({**none, **web, "AWS_ENDPOINT_URL_STS": url}) == ("web-key", "ws", "wt")
    assert b"WebIdentityToken=web-token" in requests[-1][3]


def test_they_are_fetched_again_before_they_end_and_kept_while_that_fails():
    fetched = []
    ends = [time.time() + 100, time.time() + 1000]  # the first is about to end

    def source():
        if not ends:
            raise NoCredentialsError("away")
        fetched.append(ends.pop(0))
        return Credentials("k", "s", "", fetched[-1])

    cache = CredentialCache(source)
    assert cache.get().expires == fetched[0]
    assert cache.get().expires == fetched[1]
    assert cache.get().expires == fetched[1]
    assert len(fetched) == 2
    ends.append(time.time() + 100)
    soon = CredentialCache(source)
    soon.get()
    assert soon.get().expires == fetched[-1]  # the source is away: they are still valid
