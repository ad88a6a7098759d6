"""Reports and proofs find their tracker, and a restart changes nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from smfix.follow import tracker
from smfix.follow.incident_state import Stage, confirm
from smfix.follow.state import FollowerState
from smfix.follow.state_format import decode, encode
from smfix.follow.tracker import Tracker, incident_of
from smfix.smlog.correlate.failures import Failure, Quote
from smfix.smlog.parse.disk_names import image_path
from smfix.smlog.parse.timestamps import Stamp
from smfix.smlog.rules.resolutions import Proof, Renamed, Strength
from smfix.smlog.rules.tool_output import Weight
from smfix.values import State

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
VDI = "1d994938-058e-102f-80dc-001ec95cb0b6"
SR = "7a142a29-9556-ee47-1e04-1a8517813369"
VOICE = ("host", 0)


def report(place=1, pid=1, vdi=VDI, sr=SR, path=None, **options):
    path = f"/run/sr-mount/{sr}/{vdi}.vhd" if path is None and sr else path
    evidence = (Quote(0, place, f"line {place}"),)
    stamp, kinds = Stamp(2026, 11, 22, 1, 0, 0), ("footer-invalid",)
    made = Failure(place, 0, stamp, VOICE, pid, vdi, sr, path, kinds, Weight.DAMAGE, evidence)
    return made._replace(**options)


def proof(place=50, strength=Strength.CHECKED, vdi=VDI):
    return Proof(place, VOICE, vdi, SR, strength, (Quote(0, place, "pread SUCCESS"),))


def never(_event):
    return None


class Load:
    """A caseload that is restored from its text before every event."""

    def __init__(self, *, restored):
        self.state = FollowerState("/log", files=["/log"])
        self.load = Tracker(self.state)
        self.restored = restored

    def take(self, event):
        if self.restored:
            self.state = decode(encode(self.state))
            self.load = Tracker(self.state)
        return self.load.take(event, NOW, never)

    def all(self):
        return list(self.state.incidents.values())


def test_one_disk_is_one_case_with_or_without_restarts():
    states = []
    for restored in (False, True):
        load = Load(restored=restored)
        load.take(report(1, pid=1))
        load.take(report(2, pid=1, vdi=VDI[:8], sr=None, kinds=("coalesce-corrupted",)))
        load.take(report(9, pid=2))
        load.take(proof(50))
        load.take(report(60, pid=3, vdi=VDI[:8], sr=None))
        load.take(report(70, pid=4, vdi="c5c0cdc3-c2c4-4c43-a5a2-845f36b866a4"))
        states.append([incident_of(case, load.state.files) for case in load.all()])
    assert states[0] == states[1]
    first, second = states[1]
    assert (first.count, first.state, first.kinds) == (3, State.OPEN, ("coalesce-corrupted", "footer-invalid"))
    assert second.vdi.text.startswith("c5c0cdc3")


def test_the_first_report_begins_a_life_and_a_new_run_wakes_it():
    load = Load(restored=False)
    ((case, before),) = load.take(report(1))
    assert before is None
    assert case.progress.stage is Stage.SEEN
    assert case.first_seen == NOW  # the log tells no time
    case.progress = replace(case.progress, due=None)
    load.take(report(2))  # the same run: half of the same report
    assert case.progress.due is None
    ((_, before),) = load.take(report(3, pid=2))
    assert before.due is None
    assert case.progress.due == NOW


def test_a_proof_wakes_the_case_and_a_later_report_reopens_it():
    load = Load(restored=False)
    ((case, _),) = load.take(report(1))
    ((same, before),) = load.take(proof(5))
    assert same is case
    assert before is not None
    assert incident_of(case, ["/log"]).state is State.RESOLVED
    assert incident_of(case, ["/log"]).evidence[-1].text == "pread SUCCESS"
    case.progress = confirm(case.progress, NOW)
    assert load.load.wanted() == set()
    load.take(report(9, pid=8))
    assert case.proof is None
    assert case.progress.stage is Stage.SEEN
    assert load.load.wanted() == {VDI[:8]}


def test_a_proof_of_nobody_changes_nothing():
    load = Load(restored=False)
    assert load.take(proof(5)) == []
    load.take(report(9))
    assert load.take(proof(8)) == []  # before the report


def test_disks_that_share_digits_have_ids_of_their_own():
    load = Load(restored=False)
    twin = VDI[:8] + "-0000-0000-0000-000000000000"
    load.take(report(1))
    load.take(report(2, vdi=twin))
    load.take(report(3, vdi=VDI, copy=True))
    load.take(report(4, vdi=twin, copy=True))
    ids = {case.id for case in load.all()}
    assert len(ids) == 4


def test_digits_that_the_log_completes_later():
    load = Load(restored=True)
    load.take(report(1, vdi=VDI[:8], sr=None, path=None, candidates=("/a", "/b")))
    (case,) = load.all()
    assert incident_of(case, ["/log"]).candidates == ("/a", "/b")
    assert case.sr is None


def test_a_report_of_no_disk_is_counted():
    load = Load(restored=False)
    assert load.take(report(1, vdi="", sr=None)) == []
    assert load.load.left_out == 1


def test_the_longest_confirmed_make_room(monkeypatch):
    monkeypatch.setattr(tracker, "MOST_INCIDENTS", 20)
    load = Load(restored=False)
    for number in range(20):
        ((case, _),) = load.take(report(number, vdi=f"{number:08x}-058e-102f-80dc-001ec95cb0b6"))
        if number < 5:
            case.progress = confirm(case.progress, NOW.replace(minute=10 - number))
    load.take(report(30, vdi=VDI))
    left = {case.vdi[:8] for case in load.all()}
    assert len(left) == 19
    assert {"00000003", "00000004"} & left == set()
    assert load.load.left_out == 0
    load.take(report(31, vdi=f"{6:08x}-058e-102f-80dc-001ec95cb0b6", pid=77))
    assert next(case for case in load.all() if case.vdi.startswith("00000006")).count == 2


def test_without_room_a_report_is_left_out(monkeypatch):
    monkeypatch.setattr(tracker, "MOST_INCIDENTS", 1)
    load = Load(restored=False)
    load.take(report(1))
    assert load.take(report(2, vdi="c5c0cdc3-c2c4-4c43-a5a2-845f36b866a4")) == []
    assert load.load.left_out == 1


def test_a_case_that_cannot_be_told_from_another_is_kept_and_left_alone():
    load = Load(restored=False)
    ((case, _),) = load.take(report(1))
    load.state.incidents["twin"] = replace(case, id="twin")
    again = Tracker(load.state)
    ((same, _),) = again.take(report(9, pid=5), NOW, never)
    assert same.id == case.id
    assert set(load.state.incidents) == {case.id, "twin"}


def test_a_renamed_disk_is_looked_for_by_its_new_name():
    """A leaf coalesce gives the parent the leaf's name: the case is due again, and its later reports are its own."""
    leaf = "2e994938-1111-2222-3333-444455556666"
    old, new = (image_path(f"/run/sr-mount/{SR}/{vdi}.vhd") for vdi in (VDI, leaf))
    for restored in (False, True):
        load = Load(restored=restored)
        ((case, _),) = load.take(report())
        name = case.id
        ((case, before),) = load.take(Renamed(20, old, new, (Quote(0, 20, "Renaming x -> y"),)))
        assert before is not None
        assert (case.id, case.vdi, case.path, case.count) == (name, leaf, new.path, 1)
        assert case.progress.due == NOW
        assert case.quotes[-1].line == 20
        assert leaf[:8] in load.load.wanted()
        load.take(report(30, pid=2, vdi=leaf, path=new.path))
        assert [(one.id, one.count) for one in load.all()] == [(name, 2)]
    assert load.take(Renamed(40, old, new, ())) == []
