"""Which journals may go: never what is open, unreadable, or on the way back from a later repair."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from smfix.model import Backing, Target
from smfix.repair.journal import Mark
from smfix.repair.keeping import Kept, Stays, stays
from test_repair_journal import PLAIN

OLD = replace(PLAIN, rdev=None)
YOUNG = replace(OLD, id="20261122-221904-aaaaaa", created=OLD.created + timedelta(days=100))
LIMIT = OLD.created + timedelta(days=50)
ELSEWHERE = replace(OLD, inode=OLD.inode + 1, target=OLD.target._replace(path="/another"))


def chosen(*journals):
    return stays([one if isinstance(one, Kept) else Kept(*one) for one in journals], LIMIT)


def test_age_decides():
    assert chosen() == []
    assert chosen((Mark.VERIFIED, OLD)) == [None]
    assert chosen((Mark.ROLLED_BACK, OLD), (Mark.UNDONE, OLD)) == [None, None]
    assert stays([Kept(Mark.VERIFIED, OLD)], OLD.created) == [Stays.YOUNG]
    assert stays([Kept(Mark.VERIFIED, OLD)], OLD.created + timedelta(microseconds=1)) == [None]


def test_what_is_open_stays():
    assert chosen((Mark.UNFINISHED, OLD), (Mark.UNDOING, ELSEWHERE)) == [Stays.OPEN, Stays.OPEN]


def test_what_a_later_undo_leads_back_to_stays():
    assert chosen((Mark.VERIFIED, OLD), (Mark.VERIFIED, YOUNG)) == [Stays.NEEDED, Stays.YOUNG]
    assert chosen((Mark.VERIFIED, OLD), (Mark.VERIFIED, OLD), (Mark.UNFINISHED, OLD)) == [
        Stays.NEEDED,
        Stays.NEEDED,
        Stays.OPEN,
    ]
    assert chosen((Mark.VERIFIED, ELSEWHERE), (Mark.VERIFIED, YOUNG)) == [None, Stays.YOUNG]


def test_the_order_of_journals_says_nothing():
    assert chosen((Mark.VERIFIED, YOUNG), (Mark.VERIFIED, OLD)) == [Stays.YOUNG, Stays.NEEDED]
    renamed = replace(OLD, target=OLD.target._replace(path="/renamed"))
    again = replace(renamed, inode=OLD.inode + 1)  # it has a name in common with `renamed` only
    both = [(Mark.VERIFIED, again), (Mark.VERIFIED, renamed), (Mark.VERIFIED, YOUNG)]
    assert chosen(*both) == [Stays.NEEDED, Stays.NEEDED, Stays.YOUNG]
    assert chosen(*both[::-1]) == [Stays.YOUNG, Stays.NEEDED, Stays.NEEDED]


def test_a_repair_after_an_interrupted_one_stays_with_it():
    assert chosen((Mark.UNFINISHED, OLD), (Mark.VERIFIED, OLD)) == [Stays.OPEN, Stays.NEEDED]


def test_what_was_put_back_needs_nothing_and_is_needed_by_nobody():
    assert chosen((Mark.VERIFIED, OLD), (Mark.UNDONE, YOUNG)) == [None, Stays.YOUNG]
    assert chosen((Mark.UNDONE, OLD), (Mark.VERIFIED, YOUNG)) == [None, Stays.YOUNG]


def test_one_name_in_common_is_enough():
    moved = replace(YOUNG, device=YOUNG.device + 1, inode=YOUNG.inode + 1)  # the same path
    assert chosen((Mark.VERIFIED, OLD), (Mark.VERIFIED, moved)) == [Stays.NEEDED, Stays.YOUNG]
    renamed = replace(YOUNG, target=YOUNG.target._replace(path="/renamed"))  # the same inode
    assert chosen((Mark.VERIFIED, OLD), (Mark.VERIFIED, renamed)) == [Stays.NEEDED, Stays.YOUNG]


def block(journal, path, rdev, vdi, sr="s"):
    target = Target(path, Backing.BLOCK, vdi, sr)
    return replace(journal, target=target, rdev=rdev, new_size=journal.old_size, steps=())


def test_devices_and_volumes(monkeypatch):
    monkeypatch.setattr("smfix.repair.journal.Journal._check_steps", lambda journal: None)
    assert chosen((Mark.VERIFIED, block(OLD, "/dev/a", 7, None)), (Mark.VERIFIED, block(YOUNG, "/dev/b", 7, None))) == [
        Stays.NEEDED,
        Stays.YOUNG,
    ]
    volumes = (Mark.VERIFIED, block(OLD, "/dev/a", 7, "v")), (Mark.VERIFIED, block(YOUNG, "/dev/b", 8, "v"))
    assert chosen(*volumes) == [Stays.NEEDED, Stays.YOUNG]
    others = (Mark.VERIFIED, block(OLD, "/dev/a", 7, "v")), (Mark.VERIFIED, block(YOUNG, "/dev/b", 7, "w"))
    assert chosen(*others) == [None, Stays.YOUNG]


def test_what_cannot_be_read_stays():
    assert chosen((Mark.VERIFIED, OLD), Kept(Mark.VERIFIED, None)) == [None, Stays.UNREADABLE]


def test_a_later_smfix_may_need_every_repair():
    newer = Kept(Mark.VERIFIED, None, newer=True)
    stay = [Stays.NEEDED, Stays.UNREADABLE, Stays.NEEDED]
    assert chosen((Mark.VERIFIED, OLD), newer, (Mark.VERIFIED, ELSEWHERE)) == stay
    assert chosen((Mark.UNDONE, OLD), newer) == [None, Stays.UNREADABLE]
    assert chosen((Mark.VERIFIED, OLD), Kept(Mark.UNDONE, None, newer=True)) == [None, Stays.UNREADABLE]


def test_what_was_superseded_is_never_put_back_and_what_is_applied_may_be():
    assert Mark.SUPERSEDED.is_over
    assert not Mark.APPLIED.is_over
    assert chosen((Mark.SUPERSEDED, OLD), (Mark.VERIFIED, YOUNG)) == [None, Stays.YOUNG]
    assert chosen((Mark.APPLIED, OLD), (Mark.VERIFIED, YOUNG)) == [Stays.NEEDED, Stays.YOUNG]
