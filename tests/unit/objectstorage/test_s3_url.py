"""What an `s3://` URL may say, and that no error repeats a secret."""

import pytest

from agola_core.errors import BadRequestError
from agola_core.objectstorage.s3.auth.configuration import Configuration
from agola_core.objectstorage.s3.protocol.endpoint import endpoint_of
from agola_core.objectstorage.s3.url import Checksum, explicit_credentials, parse_s3_url


def test_every_option_is_taken():
    options = parse_s3_url(
        "s3://bucket/a/b%20c/?endpoint=https://h:9000&region=eu-1&path_style=false&tls_verify=false&tls_ca=/ca.pem"
        "&create_bucket=true&connect_timeout=1&request_timeout=2.5&timeout=9&attempts=2&concurrency=8"
        "&part_size=5242880&checksum=md5&anonymous=true"
    )
    assert (options.bucket, options.prefix, options.endpoint) == ("bucket", "a/b c", "https://h:9000")
    assert (options.region, options.path_style, options.tls_verify, options.tls_ca) == ("eu-1", False, False, "/ca.pem")
    assert (options.request_timeout, options.attempts, options.checksum) == (2.5, 2, Checksum.MD5)


@pytest.mark.parametrize(
    ("url", "environment", "host", "path"),
    [
        ("s3://bucket", {}, "bucket.s3.us-east-1.amazonaws.com", "/a/b%20%2B"),
        ("s3://bucket?region=cn-north-1", {}, "bucket.s3.cn-north-1.amazonaws.com.cn", "/a/b%20%2B"),
        ("s3://bucket", {"AWS_REGION": "eu-1"}, "bucket.s3.eu-1.amazonaws.com", "/a/b%20%2B"),
        ("s3://with.dots", {}, "s3.us-east-1.amazonaws.com", "/with.dots/a/b%20%2B"),
        ("s3://bucket?endpoint=http://h:9000", {}, "h:9000", "/bucket/a/b%20%2B"),
        ("s3://bucket?endpoint=http://h&path_style=false", {}, "bucket.h", "/a/b%20%2B"),
        ("s3://bucket?endpoint=http://[::1]:9000", {}, "[::1]:9000", "/bucket/a/b%20%2B"),
        ("s3://bucket", {"AWS_ENDPOINT_URL_S3": "http://h:1/below/"}, "h:1", "/below/bucket/a/b%20%2B"),
    ],
)
def test_requests_go_to_the_endpoint(url, environment, host, path):
    endpoint = endpoint_of(parse_s3_url(url), Configuration({"AWS_CONFIG_FILE": "/none", **environment}))
    assert (endpoint.host, endpoint.path("a/b +")) == (host, path)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://", "no name of an S3 bucket"),
        ("s3://b", "no name of an S3 bucket"),
        ("s3://key:canary@bucket", "takes no credentials"),
        ("s3://bucket?secret_key=canary", "no option 'secret_key'"),
        ("s3://bucket?endpoint=localhost:9000", "option endpoint"),
        ("s3://bucket?endpoint=http://user:canary@host", "option endpoint"),
        ("s3://bucket?attempts=many", "attempts"),
        ("s3://bucket?timeout=0", "greater than 0"),
        ("s3://bucket?part_size=1", "part_size"),
        ("s3://bucket?region=a&region=b", "twice"),
        ("s3://bucket?tls_key=/key.pem", "needs tls_cert"),
        ("s3://bucket?profile=a&anonymous=true", "exclude each other"),
        ("s3://bucket/a#b", "%23"),
    ],
)
def test_what_is_wrong_is_named_and_no_secret_with_it(url, message):
    with pytest.raises(BadRequestError, match=message) as caught:
        parse_s3_url(url)
    assert "canary" not in str(caught.value)


def test_explicit_credentials_come_from_the_environment():
    environment = {"X_ACCESS_KEY_ID": "k", "X_SECRET_ACCESS_KEY": "s"}
    assert explicit_credentials("X", environment) == {"key": "k", "secret": "s"}
    assert explicit_credentials("X", {**environment, "X_SESSION_TOKEN": "t"})["token"] == "t"
    with pytest.raises(BadRequestError, match="no Y_ACCESS_KEY_ID"):
        explicit_credentials("Y", environment)
