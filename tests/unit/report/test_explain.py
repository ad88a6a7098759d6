from __future__ import annotations

from dataclasses import replace

import pytest

from schemas import valid
from smfix.errors import UsageError
from smfix.formats.vhd.problems.registry import PROBLEMS
from smfix.report import explain
from smfix.report.layout import WIDTH


def test_every_row_is_listed_by_code():
    rows = explain.rows()
    assert [row.code for row in rows] == sorted(problem.code for problem in PROBLEMS)
    listing = explain.listing(rows)
    assert listing.splitlines()[0] == "VHD101  SAFE, CONFIRM, REPORT footer lost, backup footer sound"
    assert "VHD301  SAFE, CONFIRM, REPORT a block reaches past" in listing
    assert "VHD402  REPORT                batmap and sector bitmap disagree (warning)" in listing
    assert max(map(len, listing.splitlines())) <= 80
    assert listing.endswith(f"{len(PROBLEMS)} findings. More: smfix explain CODE")


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.code)
def test_each_row_explains_itself(problem):
    (row,) = explain.rows([problem.code.lower()])
    shown = explain.full(row)
    assert shown.startswith(f"{problem.code}  {problem.title}\n")
    assert "{" not in shown
    assert max(map(len, shown.splitlines())) <= WIDTH + 20
    assert ("   repair " in shown) is bool(problem.done)


def test_consent_is_told():
    assert "--confirm VHD108" in explain.full(explain.rows(["VHD108"])[0])
    assert "data is lost" in explain.full(explain.rows(["VHD108"])[0])
    assert "SAFE: repaired with --yes" in explain.full(explain.rows(["VHD101"])[0])
    assert "REPORT: smfix has no repair" in explain.full(explain.rows(["VHD501"])[0])
    assert "It depends on the evidence." in explain.full(explain.rows(["VHD303"])[0])


def test_the_words_that_a_row_uses_are_explained():
    shown = explain.full(explain.rows(["VHD301"])[0])
    assert "   words    BAT: the block allocation table" in shown
    assert "coalesce: merging a disk into its parent" in shown
    assert "XAPI" not in shown


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.code)
def test_one_voice(problem):
    """Whole sentences, the field's words in the field's spelling, nobody is blamed."""
    for text in (problem.means, problem.why, problem.advice):
        assert not text or text.endswith("."), text
        assert not text or text[0].isupper() or text.startswith(("tapdisk", "qemu", "512", "`")), text
    prose = " ".join(explain.row_text(problem))
    for word in ("corrupt", "user error", "simply", "just ", "please", "bad ", "abort", "fail-safe"):
        assert word not in prose.lower(), word
    for wrong in ("Batmap", "bat ", "Footer copy", "header copy", "TapDisk", "xapi "):
        assert wrong not in prose, wrong


def test_a_row_without_advice_gives_none():
    (row,) = explain.rows(["VHD101"])
    assert "   advice " not in explain.full(replace(row, advice=""))


def test_an_unknown_code_is_a_usage_error():
    with pytest.raises(UsageError, match="'VHD999'"):
        explain.rows(["VHD999"])


def test_the_document():
    document = valid(explain.document(explain.rows()))
    assert len(document["findings"]) == len(PROBLEMS)


def test_several_codes_are_each_told_once_in_their_order():
    assert [row.code for row in explain.rows(["VHD103", "vhd101", "VHD103"])] == ["VHD103", "VHD101"]
