"""What callers are told of what S3 servers answer."""

import pytest

from agola_core.errors import BadRequestError, ForbiddenError, OutOfSpaceError, UnavailableError
from agola_core.objectstorage.s3.errors import translate
from agola_core.objectstorage.s3.outcomes import ResponseError
from agola_core.objectstorage.s3.protocol.connection import Answer
from agola_core.objectstorage.s3.protocol.requests import error_of, uploads_of


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "XMinioInvalidObjectName", BadRequestError),
        (400, "XMinioInvalidResourceName", BadRequestError),
        (409, "XMinioObjectExistsAsDirectory", BadRequestError),
        (400, "KeyTooLongError", BadRequestError),
        (400, "XMinioAdminBucketQuotaExceeded", OutOfSpaceError),
        (403, "QuotaExceeded", OutOfSpaceError),
        (507, "XMinioStorageFull", OutOfSpaceError),
        (400, "ExpiredToken", ForbiddenError),
        (400, "InvalidToken", ForbiddenError),
        (403, "InvalidTokenId", ForbiddenError),
        (503, "SlowDown", UnavailableError),
    ],
)
def test_codes_become_errors_of_the_taxonomy(status, code, expected):
    told = translate(ResponseError(status, code, "said"), "object 'a'", "bucket")
    assert type(told) is expected
    assert code in str(told)


def test_errors_are_found_in_answers():
    def answer(text):
        return Answer(200, {}, text)

    assert error_of(answer(b"<?xml version='1.0'?>\n<Error><Code>A</Code><Message>b</Message></Error>")) == ("A", "b")
    assert error_of(answer(b'<Error xmlns="x"><Code>A</Code></Error>')) == ("A", "")
    assert error_of(answer(b"<ErrorResponse><Error><Code>A</Code></Error></ErrorResponse>")) == ("A", "")
    assert error_of(answer(b"<Result><Name>&lt;Error&gt;</Name></Result>")) is None
    assert error_of(answer(b"")) is None


def test_more_than_one_page_of_uploads_is_read():
    upload = b"<Upload><Key>a%2Bb</Key><UploadId>1</UploadId><Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>"
    page = b"<R><EncodingType>url</EncodingType><IsTruncated>%s</IsTruncated>%s</R>"
    found, markers = uploads_of(Answer(200, {}, page % (b"true", upload)))
    assert (found[0].key, markers) == ("a+b", ("a+b", "1"))
    assert uploads_of(Answer(200, {}, page % (b"false", upload)))[1] is None
