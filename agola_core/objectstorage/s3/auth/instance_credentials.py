"""Fetches AWS credentials from the environment a program runs in: web identity, container or EC2 instance."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree as ET

from agola_core.objectstorage.s3.auth.configuration import Configuration
from agola_core.objectstorage.s3.auth.credentials import NoCredentialsError, decoded
from agola_core.objectstorage.s3.auth.signing import Credentials
from agola_core.objectstorage.s3.protocol.connection import Answer, Connections, Server, TruncatedBodyError
from agola_core.objectstorage.s3.protocol.requests import error_of

_CONTAINERS = "http://169.254.170.2"
_INSTANCES = "http://169.254.169.254"
_LOOPBACK = {"localhost", "127.0.0.1", "::1", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"}
_SECONDS = 5.0
_INSTANCE_SECONDS = 1.0


def from_web_identity(configuration: Configuration) -> Credentials | None:
    """Return credentials of a role that a token stands for, as Kubernetes gives one."""
    file = configuration.get("web_identity_token_file", "AWS_WEB_IDENTITY_TOKEN_FILE")
    role = configuration.get("role_arn", "AWS_ROLE_ARN")
    if not file or not role:
        return None
    try:
        token = Path(file).read_text()
    except OSError as error:
        raise NoCredentialsError(f"the web identity token {file} cannot be read: {error.strerror}") from error
    region = configuration.get("region", "AWS_REGION", "AWS_DEFAULT_REGION")
    endpoint = configuration.get("endpoint_url", "AWS_ENDPOINT_URL_STS") or (
        f"https://sts.{region}.amazonaws.com" if region else "https://sts.amazonaws.com"
    )
    query = {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": role,
        "RoleSessionName": configuration.get("role_session_name", "AWS_ROLE_SESSION_NAME") or "agola-core",
        "WebIdentityToken": token,
    }
    headers = [("content-type", "application/x-www-form-urlencoded")]
    answer = _ask(endpoint, "POST", "/", headers, _SECONDS, urlencode(query).encode())
    if answer.status != 200:
        code, message = error_of(answer) or (str(answer.status), "")
        raise NoCredentialsError(f"{endpoint} gives no credentials for {role}: {code} {message}".rstrip())
    try:
        fields = {element.tag.rpartition("}")[2]: element.text or "" for element in ET.fromstring(answer.body).iter()}  # noqa: S314
        ends = datetime.fromisoformat(fields["Expiration"]).timestamp()
        return Credentials(fields["AccessKeyId"], fields["SecretAccessKey"], fields["SessionToken"], ends)
    except (ET.ParseError, KeyError, ValueError):
        raise NoCredentialsError(f"{endpoint} gave no credentials for {role}") from None


def from_container(configuration: Configuration) -> Credentials | None:
    """Return the credentials of a task of ECS or a pod of EKS."""
    environment = configuration.environment
    url = environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")
    if relative := environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        url = _CONTAINERS + relative
    if not url:
        return None
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise NoCredentialsError("AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https nor of this machine")
    token = environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
    if file := environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
        try:
            token = Path(file).read_text().strip()
        except OSError as error:
            raise NoCredentialsError(f"the token {file} cannot be read: {error.strerror}") from error
    target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    answer = _ask(url, "GET", target, [("authorization", token)] if token else [], _SECONDS)
    if answer.status != 200:
        raise NoCredentialsError(f"the container's credentials: status {answer.status}")
    return decoded(answer.body, "the container's endpoint", "Token")


def from_instance(configuration: Configuration) -> Credentials | None:
    """Return the credentials of an EC2 instance; None where there is no such service."""
    if configuration.environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    service = configuration.get("ec2_metadata_service_endpoint", "AWS_EC2_METADATA_SERVICE_ENDPOINT") or _INSTANCES
    place = "/latest/meta-data/iam/security-credentials/"
    try:
        headers = [("x-aws-ec2-metadata-token-ttl-seconds", "21600")]
        token = _ask(service, "PUT", "/latest/api/token", headers, _INSTANCE_SECONDS)
        if token.status != 200:
            return None
        proof = [("x-aws-ec2-metadata-token", token.body.decode("latin-1"))]
        role = _ask(service, "GET", place, proof, _INSTANCE_SECONDS)
        if role.status != 200 or not role.body.strip():
            return None
        name = role.body.decode("latin-1").split()[0]
        answer = _ask(service, "GET", place + name, proof, _SECONDS)
    except NoCredentialsError:  # it is no instance
        return None
    return decoded(answer.body, "the instance's metadata service", "Token")


def _ask(
    url: str, method: str, target: str, headers: Iterable[tuple[str, str]], seconds: float, body: bytes = b""
) -> Answer:
    import ssl  # noqa: PLC0415 - most stores need none of this

    parts = urlsplit(url)
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    server = Server(parts.hostname or "", parts.port or (443 if tls else 80), tls)
    connections = Connections(server, seconds)
    try:
        return connections.request(method, target, [("host", parts.netloc), *headers], body, seconds)
    except (OSError, TruncatedBodyError) as error:
        raise NoCredentialsError(f"{parts.scheme}://{parts.netloc} does not answer: {error}") from error
    finally:
        connections.close()
