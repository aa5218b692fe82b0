"""Parses reports of tests (JUnit's XML) and of coverage (Cobertura's and JaCoCo's), which steps have written.

They are not trusted. expat reads them piece by piece and fetches nothing. A document with declarations of its own is
refused, so that no entity or default value grows; its size, depth and elements have limits, and so has what is kept.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from xml.parsers import expat

from agola_core.runservice.model.reports import Coverage, FailedTest, Outcomes, Report

MAX_BYTES = 32 * 1024 * 1024
MAX_ELEMENTS = 1_000_000
MAX_DEPTH = 100
MAX_FAILED = 200
_MAX_NAME, _MAX_MESSAGE, _MAX_DETAILS = 500, 1000, 4000
_PIECE = 256 * 1024
_MAX_TOKEN = 1024 * 1024
_SHOWN = 40
_NUMBER = re.compile(r"[0-9]{1,9}")
_HITS = re.compile(r"[0-9]+")
_SECONDS = re.compile(r"(?:[0-9][0-9,]{0,15}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,2})?|")
_MOST_SECONDS = 1e9


class _UnreadableError(Exception):
    """A report is refused; the text says why."""


def parse_report(path: str, pieces: Iterable[bytes], most: int = MAX_BYTES) -> Report:
    """Return what a file reports; one that cannot be read has a problem.

    Args:
        path: Its path in the archive.
        pieces: Its content.
        most: The largest size in bytes.
    """
    reader, digest, size, held = _Reader(), hashlib.blake2b(digest_size=16), 0, b""
    try:
        for piece in pieces:
            size += len(piece)
            if size > most:
                raise _UnreadableError(f"it has more than {most} bytes")
            digest.update(piece)
            held += piece
            while len(held) >= _PIECE:
                reader.feed(held[:_PIECE])
                held = held[_PIECE:]
        reader.feed(held, is_last=True)
    except _UnreadableError as error:
        return Report(path, digest.hexdigest(), problem=str(error))
    except (expat.ExpatError, LookupError, ValueError) as error:
        return Report(path, digest.hexdigest(), problem=f"it is no XML: {error}")
    return Report(path, digest.hexdigest(), reader.tests, tuple(reader.failed), reader.coverage, reader.problem)


class _Reader:
    """Reads one document; which kind it is, its root says."""

    def __init__(self) -> None:
        self.tests: Outcomes | None = None
        self.failed: list[FailedTest] = []
        self._total = self._failures = self._skipped = self._elements = 0
        self._seconds = 0.0
        self._untimed, self._no_duration = 0, ""
        self._fed = 0
        self._announced: Coverage | None = None
        self._counted = Coverage()
        self._begins = ""
        self._open: list[str] = []
        self._suites: list[str] = []
        self._test: dict[str, str] = {}
        self._outcome = ""
        self._message = ""
        self._text: list[str] | None = None
        self._room = 0
        self._parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.specified_attributes = True
        parser.StartDoctypeDeclHandler = self._declared
        parser.EntityDeclHandler = self._entity
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters

    def feed(self, data: bytes, *, is_last: bool = False) -> None:
        self._parser.Parse(data, is_last)
        self._fed += len(data)
        # expat reads a tag or comment from its beginning each time: a long one would take it hours.
        if self._fed - self._parser.CurrentByteIndex > _MAX_TOKEN and not is_last:
            raise _UnreadableError(f"it has a tag or a comment of more than {_MAX_TOKEN} bytes")
        if is_last and self._begins in {"testsuites", "testsuite"}:
            self.tests = Outcomes(self._total, self._failures, self._skipped, round(self._seconds, 3))
        elif is_last and self._begins == "coverage" and self.coverage == Coverage() and self._announced is None:
            raise _UnreadableError(
                "it tells no number of lines: neither by lines-valid and lines-covered nor by its lines"
            )

    @property
    def coverage(self) -> Coverage | None:
        """The totals that a document announces, or else its lines counted."""
        if self._announced is not None:
            return self._announced
        return self._counted if self._begins == "coverage" else None

    @property
    def problem(self) -> str:
        """What of a document is left out, though it is read."""
        if not self._untimed:
            return ""
        return f"the durations of {self._untimed} of its tests, such as {self._no_duration}"

    def _declared(self, name: str, system: str | None, public: str | None, has_internal_subset: int) -> None:  # noqa: ARG002
        if has_internal_subset:
            raise _UnreadableError("it has declarations of its own, which may not be in a report")

    def _entity(self, *_: object) -> None:
        raise _UnreadableError("it declares an entity, which may not be in a report")

    def _begin(self, tag: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise _UnreadableError(f"it has more than {MAX_ELEMENTS} elements")
        if len(self._open) == MAX_DEPTH:
            raise _UnreadableError(f"its elements are nested deeper than {MAX_DEPTH}")
        if not self._open:
            self._begin_document(tag, attributes)
        if self._begins in {"testsuites", "testsuite"}:
            self._begin_tests(tag, attributes)
        elif self._begins == "coverage":
            if tag == "line" and self._open[-2:] == ["class", "lines"]:
                hits = attributes.get("hits", "0")
                if _HITS.fullmatch(hits) is None:
                    raise _UnreadableError(f"a line was run {_shown(hits)} times, which is no number")
                self._counted += Coverage(int(hits.strip("0") != ""), 1)
        elif tag == "counter" and len(self._open) == 1 and attributes.get("type") == "LINE":  # JaCoCo's total
            covered, missed = _number(attributes, "covered"), _number(attributes, "missed")
            self._announced = Coverage(covered, covered + missed)
        self._open.append(tag)

    def _begin_document(self, tag: str, attributes: dict[str, str]) -> None:
        if tag not in {"testsuites", "testsuite", "coverage", "report"}:
            raise _UnreadableError(f"its root {tag[:80]!r} is no report's: JUnit, Cobertura and JaCoCo are known")
        self._begins = tag
        if tag == "coverage" and {"lines-covered", "lines-valid"} <= attributes.keys():
            covered, lines = _number(attributes, "lines-covered"), _number(attributes, "lines-valid")
            if covered > lines:
                raise _UnreadableError(f"it has more covered lines ({covered}) than lines ({lines})")
            self._announced = Coverage(covered, lines)

    def _begin_tests(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "testsuite":
            self._suites.append(attributes.get("name", ""))
        elif tag == "testcase":
            self._test, self._outcome, self._message, self._text = attributes, "", "", None
        elif self._open and self._open[-1] == "testcase":
            if tag in {"failure", "error"} and self._outcome not in {"failure", "error"}:
                self._outcome, self._message = tag, attributes.get("message", "") or attributes.get("type", "")
                self._text, self._room = [], _MAX_DETAILS
            elif tag == "skipped" and not self._outcome:
                self._outcome = tag

    def _characters(self, text: str) -> None:
        if self._text is not None and self._room > 0 and self._open[-1] in {"failure", "error"}:
            self._text.append(text[: self._room])
            self._room -= len(text)

    def _end(self, tag: str) -> None:
        self._open.pop()
        if tag == "testsuite" and self._suites:
            self._suites.pop()
        elif tag == "testcase" and self._begins in {"testsuites", "testsuite"}:
            self._end_test()

    def _end_test(self) -> None:
        self._total += 1
        seconds = self._test.get("time", "").strip()
        if _SECONDS.fullmatch(seconds) and (value := float(seconds.replace(",", "") or 0)) < _MOST_SECONDS:
            self._seconds += value
        else:
            self._untimed += 1
            self._no_duration = self._no_duration or _shown(seconds)
        self._skipped += self._outcome == "skipped"
        if self._outcome not in {"failure", "error"}:
            return
        self._failures += 1
        if len(self.failed) < MAX_FAILED:
            details = "".join(self._text or ()).strip()
            message = self._message.strip() or details.partition("\n")[0]
            suite = self._test.get("classname", "") or (self._suites[-1] if self._suites else "")
            self.failed.append(
                FailedTest(
                    self._test.get("name", "")[:_MAX_NAME],
                    suite[:_MAX_NAME],
                    self._outcome,
                    message[:_MAX_MESSAGE],
                    details,
                )
            )


def _number(attributes: dict[str, str], name: str) -> int:
    text = attributes.get(name, "")
    if _NUMBER.fullmatch(text) is None:
        raise _UnreadableError(f"its {name} is no number of lines: {_shown(text)}")
    return int(text)


def _shown(text: str) -> str:
    return ascii(text[:_SHOWN])
