"""Reports of tests and coverage: what is read of them, and what a hostile one can do."""

import io
import tarfile
import tracemalloc

import pytest
from msgspec.structs import replace

from agola_core.runservice.artifacts import report_parser
from agola_core.runservice.artifacts.report_parser import parse_report
from agola_core.runservice.artifacts.reports import ReportSpotter, is_report, read_reports
from agola_core.runservice.model.reports import Coverage, FailedTest, Outcomes, Report, sum_up

PYTEST = b"""<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="0"
failures="1" skipped="1" tests="4" time="0.05"><testcase classname="tests.test_a" name="test_good" time="0.001" />
<testcase classname="tests.test_a" name="test_bad[\xc3\xbc]" time="0.5"><failure message="assert 1 == 2">def test_bad():
&gt;       assert 1 == 2
E       assert 1 == 2</failure><system-out>not this</system-out></testcase>
<testcase classname="tests.test_a" name="test_broken" time="0.1">
<error message="failed on setup">boom</error></testcase>
<testcase classname="tests.test_a" name="test_not" time="0.0"><skipped type="pytest.skip" message="why" /></testcase>
</testsuite></testsuites>"""
SUREFIRE = b"""<testsuite name="com.acme.FooTest" time="1,234.5" tests="2">
<properties><property name="a" value="b"/></properties>
<testcase name="works" classname="com.acme.FooTest" time="0.5"><flakyFailure message="once"/></testcase>
<testcase name="fails" time="0.25"><failure type="java.lang.AssertionError"><![CDATA[java.lang.AssertionError: no
 at com.acme.Foo]]></failure><failure message="second"/></testcase></testsuite>"""
COVERAGE = b"""<?xml version="1.0" ?><!DOCTYPE coverage SYSTEM "http://cobertura.sourceforge.net/xml/coverage-04.dtd">
<coverage version="7.6" lines-valid="40" lines-covered="30" line-rate="0.75"><packages/></coverage>"""
OLD_COBERTURA = b"""<coverage line-rate="0.5"><packages><package><classes><class name="a"><methods><method><lines>
<line number="1" hits="9"/></lines></method></methods>
<lines><line number="1" hits="00"/><line number="2" hits="3"/></lines>
</class></classes></package></packages></coverage>"""
JACOCO = b"""<!DOCTYPE report PUBLIC "-//JACOCO//DTD Report 1.1//EN" "report.dtd"><report name="x"><package name="a">
<counter type="LINE" missed="5" covered="5"/></package><counter type="BRANCH" missed="9" covered="9"/>
<counter type="LINE" missed="10" covered="90"/></report>"""


def parse(text, cut=7):
    return parse_report("r.xml", (text[start : start + cut] for start in range(0, len(text), cut)))


def test_junit():
    found = parse(PYTEST)
    assert found.tests == Outcomes(total=4, failed=2, skipped=1, seconds=0.601)
    assert found.coverage is None
    assert found.failed[0].details.endswith("E       assert 1 == 2")
    assert [(test.suite, test.name, test.kind, test.message) for test in found.failed] == [
        ("tests.test_a", "test_bad[ü]", "failure", "assert 1 == 2"),
        ("tests.test_a", "test_broken", "error", "failed on setup"),
    ]
    found = parse(SUREFIRE)
    assert found.tests == Outcomes(total=2, failed=1, seconds=0.75)
    details = "java.lang.AssertionError: no\n at com.acme.Foo"
    assert found.failed == (FailedTest("fails", "com.acme.FooTest", "failure", "java.lang.AssertionError", details),)
    assert parse(b"<testsuites/>").tests == Outcomes()


@pytest.mark.parametrize(
    ("text", "expected"),
    [(COVERAGE, Coverage(30, 40)), (OLD_COBERTURA, Coverage(1, 2)), (JACOCO, Coverage(90, 100))],
)
def test_coverage(text, expected):
    assert parse(text) == Report("r.xml", parse(text).digest, coverage=expected)
    assert parse(text, cut=10**6) == parse(text, cut=1)


