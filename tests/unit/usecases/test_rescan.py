"""rescan: one scan for each SR of which a disk was written, and what is told of it."""

from __future__ import annotations

import pytest

from smfix.errors import Unreadable
from smfix.usecases.rescan import rescan
from smfix.usecases.run_options import RunOptions
from smfix.values import Outcome, Status
from smfix.xapi.records import PoolDisk, PoolSr
from steps import lines

A, B = "7a142a29-9556-ee47-1e04-1a8517813369", "8a142a29-9556-ee47-1e04-1a8517813369"


class Pool:
    def __init__(self, *, gc: bool = True, coalesce: bool = True) -> None:
        self.switches = (gc, coalesce)
        self.scanned: list[str] = []
        self.trouble: dict[str, BaseException] = {}

    def sr(self, uuid: str, age: float | None = None) -> PoolSr:
        assert age == 0
        if error := self.trouble.get("after" if self.scanned else "before"):
            raise error
        disks = {} if self.scanned else {"b": PoolDisk("b", "", False), "c": PoolDisk("c", "", True, "b")}
        return PoolSr(uuid, "gold", True, *self.switches, disks=disks)

    def scan(self, uuid: str) -> None:
        if error := self.trouble.get("scan"):
            raise error
        self.scanned.append(uuid)


def outcome(status: Status) -> Outcome:
    return Outcome(status, "")


@pytest.mark.parametrize("status", list(Status))
def test_who_is_scanned(status):
    pool = Pool()
    told = rescan([(A, outcome(status))], RunOptions(pool=pool))
    written = status in (Status.REPAIRED, Status.PARTLY_REPAIRED, Status.ROLLED_BACK)
    assert bool(told) is written
    assert pool.scanned == [A] * written


def test_each_sr_once():
    pool = Pool()
    done = outcome(Status.REPAIRED)
    told = rescan([(A, done), (B, done), (A, done), (None, done), (B, None)], RunOptions(pool=pool))
    assert pool.scanned == [A, B] == [one.sr for one in told]


def test_nothing_without_xapi_or_against_the_operators_will():
    done = [(A, outcome(Status.REPAIRED))]
    pool = Pool()
    assert rescan(done, RunOptions()) == ()
    assert rescan(done, RunOptions(pool=pool, rescan=False)) == ()
    assert pool.scanned == []


def test_before_and_after():
    (told,) = rescan([(A, outcome(Status.REPAIRED))], RunOptions(pool=Pool()))
    assert (told.name, told.done, told.unhealthy_before, told.unhealthy_after, told.next) == ("gold", True, 1, 0, ())


def test_switches():
    (told,) = rescan([(A, outcome(Status.REPAIRED))], RunOptions(pool=Pool(coalesce=False)))
    assert "coalesce=false: nothing is coalesced" in told.message
    assert (told.gc, told.coalesce) == (True, False)


@pytest.mark.parametrize(
    ("when", "done", "before", "after"),
    [("before", False, None, None), ("scan", False, 1, None), ("after", True, 1, None)],
)
def test_no_answer(when, done, before, after):
    pool = Pool()
    pool.trouble[when] = Unreadable("XAPI has gone")
    (told,) = rescan([(A, outcome(Status.REPAIRED))], RunOptions(pool=pool))
    assert (told.done, told.unhealthy_before, told.unhealthy_after) == (done, before, after)
    assert lines(told.next) == (() if done else (f"xe sr-scan uuid={A}",))
    assert ("XAPI has gone" in told.message) is not done


def test_an_interrupt_ends_the_waiting_and_not_the_report():
    pool = Pool()
    pool.trouble["scan"] = KeyboardInterrupt()
    done = outcome(Status.REPAIRED)
    told = rescan([(A, done), (B, done)], RunOptions(pool=pool))
    assert [(one.sr, one.message) for one in told] == [(uuid, "not rescanned: interrupted") for uuid in (A, B)]
    assert lines(told[1].next) == (f"xe sr-scan uuid={B}",)
