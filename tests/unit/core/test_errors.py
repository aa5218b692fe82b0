"""Which error of a chain a client is shown."""

import pytest

from agola_core.errors import BadRequestError, ForbiddenError, InternalError, NotFoundError, api_error, error_chain


def raised(*links):
    """Return the last error; each was raised from the one before it."""
    cause = None
    for link in links:
        link.__cause__ = cause
        cause = link
    return cause


def test_the_innermost_api_error_of_what_wraps_it():
    inner = NotFoundError("the log is not there")
    error = raised(OSError("socket"), inner, RuntimeError("while reading"), InternalError("the executor failed"))
    assert api_error(error) is inner
    assert list(error_chain(error))[-1].args == ("socket",)
    assert api_error(raised(OSError("x"), ValueError("y"))) is None
    assert api_error(inner) is inner


def test_an_error_that_came_while_another_was_handled_does_not_wrap_it():
    def fall_back():
        raise BadRequestError("neither here nor there")

    def look():
        try:
            raise NotFoundError("not here")
        except NotFoundError:
            fall_back()

    with pytest.raises(BadRequestError) as caught:
        look()
    assert api_error(caught.value) is caught.value
    assert [type(link) for link in error_chain(caught.value)] == [BadRequestError, NotFoundError]


def test_a_chain_that_bites_its_tail_ends():
    one, two = ForbiddenError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert api_error(one) is one
    assert len(list(error_chain(one))) == 2