BOMB = b"<!DOCTYPE t [" + b"".join(b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 10)) + b"]>"
HOSTILE = {
    "entity bomb": (BOMB + b"<testsuite>&a9;</testsuite>", "declarations of its own"),
    "external entity": (
        b'<!DOCTYPE t [<!ENTITY x SYSTEM "file:///etc/passwd">]><testsuite>&x;</testsuite>',
        "declarations",
    ),
    "parameter entity": (b'<!DOCTYPE t [<!ENTITY % x SYSTEM "http://127.0.0.1/x"> %x;]><testsuite/>', "declarations"),
    "default attributes": (b'<!DOCTYPE t [<!ATTLIST t a CDATA "' + b"x" * 999 + b'">]><testsuite/>', "declarations"),
    "undeclared entity": (b"<testsuite>&x;</testsuite>", "no XML: undefined entity"),
    "deep": (b"<testsuite>" * 101, "nested deeper than 100"),
    "another document": (b"<html/>", "root 'html'"),
    "a name with a terminal's controls": (b"<\xc2\x9b2J/>", "no XML"),
    "escape": (b"<testsuite name='&#27;[2J'/>", "no XML"),
    "cut": (PYTEST[:300], "no XML"),
    "empty": (b"", "no XML"),
    "two roots": (b"<testsuite/><testsuite/>", "no XML"),
    "unknown encoding": (b"<?xml version='1.0' encoding='utf-7'?><testsuite/>", "no XML"),
    "no text": (bytes(range(256)), "no XML"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_broken_report_is_a_problem_and_nothing_else(name):
    text, problem = HOSTILE[name]
    found = parse(text)
    assert problem in found.problem
    assert found.problem.isprintable()
    assert (found.tests, found.failed, found.coverage) == (None, (), None)


NO_DURATIONS = ["nan", "inf", "-inf", "-5", "x", "1e308", "1e999", "9" * 400, "\u0663", "1_000", "+5", "0x1"]


def test_durations_that_are_none_are_left_out_by_name():
    tests = "".join(f'<testcase time="{text}"/>' for text in (*NO_DURATIONS, " 2 ", "", ".5", "1.5E-1"))
    found = parse(f"<testsuite>{tests}</testsuite>".encode())
    assert found.tests == Outcomes(total=16, seconds=2.65)
    assert found.problem == "the durations of 12 of its tests, such as 'nan'"


NO_NUMBERS = ["-1", "nan", "inf", "", " 5", "+5", "1_0", "1.0", "\u0663", "9" * 10, "9" * 5000]


@pytest.mark.parametrize("text", NO_NUMBERS, ids=ascii)
def test_numbers_of_lines_that_are_none(text):
    shown = ascii(text[:40])
    for document, problem in (
        (f'<coverage lines-covered="{text}" lines-valid="9"/>', f"its lines-covered is no number of lines: {shown}"),
        (f'<coverage lines-covered="9" lines-valid="{text}"/>', f"its lines-valid is no number of lines: {shown}"),
        (
            f'<report><counter type="LINE" missed="{text}" covered="1"/></report>',
            f"its missed is no number of lines: {shown}",
        ),
    ):
        assert parse(document.encode(), cut=999).problem == problem
    if not text.startswith("9"):
        line = f'<coverage><class><lines><line hits="{text}"/></lines></class></coverage>'
        assert parse(line.encode()).problem == f"a line was run {shown} times, which is no number"


@pytest.mark.parametrize("rate", ["nan", "inf", "-1", "1e308", "1"])
def test_coverage_without_numbers_of_lines_is_refused(rate):
    found = parse(f'<coverage line-rate="{rate}"><packages/></coverage>'.encode())
    assert found.coverage is None
    assert found.problem.startswith("it tells no number of lines")
    more = parse(b'<coverage lines-covered="9" lines-valid="1"/>')
    assert more.problem == "it has more covered lines (9) than lines (1)"


def test_coverage_in_words():
    assert parse(b'<coverage lines-covered="0" lines-valid="0"/>').coverage.text == "no lines"
    assert Coverage(3, 4000).text == "0.1% of 4,000 lines"
    shares = [Coverage(covered, 10_000).text.partition("%")[0] for covered in (0, 1, 3750, 9999, 10_000)]
    assert shares == ["0.0", "0.1", "37.5", "99.9", "100.0"]


def endless(begin, middle):
    yield begin
    while True:
        yield middle


TOKEN = "it has a tag or a comment of more than 1048576 bytes"


@pytest.mark.parametrize(
    ("begin", "middle", "problem"),
    [
        (b"<testsuite>", b"<testcase name='a'><failure>" + b"x" * 50_000 + b"</failure></testcase>", None),
        (b"<testsuite><system-out>", b"x" * 100_000, None),
        (b"<testsuite><system-out><![CDATA[", b"x" * 100_000, None),
        (b"<testsuite name='", b"x" * 100_000, TOKEN),
        (b"<testsuite><!--", b"x" * 100_000, TOKEN),
        (b"<testsuite><?x ", b"x" * 4000, TOKEN),
        (b"<testsuite ", b"x" * 100_000, TOKEN),
        (b"<testsuite", b" a='b'" * 10_000, TOKEN),
    ],
)
def test_an_endless_report_is_stopped_and_memory_has_a_bound(begin, middle, problem):
    """A tag, comment or instruction is read again from its beginning with each piece, so its length has a limit."""
    tracemalloc.start()
    found = parse_report("r.xml", endless(begin, middle), most=4 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.problem == (problem or "it has more than 4194304 bytes")
    assert peak < 32 << 20


def test_what_is_kept_has_a_bound(monkeypatch):
    case = (
        b"<testcase name='"
        + b"n" * 5000
        + b"'><failure message='"
        + b"m" * 5000
        + b"'>"
        + b"t" * 9999
        + b"</failure></testcase>"
    )
    found = parse(b"<testsuite>" + case * 250 + b"</testsuite>", cut=9999)
    assert found.tests.failed == 250
    assert len(found.failed) == 200
    assert [len(text) for text in (found.failed[0].name, found.failed[0].message, found.failed[0].details)] == [
        500,
        1000,
        4000,
    ]
    monkeypatch.setattr(report_parser, "MAX_ELEMENTS", 100)
    assert "more than 100 elements" in parse(b"<testsuite>" + b"<a/>" * 100 + b"</testsuite>").problem


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("junit.xml", True),
        ("out/py-JUnit-3.12.xml", True),
        ("TEST-com.acme.FooTest.xml", True),
        ("test-results.xml", True),
        ("coverage.xml", True),
        ("cobertura-coverage.xml", True),
        ("jacocoTestReport.xml", True),
        ("pom.xml", False),
        ("junit/pom.xml", False),
        ("latest-news.xml", False),
        ("junit.xml.gz", False),
    ],
)
def test_names_of_reports(path, expected):
    assert is_report(path) is expected
    spotter = ReportSpotter([archive((path, b"x"))])
    assert b"".join(spotter) == archive((path, b"x"))
    assert spotter.spotted >= expected


def archive(*files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("cut", [1, 100, 512, 10_000])
def test_reports_are_spotted_wherever_the_pieces_are_cut(cut):
    name = "deep/" * 40 + "p" * 80 + "junit" + "s" * 80 + ".xml"
    for packed in (archive(("a", b"x" * 2000), (name, PYTEST)), archive((("x" * 90) + "/junit.xml", b""))):
        spotter = ReportSpotter(packed[start : start + cut] for start in range(0, len(packed), cut))
        assert b"".join(spotter) == packed
        assert spotter.spotted
    without = archive(("pom.xml", b"see x.xml" * 100), ("junit.txt", b""))
    spotter = ReportSpotter(without[start : start + cut] for start in range(0, len(without), cut))
    assert b"".join(spotter) == without
    assert not spotter.spotted


def test_reports_of_an_archive(monkeypatch):
    packed = archive(("a/junit.xml", PYTEST), ("b", b"x" * 5000), ("coverage.xml", COVERAGE), ("TEST-x.xml", b"<"))
    found = read_reports([packed])
    assert [report.path for report in found] == ["a/junit.xml", "coverage.xml", "TEST-x.xml"]
    assert found[0].tests.total == 4
    assert found[1].coverage == Coverage(30, 40)
    assert "no XML" in found[2].problem
    (*_, last) = read_reports([packed[:6000]])  # cut in the midst
    assert last.path == "the archive"
    for name in ("../junit.xml", "/junit.xml", "x/../../junit.xml"):
        found = read_reports([archive(("junit.xml", PYTEST), (name, PYTEST))])
        assert [report.tests is not None for report in found] == [True, False]
        assert "would leave" in found[1].problem
    linked = io.BytesIO()
    with tarfile.open(fileobj=linked, mode="w") as packed_links:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo("junit.xml")
            info.type, info.linkname = kind, "/etc/passwd"
            packed_links.addfile(info)
    assert read_reports([linked.getvalue()]) == []
    many = read_reports([archive(*((f"junit{number}.xml", b"<testsuite/>") for number in range(510)))])
    assert len(many) == 501
    assert "more than 500" in many[-1].problem


def test_a_report_of_a_gigabyte_is_not_read():
    """It has a header alone: who reads on finds out that the rest is missing."""
    info = tarfile.TarInfo("junit.xml")
    info.size = 1 << 30
    found = read_reports([info.tobuf(tarfile.PAX_FORMAT)])
    assert [report.problem for report in found if report.path == "junit.xml"] == [
        "it has 1073741824 bytes, which is too many"
    ]


def test_a_file_that_is_saved_again_counts_once_and_equal_ones_of_others_each():
    one, two = parse(PYTEST), parse(SUREFIRE)
    broken = Report("coverage.xml", "d", problem="it is no XML")
    found = sum_up(
        [
            ("1", "test", [], [one, one, broken]),
            ("2", "between", ["1"], []),
            ("3", "package", ["2"], [one]),
            ("4", "more", ["1"], [two, parse(JACOCO)]),
        ]
    )
    assert [task.name for task in found.tasks] == ["test", "more"]
    assert found.tests == Outcomes(6, 3, 1, 1.351)
    assert found.coverage == Coverage(90, 100)
    assert found.tasks[0].problems == ("coverage.xml: it is no XML",)
    assert len(found.tasks[0].failed) == 2
    assert sum_up([("1", "a", [], [])]).tests is None
    renamed = replace(one, path="other.xml")
    found = sum_up([("1", "a", [], [one, renamed]), ("2", "b", [], [one]), ("3", "c", ["1", "2"], [one, renamed])])
    assert [(task.name, task.tests.total) for task in found.tasks] == [("a", 8), ("b", 4)]


@pytest.mark.parametrize("text", [PYTEST, COVERAGE, JACOCO])
def test_any_damage_is_read_or_a_problem(text):
    for place in range(0, len(text), 3):
        for changed in (text[:place], text[:place] + b"\xff" + text[place + 1 :], text[:place] + b"<a>" + text[place:]):
            found = parse(changed, cut=10**6)
            assert found.problem or found.tests is not None or found.coverage is not None
