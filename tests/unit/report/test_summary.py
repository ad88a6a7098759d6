from __future__ import annotations

import pytest

from report_values import LOST_FOOTER, SR, plan
from smfix.report.summary import Left, not_asked, overview, short, undo_line, why_left
from smfix.values import NextStep, Outcome, Reason, Status, StepKind
from steps import as_it_is


def left(card, name, status=Status.REFUSED, reason=None, *steps, **more):
    named = tuple(as_it_is(step) if isinstance(step, str) else step for step in steps)
    return Left(card, name, Outcome(status, "said", reason, next=named, **more))


def repair_of(path):
    return NextStep(StepKind.REPAIR, (path,), ("--yes", "--journal-dir", "/j"))


def check_of(path):
    return NextStep(StepKind.CHECK, (path,))


def explain(code):
    return NextStep(StepKind.EXPLAIN, (code,))


def test_disks_with_the_same_reason_stand_together():
    shown = overview(
        [
            left(2, "aaaaaaaa", Status.REFUSED, Reason.IN_USE),
            left(3, "bbbbbbbb", Status.NOT_FOUND, None, "xe vdi-list uuid=b"),
            left(4, "cccccccc", Status.NOT_FOUND, None, "xe vdi-list uuid=c"),
            left(9, "dddddddd", Status.NOT_FOUND, None, "xe vdi-list uuid=d", "more"),
        ]
    )
    assert shown == (
        "What is left, and what to type next:\n"
        "   in use: shut its VM down or detach it, then run this again: aaaaaaaa (card 2)\n"
        "   not found on this host: bbbbbbbb, cccccccc, dddddddd (cards 3-4, 9)\n"
        "      xe vdi-list uuid=b\n"
        "      ... and so on: each card has its own"
    )


def test_many_are_counted():
    shown = overview([left(n, f"disk{n:04}", Status.NOT_FOUND, None, f"do {n}") for n in range(1, 13)])
    assert "disk0006 and 6 more (cards 1-12)" in shown.replace("\n   ", " ")
    assert "do 1\n" in shown
    assert "do 2" not in shown
    assert shown.endswith("... and so on: each card has its own")


def test_one_command_does_it_all():
    shown = overview(
        [
            left(1, "a", Status.WOULD_REPAIR, None, repair_of("/a b"), "other"),
            left(2, "b", Status.WOULD_REPAIR, None, repair_of("/b")),
            left(3, "c", Status.AMBIGUOUS, None, check_of("/c1"), check_of("/c2")),
            left(4, "d", Status.REFUSED, Reason.NO_FIX, explain("VHD303"), explain("VHD305"), "xe x"),
        ]
    )
    assert [line.strip() for line in shown.splitlines() if line.startswith("      ")] == [
        "smfix repair '/a b' /b --yes --journal-dir /j",
        "smfix check /c1 /c2",
        "smfix explain VHD303 VHD305",
    ]


def test_what_only_bash_reads_stays_a_command_of_its_own():
    steps = (repair_of("/a\x1b"), repair_of("/b"))
    shown = overview([left(n, "a", Status.WOULD_REPAIR, None, step) for n, step in enumerate(steps)])
    assert shown.endswith("smfix repair $'/a\\x1b' --yes --journal-dir /j\n      ... and so on: each card has its own")


def test_disks_whose_sr_is_elsewhere_stand_together_by_sr():
    ask = "xe pbd-list sr-uuid={} params=host-uuid,currently-attached"
    other = SR.replace("7", "8")
    shown = overview(
        [
            left(n, "a", Status.NOT_FOUND, None, NextStep(StepKind.FIND_SR, (sr,)))
            for n, sr in enumerate((SR, other, SR), 1)
        ]
    )
    assert shown.splitlines()[1:] == [
        f"   its SR {SR} is not attached here: a, a (cards",
        "   1, 3)",
        f"      {ask.format(SR)}",
        f"   its SR {other} is not attached here: a (card 2)",
        f"      {ask.format(other)}",
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/sr/1d994938-058e-102f-80dc-001ec95cb0b6.vhd", "1d994938"),
        ("1d994938-058e-102f-80dc-001ec95cb0b6", "1d994938"),
        ("/sr/short.vhd", "short.vhd"),
        ("1d994938058e", "1d994938058e"),
    ],
)
def test_only_a_uuid_is_cut(name, said):
    assert short(name) == said


def test_a_disk_that_is_not_asked_about_has_a_line():
    consent = Outcome(Status.REFUSED, "", Reason.NEEDS_CONFIRM, plan=plan(needs=("VHD301", "VHD108")))
    assert not_asked(5, "/sr/cc.vhd", consent) == "   Disk 5: cc.vhd not asked: needs --confirm VHD301 --confirm VHD108"
    assert not_asked(5, "/sr/cc.vhd", Outcome(Status.VALID, "")) == "   Disk 5: cc.vhd not asked: valid"
    busy = not_asked(5, "/sr/cc.vhd", Outcome(Status.REFUSED, "", Reason.IN_USE))
    assert busy.startswith("   Disk 5: cc.vhd not asked: in use: shut its VM down")
    assert max(map(len, busy.splitlines())) <= 80


def test_what_a_name_holds_cannot_act():
    assert "\x1b" not in overview([left(1, "\x1b[2J", Status.FAILED, None, "echo \x1b[2J")])


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("reason", [None, *Reason])
def test_every_standing_has_words(status, reason):
    words = why_left(Outcome(status, "said", reason))
    assert words
    assert "Reason" not in words


def test_codes_are_named_where_they_are_the_reason():
    errors = (LOST_FOOTER, LOST_FOOTER)
    assert why_left(Outcome(Status.REFUSED, "", Reason.NO_FIX, remaining=errors)) == "no repair for it (VHD101)"
    partly = Outcome(Status.PARTLY_REPAIRED, "", remaining=errors)
    assert why_left(partly) == "repaired in part (VHD101)"


def test_the_codes_that_want_a_consent_are_named():
    asked = Outcome(Status.REFUSED, "", Reason.NEEDS_CONFIRM, plan=plan(needs=("VHD105", "VHD201")))
    assert why_left(asked) == "needs your consent to VHD105, VHD201"


def repaired(*ids, more=("--journal-dir", "/j")):
    return [Outcome(Status.REPAIRED, "said", journal=one, undo=NextStep(StepKind.UNDO, (one,), more)) for one in ids]


def test_one_line_undoes_the_whole_run():
    others = [Outcome(Status.REFUSED, "said", Reason.IN_USE), Outcome(Status.REPAIRED, "said")]
    assert undo_line([*repaired("20261127-1", "20261127-2"), *others, *repaired("20261127-3")]) == (
        "To undo all 3 repairs of this run (it asks before each):\n"
        '   for id in 20261127-3 20261127-2 20261127-1; do smfix undo "$id" --journal-dir /j; done'
    )


def test_no_line_where_each_card_says_it():
    assert undo_line([]) == ""
    assert undo_line(repaired("20261127-1")) == ""
    lists = "repairs of this run: `smfix journal` lists them."
    assert undo_line([*repaired("20261127-1"), *repaired("20261127-2", more=())]) == f"To undo all 2 {lists}"
    assert undo_line(repaired(*map(str, range(51)))) == f"To undo all 51 {lists}"
