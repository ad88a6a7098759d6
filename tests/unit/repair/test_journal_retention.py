"""Which journals may go: never what is open, unreadable, or on the way back from a later repair."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from test_journal import PLAIN

from smfix.repair.journal import JournalState
from smfix.repair.journal_retention import Kept, RetentionReason, retention_reasons
from smfix.values import Backing, Target

OLD = replace(PLAIN, rdev=None)
YOUNG = replace(OLD, id="20261122-221904-aaaaaa", created=OLD.created + timedelta(days=100))
LIMIT = OLD.created + timedelta(days=50)
ELSEWHERE = replace(OLD, inode=OLD.inode + 1, target=OLD.target._replace(path="/another"))


def chosen(*journals):
    return retention_reasons([one if isinstance(one, Kept) else Kept(*one) for one in journals], LIMIT)


def test_age_decides():
    assert chosen() == []
    assert chosen((JournalState.VERIFIED, OLD)) == [None]
    assert chosen((JournalState.ROLLED_BACK, OLD), (JournalState.UNDONE, OLD)) == [None, None]
    assert retention_reasons([Kept(JournalState.VERIFIED, OLD)], OLD.created) == [RetentionReason.YOUNG]
    assert retention_reasons([Kept(JournalState.VERIFIED, OLD)], OLD.created + timedelta(microseconds=1)) == [None]


def test_what_is_open_stays():
    assert chosen((JournalState.UNFINISHED, OLD), (JournalState.UNDOING, ELSEWHERE)) == [
        RetentionReason.OPEN,
        RetentionReason.OPEN,
    ]


def test_what_a_later_undo_leads_back_to_stays():
    assert chosen((JournalState.VERIFIED, OLD), (JournalState.VERIFIED, YOUNG)) == [
        RetentionReason.NEEDED,
        RetentionReason.YOUNG,
    ]
    assert chosen((JournalState.VERIFIED, OLD), (JournalState.VERIFIED, OLD), (JournalState.UNFINISHED, OLD)) == [
        RetentionReason.NEEDED,
        RetentionReason.NEEDED,
        RetentionReason.OPEN,
    ]
    assert chosen((JournalState.VERIFIED, ELSEWHERE), (JournalState.VERIFIED, YOUNG)) == [None, RetentionReason.YOUNG]


def test_the_order_of_journals_says_nothing():
    assert chosen((JournalState.VERIFIED, YOUNG), (JournalState.VERIFIED, OLD)) == [
        RetentionReason.YOUNG,
        RetentionReason.NEEDED,
    ]
    renamed = replace(OLD, target=OLD.target._replace(path="/renamed"))
    again = replace(renamed, inode=OLD.inode + 1)  # it has a name in common with `renamed` only
    both = [(JournalState.VERIFIED, again), (JournalState.VERIFIED, renamed), (JournalState.VERIFIED, YOUNG)]
    assert chosen(*both) == [RetentionReason.NEEDED, RetentionReason.NEEDED, RetentionReason.YOUNG]
    assert chosen(*both[::-1]) == [RetentionReason.YOUNG, RetentionReason.NEEDED, RetentionReason.NEEDED]


def test_a_repair_after_an_interrupted_one_stays_with_it():
    assert chosen((JournalState.UNFINISHED, OLD), (JournalState.VERIFIED, OLD)) == [
        RetentionReason.OPEN,
        RetentionReason.NEEDED,
    ]


def test_what_was_put_back_needs_nothing_and_is_needed_by_nobody():
    assert chosen((JournalState.VERIFIED, OLD), (JournalState.UNDONE, YOUNG)) == [None, RetentionReason.YOUNG]
    assert chosen((JournalState.UNDONE, OLD), (JournalState.VERIFIED, YOUNG)) == [None, RetentionReason.YOUNG]


def test_one_name_in_common_is_enough():
    moved = replace(YOUNG, device=YOUNG.device + 1, inode=YOUNG.inode + 1)  # the same path
    assert chosen((JournalState.VERIFIED, OLD), (JournalState.VERIFIED, moved)) == [
        RetentionReason.NEEDED,
        RetentionReason.YOUNG,
    ]
    renamed = replace(YOUNG, target=YOUNG.target._replace(path="/renamed"))  # the same inode
    assert chosen((JournalState.VERIFIED, OLD), (JournalState.VERIFIED, renamed)) == [
        RetentionReason.NEEDED,
        RetentionReason.YOUNG,
    ]


def block(journal, path, rdev, vdi, sr="s"):
    target = Target(path, Backing.BLOCK, vdi, sr)
    return replace(journal, target=target, rdev=rdev, new_size=journal.old_size, steps=())


def test_devices_and_volumes(monkeypatch):
    monkeypatch.setattr("smfix.repair.journal.Journal._check_steps", lambda journal: None)
    assert chosen(
        (JournalState.VERIFIED, block(OLD, "/dev/a", 7, None)), (JournalState.VERIFIED, block(YOUNG, "/dev/b", 7, None))
    ) == [
        RetentionReason.NEEDED,
        RetentionReason.YOUNG,
    ]
    volumes = (
        (JournalState.VERIFIED, block(OLD, "/dev/a", 7, "v")),
        (JournalState.VERIFIED, block(YOUNG, "/dev/b", 8, "v")),
    )
    assert chosen(*volumes) == [RetentionReason.NEEDED, RetentionReason.YOUNG]
    others = (
        (JournalState.VERIFIED, block(OLD, "/dev/a", 7, "v")),
        (JournalState.VERIFIED, block(YOUNG, "/dev/b", 7, "w")),
    )
    assert chosen(*others) == [None, RetentionReason.YOUNG]


def test_what_cannot_be_read_stays():
    assert chosen((JournalState.VERIFIED, OLD), Kept(JournalState.VERIFIED, None)) == [None, RetentionReason.UNREADABLE]


def test_a_later_smfix_may_need_every_repair():
    newer = Kept(JournalState.VERIFIED, None, newer=True)
    stay = [RetentionReason.NEEDED, RetentionReason.UNREADABLE, RetentionReason.NEEDED]
    assert chosen((JournalState.VERIFIED, OLD), newer, (JournalState.VERIFIED, ELSEWHERE)) == stay
    assert chosen((JournalState.UNDONE, OLD), newer) == [None, RetentionReason.UNREADABLE]
    assert chosen((JournalState.VERIFIED, OLD), Kept(JournalState.UNDONE, None, newer=True)) == [
        None,
        RetentionReason.UNREADABLE,
    ]


def test_what_was_superseded_is_never_put_back_and_what_is_applied_may_be():
    assert JournalState.SUPERSEDED.is_over
    assert not JournalState.APPLIED.is_over
    assert chosen((JournalState.SUPERSEDED, OLD), (JournalState.VERIFIED, YOUNG)) == [None, RetentionReason.YOUNG]
    assert chosen((JournalState.APPLIED, OLD), (JournalState.VERIFIED, YOUNG)) == [
        RetentionReason.NEEDED,
        RetentionReason.YOUNG,
    ]
