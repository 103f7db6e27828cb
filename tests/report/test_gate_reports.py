"""The reports that verdicts are told in."""

import json
import math
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from lpe_eval.commands.compare import Comparison, notes
from lpe_eval.report.gate.judge import Rules, Verdict
from lpe_eval.report.gate.verdicts import as_json, as_junit, counts, exit_code, sentence
from tests.support.gate_runs import KEY, run_of, text, worse_by
from tests.support.gate_verdicts import OTHER, verdicts


def mixed() -> tuple[list[Verdict], Rules]:
    new = run_of({
        KEY: worse_by(text(), 0.0052), OTHER: worse_by(text(), 0.0061), KEY._replace(model="rope"): text(),
        KEY._replace(model="<new> & \x07 'quoted'"): text(), KEY._replace(model="short"): text()[:9],
        KEY._replace(model="good"): worse_by(text(), -0.1),
    })  # fmt: skip
    old = run_of({
        KEY: text(), OTHER: text(), KEY._replace(model="rope"): text(), OTHER._replace(model="rope"): text(),
        KEY._replace(model="short"): text(), KEY._replace(model="good"): text(),
    })  # fmt: skip
    return verdicts(new, old), Rules()


def test_the_sentence_names_each_checkpoint_protocol_and_length():
    found, _ = mixed()
    assert sentence(found, "worse") == "alibi, nonoverlap, at length 512 (+0.52 %), 8192 (+0.61 %)"
    assert sentence(found, "missing") == "rope, nonoverlap, at length 8192"
    assert "short, nonoverlap, at length 512 (only 25 %" in sentence(found, "not comparable")
    assert counts(found) == {
        "worse": 2, "missing": 1, "not comparable": 1, "inconclusive": 0, "better": 1, "new": 1, "same": 1,
    }  # fmt: skip


def test_the_exit_code_is_three_for_worse_or_missing_two_for_not_comparable_and_zero_else():
    found, rules = mixed()

    def code(*kinds, allowed=frozenset()):
        return exit_code([each for each in found if each.verdict in kinds], Rules(allowed=allowed))

    assert exit_code(found, rules) == 3
    assert code("worse") == code("missing") == code("missing", "not comparable") == 3
    assert code("not comparable", "same", "new") == 2
    assert code("same", "new", "better") == 0
    assert code("missing", allowed=frozenset({"missing"})) == 0


def test_the_json_report_is_strict_and_holds_every_number():
    found, rules = mixed()

    def refuse(name):
        raise AssertionError(name)

    read = json.loads(as_json(found, rules, "run", ["released"]), parse_constant=refuse)
    assert (read["exit_code"], read["baselines"], read["counts"]["worse"]) == (3, ["released"], 2)
    assert [row["verdict"] for row in read["rows"]] == [each.verdict for each in found]
    assert read["rows"][0]["change"] == found[0].change
    assert read["rows"][3]["change"] is None
    infinite = json.loads(as_json([found[0]._replace(change=math.inf)], rules, "run", []))
    assert infinite["rows"][0]["change"] == "inf"


@pytest.fixture(scope="module")
def pytests_own(tmp_path_factory: pytest.TempPathFactory) -> ElementTree.Element:
    """A JUnit report that every reader knows: pytest's, with a test of each outcome."""
    folder = tmp_path_factory.mktemp("pytests")
    (folder / "test_each.py").write_text(
        "import pytest\n"
        "@pytest.fixture\ndef broken(): raise ValueError\n"
        "def test_pass(): print('told')\ndef test_fail(): assert 0\n"
        "def test_error(broken): pass\ndef test_skip(): pytest.skip('why')\n"
    )
    (folder / "empty.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "empty.ini", "--rootdir", "."]
    options = ["-o", "junit_logging=all", "--junitxml=junit.xml", "test_each.py"]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 1, done.stdout
    return ElementTree.parse(folder / "junit.xml").getroot()


def _shape(root: ElementTree.Element) -> dict[tuple[str, ...], set[str]]:
    """The attributes of each element, by the path of tags that leads to it."""
    found: dict[tuple[str, ...], set[str]] = {}

    def walk(element: ElementTree.Element, path: tuple[str, ...]) -> None:
        path = (*path, element.tag)
        found.setdefault(path, set()).update(element.attrib)
        for child in element:
            walk(child, path)

    walk(root, ())
    return found


def test_the_junit_report_has_the_elements_and_attributes_of_pytests_own(pytests_own):
    known = _shape(pytests_own)
    # Totals on the root: pytest leaves them out, Jenkins' schema and GitLab know them.
    known["testsuites",] |= {"tests", "failures", "errors", "skipped", "time"}
    for path, attributes in _shape(ElementTree.fromstring(as_junit(*mixed(), "run", ["released"]))).items():
        assert path in known and attributes <= known[path], path
    assert {"name", "tests", "failures", "errors", "skipped", "time"} <= known["testsuites", "testsuite"]
    assert {"classname", "name", "time"} <= known["testsuites", "testsuite", "testcase"]


def test_the_junit_report_counts_failures_errors_and_skipped_rows():
    found, rules = mixed()
    root = ElementTree.fromstring(as_junit(found, rules, "run", ["released"]))
    (suite,) = root
    for element in (root, suite):
        told = {name: element.attrib[name] for name in ("tests", "failures", "errors", "skipped")}
        assert told == {"tests": "7", "failures": "3", "errors": "1", "skipped": "1"}
    messages = [case[0].attrib["message"] for case in suite if case[0].tag == "failure"]
    assert messages[0] == "alibi, nonoverlap at 512: worse: +0.52 %, allowed 0.25 %"
    assert messages[2].startswith("rope, nonoverlap at 8192: missing")
    names = [(case.attrib["classname"], case.attrib["name"]) for case in suite]
    assert len(set(names)) == len(names)
    assert ("python-stdlib.<new> & \ufffd 'quoted'", "nonoverlap at 512") in names


def test_two_rows_of_one_name_stay_two_test_cases():
    found, rules = mixed()
    root = ElementTree.fromstring(as_junit([found[0], found[0]], rules, "run", []))
    assert [case.attrib["name"] for case in root[0]] == ["nonoverlap at 512", "nonoverlap at 512 (2)"]


def test_a_row_that_would_sleep_through_half_a_percent_is_named():
    short = {KEY: text(4, 1)}
    found = verdicts(run_of(short), run_of(short))
    told = notes(Comparison("run", ("released",), Rules(), found))
    assert any("alibi, nonoverlap at 512: a change of 0.50 % may go unseen there" in each for each in told)
    enough = verdicts(run_of({KEY: text(40)}), run_of({KEY: text(40)}))
    assert not any("unseen" in each for each in notes(Comparison("run", ("released",), Rules(), enough)))
