"""The table as a whole: every row is complete and has an image that shows it, in the words of vhd-util."""

from __future__ import annotations

import os
import re
import shutil
import string
import subprocess

import pytest

from corpus import CASES, Case
from images import CONTEXT, parent_disk, seen
from matrix import agreement, mutants
from smfix.formats.vhd.problems.registry import PROBLEMS, diagnose, row, verdict
from smfix.values import Diagnosis, Disposition, Severity, Verdict

CODES = [problem.code for problem in PROBLEMS]


def diagnosed(case: Case) -> Diagnosis:
    return diagnose(seen(case.raw, growable=case.growable), case.context)


# --------------------------------------------------------------------------- the rows


def test_a_code_stands_for_one_row():
    assert len(set(CODES)) == len(CODES)
    assert all(re.fullmatch(r"VHD[123459]\d\d", code) for code in CODES)


@pytest.mark.parametrize("problem", PROBLEMS, ids=CODES)
def test_a_row_says_everything_that_is_asked_of_it(problem):
    for text in (problem.title, problem.message, problem.why, problem.source):
        assert text.strip() == text
        assert text
        assert "\n" not in text
    assert problem.title[0].islower() or problem.title.startswith(("BAT", "SM"))
    assert problem.message.endswith((".", "}"))
    assert problem.why.endswith(".")
    assert problem.means.endswith(".")
    if problem.fix is None:
        assert problem.disposition is Disposition.REPORT
        assert problem.advice.endswith((".", "."))
        assert not problem.done + problem.todo
    else:
        assert problem.done
        assert problem.todo
        assert problem.turn < 50
    if problem.lossy:
        assert problem.disposition is Disposition.CONFIRM
    assert problem.disposition not in problem.also
    if len(problem.dispositions) > 1:
        assert problem.fix is not None
        assert Disposition.REPORT in problem.dispositions


def test_no_finding_says_another_disposition_than_its_row_lists():
    listed = {problem.code: set(problem.dispositions) for problem in PROBLEMS}
    findings = [one for make in CASES.values() for one in diagnosed(make()).findings]
    for number in range(0, mutants.COUNT, 32):
        findings += agreement.seen(mutants.mutant(number), "/sr")[1]
    assert {(one.code, one.disposition) for one in findings if one.disposition not in listed[one.code]} == set()


@pytest.mark.parametrize("code", CODES)
def test_a_row_is_found_by_its_code_in_any_case(code):
    assert row(code) is row(code.lower())
    assert row(code).code == code


def test_there_is_no_other_row():
    assert row("VHD999") is None
    assert row("") is None


# --------------------------------------------------------------------------- the corpus


@pytest.mark.parametrize("code", CODES)
def test_every_row_has_an_image_that_shows_it(code):
    assert code in CASES, f"{code} needs a recipe in tests/support/corpus.py"
    case = CASES[code]()
    assert code in case.codes
    assert tuple(finding.code for finding in diagnosed(case).findings) == case.codes


@pytest.mark.parametrize("code", CASES)
def test_a_case_belongs_to_a_row(code):
    assert code in CODES


@pytest.mark.parametrize("code", CASES)
def test_findings_are_whole_sentences_made_of_their_facts(code):
    for finding in diagnosed(CASES[code]()).findings:
        problem = row(finding.code)
        assert problem is not None
        assert "{" not in finding.message
        assert finding.message
        assert finding.message[-1] in ".)"
        assert ". ." not in finding.message
        assert finding.message == finding.message.strip()
        named = {name for _, name, _, _ in string.Formatter().parse(problem.message) if name}
        assert named <= finding.facts.keys()
        assert "vhd_util" in finding.facts
        assert not finding.lossy or finding.disposition is not Disposition.SAFE
        if finding.disposition is not Disposition.REPORT:
            assert problem.fix is not None


@pytest.mark.parametrize("code", CASES)
def test_the_verdict_is_that_of_the_worst_finding(code):
    found = diagnosed(CASES[code]())
    errors = [finding for finding in found.findings if finding.severity is Severity.ERROR]
    assert (found.verdict is Verdict.INVALID) == bool(errors)


def test_what_is_no_vhd_has_no_findings():
    assert diagnose(seen(b"no disk" * 1000), CONTEXT) == Diagnosis(Verdict.NOT_A_VHD, ())


def test_an_image_without_findings_is_valid_only_with_its_footer():
    case = CASES["VHD101"]()
    assert verdict((), seen(case.raw)) is Verdict.INVALID
    assert verdict((), seen(case.raw + case.raw[:512])) is Verdict.VALID


# --------------------------------------------------------------------------- against the real tool


@pytest.fixture(scope="session")
def no_naps(tmp_path_factory) -> dict[str, str]:
    """An environment in which vhd-util does not sleep between its ten tries to open a bad header."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("cc is not installed")
    folder = tmp_path_factory.mktemp("nosleep")
    (folder / "nosleep.c").write_text("unsigned sleep(unsigned s) { return 0; }\n")
    library = folder / "nosleep.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "nosleep.c"], check=True, capture_output=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


@pytest.mark.vhdutil
@pytest.mark.parametrize("code", CASES)
def test_vhd_util_check_says_the_same(tmp_path, vhd_util, no_naps, code):
    case = CASES[code]()
    (tmp_path / "disk.vhd").write_bytes(case.raw)
    if case.parent != b"":
        (tmp_path / "parent.vhd").write_bytes(case.parent or parent_disk())
    done = subprocess.run(
        [vhd_util, "check", "-n", "disk.vhd"], cwd=tmp_path, env=no_naps, capture_output=True, check=False
    )
    # Of a fixed disk that it passes, the tool says nothing at all.
    first = [*done.stdout.decode(errors="replace").splitlines(), "disk.vhd is valid"][0]
    found = diagnosed(case)
    if case.agrees:
        assert (done.returncode != 0) == (found.verdict is Verdict.INVALID), first
    lines = [finding.facts["vhd_util"] for finding in found.findings if finding.facts["vhd_util"]]
    if case.line:
        assert first == (lines[0] if lines else "disk.vhd is valid")
