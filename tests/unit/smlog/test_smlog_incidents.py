"""One VDI in trouble, once: folding, counting, life and death of an incident."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from smfix.smlog.correlate import incidents as incidents_module
from smfix.smlog.correlate.failures import Failure, Quote
from smfix.smlog.correlate.incidents import KINDS, Register, incident
from smfix.smlog.parse.disk_names import image_path
from smfix.smlog.parse.timestamps import Stamp
from smfix.smlog.rules.resolutions import Proof, Renamed, Strength
from smfix.smlog.rules.tool_output import Weight
from smfix.values import State
from smlog_text import LV, PATH, SR, SR2, VDI, VDI2, check, corrupted, failed, gc, incidents_of, said

DUMP = f"primary footer invalid: invalid cookie\n{PATH} appears invalid; dumping metadata\n"
RUN = [check(), *failed(DUMP), corrupted()]
OK = said("  pread SUCCESS")


def shift(lines: list[str], pid: int, day: int = 9) -> list[str]:
    return [line.replace("[26919]", f"[{pid}]").replace("Aug  9", f"Aug {day:2d}") for line in lines]


def brief(lines: list[str], per_block: int = 10_000):
    return [(one.vdi, one.sr, one.count, one.proof is not None) for one in incidents_of(lines, per_block)]


def test_one_run_is_one_report():
    assert brief(RUN) == [(VDI, SR, 1, False)]
    assert brief([*RUN, corrupted(tag="leaf-coalesce")]) == [(VDI, SR, 1, False)]


def test_repeats_are_counted():
    assert brief([*RUN, *shift(RUN, 2), *shift(RUN, 3)]) == [(VDI, SR, 3, False)]
    assert brief([*RUN, *shift(RUN, 26919, 11)]) == [(VDI, SR, 2, False)]
    assert brief([*RUN, gc(f"=== SR {SR}: gc ==="), *RUN]) == [(VDI, SR, 2, False)]


def test_digits_join_the_disk_they_fit():
    alone = corrupted(pid=7)
    assert brief([*RUN, alone]) == [(VDI, SR, 2, False)]
    assert brief([corrupted(pid=7, host="xen2"), *RUN]) == [(VDI[:8], None, 1, False), (VDI, SR, 1, False)]


EVENT = Failure(
    place=100,
    file=0,
    stamp=Stamp(None, 8, 9, 12, 0, 0),
    voice=("xen1", 0),
    pid=7,
    vdi=VDI,
    sr=SR,
    path=PATH,
    kinds=("coalesce-corrupted", "footer-invalid"),
    weight=Weight.DAMAGE,
    evidence=(Quote(0, 1, "x"),),
)
PROOF = Proof(200, ("xen1", 0), VDI, SR, Strength.CHECKED, (Quote(0, 9, "ok"),))


def register_of(*events: Failure | Proof) -> Register:
    register = Register()
    for event in events:
        register.take(event)
    return register


def fold(*events: Failure | Proof):
    return [(one.vdi, one.sr, one.path, one.count) for one in register_of(*events).found]


DIGITS = EVENT._replace(vdi=VDI[:8], path=None)


@pytest.mark.parametrize(
    ("second", "together"),
    [
        (EVENT._replace(vdi=VDI2), False),
        (EVENT._replace(sr=SR2), False),
        (EVENT._replace(sr=None), True),
        (EVENT._replace(copy=True), False),
        (EVENT._replace(voice=("xen2", 0)), True),
        (DIGITS, True),
        (DIGITS._replace(sr=None), True),
        (DIGITS._replace(sr=SR2), False),
        (DIGITS._replace(voice=("xen2", 0)), False),
        (DIGITS._replace(candidates=("/a", "/b")), False),
    ],
)
def test_what_is_one_disk(second, together):
    assert len(fold(EVENT, second)) == (1 if together else 2)


def test_digits_that_come_first_find_their_name():
    assert fold(DIGITS, EVENT._replace(pid=8)) == [(VDI, SR, PATH, 2)]
    other = EVENT._replace(vdi=VDI[:8] + VDI2[8:], path=None)
    assert [one[0] for one in fold(EVENT, other, DIGITS)] == [EVENT.vdi, other.vdi, VDI[:8]]
    assert [one[0] for one in fold(EVENT, other, DIGITS, DIGITS)] == [EVENT.vdi, other.vdi, VDI[:8]]


VOLUME = "/dev/drbd/by-res/xcp-volume-1/0"


def test_volumes_are_known_by_their_path():
    bare = EVENT._replace(vdi="", path=VOLUME)
    assert fold(bare, bare, bare._replace(pid=8)) == [("", SR, VOLUME, 2)]
    named = bare._replace(vdi=VDI2[:8], pid=9)
    assert fold(bare, named, named._replace(vdi=VDI2)) == [(VDI2, SR, VOLUME, 2)]
    assert fold(bare, named, bare) == [(VDI2[:8], SR, VOLUME, 2)]
    assert fold(named, named._replace(vdi=VDI)) == [(VDI2[:8], SR, VOLUME, 1), (VDI, SR, VOLUME, 1)]
    assert fold(bare._replace(path=PATH), bare._replace(path=PATH)) == [("", SR, PATH, 1), ("", SR, PATH, 1)]


def test_a_volume_whose_name_is_known_already():
    """LINSTOR: a scan gave the UUID, a check the volume. What is reported from then on opens no third incident."""
    scanned = EVENT._replace(path=None, pid=1)
    checked = EVENT._replace(vdi="", path=VOLUME, pid=2)
    named = EVENT._replace(path=VOLUME, pid=2)
    both = [(VDI, SR, None, 1), (VDI, SR, VOLUME, 1)]
    assert fold(scanned, checked, named) == both
    assert fold(scanned, checked, named, *(scanned._replace(pid=pid) for pid in (3, 4, 5))) == [
        (VDI, SR, None, 4),
        both[1],
    ]
    assert fold(scanned._replace(path=VOLUME), checked) == [(VDI, SR, VOLUME, 2)]


def test_the_disks_in_question():
    """Those that nothing has proved sound since their last report: the scanner reads no proof of others."""
    register = register_of(EVENT, EVENT._replace(vdi=VDI2, path=None, place=300, pid=8))
    assert register.in_question == {VDI[:8], VDI2[:8]}
    register.take(PROOF)
    assert register.in_question == {VDI2[:8]}
    register.take(EVENT._replace(place=PROOF.place + 100, pid=9))
    assert register.in_question == {VDI[:8], VDI2[:8]}
    namesake = EVENT._replace(vdi=f"{VDI[:8]}-ffff{VDI[13:]}", path=None, place=400, pid=10)
    register = register_of(EVENT, namesake, PROOF._replace(place=500))
    assert register.in_question == {VDI[:8]}, "one of two disks with these digits is proved"
    volume = EVENT._replace(vdi="", path=VOLUME)
    register = register_of(volume)
    assert register.in_question == set()
    register.take(volume._replace(vdi=VDI2, place=600))
    assert register.in_question == {VDI2[:8]}
    span = Register(asks_again=True)
    for event in (EVENT, PROOF):
        span.take(event)
    assert span.in_question == {VDI[:8]}, "a span may drop the report that the proof covers"


def test_what_names_nothing_is_left_out():
    register = register_of(EVENT._replace(vdi="", path=None))
    assert (register.found, register.left_out) == ([], 1)


def test_bounds(monkeypatch):
    monkeypatch.setattr(incidents_module, "_NAMESAKES", 2)
    others = [EVENT._replace(vdi=f"{VDI[:8]}{number:028d}") for number in range(4)]
    register = register_of(*others)
    assert (len(register.found), register.left_out) == (2, 2)
    monkeypatch.setattr(incidents_module, "_MOST", 1)
    assert register_of(EVENT, EVENT._replace(vdi=VDI2)).left_out == 1
    monkeypatch.setattr(incidents_module, "_RUNS", 2)
    runs = [EVENT._replace(pid=pid) for pid in (1, 2, 3, 1)]
    assert fold(*runs) == [(VDI, SR, PATH, 4)]


def test_reports_without_a_pid():
    bare = EVENT._replace(pid=None)

    def at(event, line, **more):
        return event._replace(place=line * 100, evidence=(Quote(0, line, "x"),), **more)

    first = at(bare, 1)
    assert fold(first, at(bare, 3)) == [(VDI, SR, PATH, 1)]
    assert fold(first, at(bare, 2000)) == [(VDI, SR, PATH, 2)]
    assert fold(first, at(bare, 3)._replace(evidence=(Quote(1, 3, "x"),))) == [(VDI, SR, PATH, 2)]
    assert fold(first, at(bare, 3, stamp=None)) == [(VDI, SR, PATH, 2)]
    assert fold(at(EVENT, 1), at(bare, 3), at(EVENT, 4)) == [(VDI, SR, PATH, 1)]


# --------------------------------------------------------------------------- life and death


@pytest.mark.parametrize(
    ("event", "proof", "over"),
    [
        (EVENT, PROOF, True),
        (EVENT, PROOF._replace(place=50), False),
        (EVENT, PROOF._replace(strength=Strength.CHECKED_FAST), True),
        (EVENT, PROOF._replace(strength=Strength.GONE), True),
        (EVENT, PROOF._replace(strength=Strength.REMOVED), False),
        (EVENT._replace(path=LV), PROOF._replace(strength=Strength.REMOVED), True),
        (EVENT._replace(path=None), PROOF._replace(strength=Strength.REMOVED), True),
        (EVENT, PROOF._replace(vdi=VDI2), False),
        (EVENT, PROOF._replace(vdi=VDI[:8] + VDI2[8:]), False),
        (EVENT, PROOF._replace(sr=SR2), False),
        (EVENT, PROOF._replace(sr=None), True),
        (EVENT, PROOF._replace(vdi=VDI[:8]), True),
        (EVENT, PROOF._replace(vdi=VDI[:8], sr=None), False),
        (EVENT, PROOF._replace(vdi=VDI[:8], voice=("xen2", 0)), False),
        (EVENT._replace(sr=None), PROOF._replace(vdi=VDI[:8]), True),
        (DIGITS, PROOF, True),
        (EVENT._replace(kinds=("bat-invalid",)), PROOF, True),
        (EVENT._replace(kinds=("bat-invalid",)), PROOF._replace(strength=Strength.CHECKED_FAST), False),
        (EVENT._replace(kinds=("coalesce-corrupted",)), PROOF._replace(strength=Strength.CHECKED_FAST), False),
        (EVENT._replace(kinds=("parent-missing",)), PROOF._replace(strength=Strength.GONE), False),
        (EVENT._replace(kinds=("parent-missing",), path=LV), PROOF._replace(strength=Strength.REMOVED), False),
        (EVENT._replace(kinds=("parent-missing",)), PROOF, True),
    ],
)
def test_what_a_proof_covers(event, proof, over):
    assert (register_of(event, proof).found[0].proof is not None) == over


def test_a_later_report_reopens():
    later = EVENT._replace(place=300, pid=8)
    assert register_of(EVENT, PROOF, later).found[0].proof is None
    assert register_of(EVENT, later, PROOF).found[0].proof is None
    assert register_of(EVENT, PROOF, later, PROOF._replace(place=400)).found[0].proof is not None


def test_a_proof_of_nothing():
    assert register_of(PROOF).found == []


def test_the_first_proof_is_the_one_that_is_told():
    assert register_of(EVENT, PROOF, PROOF._replace(place=250)).found[0].proof is PROOF


def test_from_the_lines():
    assert brief([*RUN, check(), OK]) == [(VDI, SR, 1, True)]
    assert brief([*RUN, check(PATH, "-B"), OK]) == [(VDI, SR, 1, True)]
    assert brief([*RUN, check(), OK, *shift(RUN, 5)]) == [(VDI, SR, 2, False)]
    assert brief([check(), OK, *RUN]) == [(VDI, SR, 1, False)]
    # A terminal's verdict has its time from the line before it, and comes behind what that line proves.
    verdict = ["primary footer invalid: invalid cookie", f"{PATH} appears invalid; dumping metadata"]
    gone = [gc(f"=== SR {SR}: gc ==="), gc(f"Deleting unlinked VDI *{VDI[:8]}(1G)")]
    assert brief([*RUN, *gone]) == [(VDI, SR, 1, True)]
    assert brief([*RUN, *gone, *verdict]) == [(VDI, SR, 1, False)]


# --------------------------------------------------------------------------- the finished value


def at(event: Failure) -> datetime | None:
    return datetime(2021, 8, 9, 12, 0, event.place % 60, tzinfo=UTC) if event.stamp else None


def test_the_finished_incident():
    register = register_of(EVENT, EVENT._replace(place=110, pid=8, kinds=("clock", "batmap-invalid")), PROOF)
    one = incident(register.found[0], ("SMlog",), at)
    assert (one.vdi.text, one.vdi.is_full, one.sr, one.path, one.host) == (VDI, True, SR, PATH, "xen1")
    assert one.kinds == ("coalesce-corrupted", "footer-invalid", "batmap-invalid", "clock")
    assert (one.first_seen.second, one.last_seen.second, one.count) == (40, 50, 2)
    assert one.state is State.RESOLVED
    assert [(quote.file, quote.line) for quote in one.evidence] == [("SMlog", 1), ("SMlog", 9)]
    assert [quote.line for quote in one.proof] == [9]
    assert sorted(one.kinds, key=KINDS.index) == list(one.kinds)


def test_an_incident_without_times():
    one = incident(register_of(EVENT._replace(stamp=None)).found[0], ("SMlog",), at)
    assert (one.first_seen, one.last_seen, one.state) == (None, None, State.OPEN)


def test_candidates_are_told_while_nothing_is_decided():
    undecided = register_of(DIGITS._replace(candidates=("/a", "/b"), format="qcow2"))
    one = incident(undecided.found[0], ("SMlog",), at)
    assert (one.candidates, one.format) == (("/a", "/b"), "qcow2")
    assert incident(register_of(EVENT._replace(candidates=("/a",))).found[0], ("SMlog",), at).candidates == ()


RENAMED = Renamed(500, image_path(PATH), image_path(PATH.replace(VDI, VDI2)), (Quote(0, 9, "Renaming x -> y"),))


def test_a_renamed_image_is_known_by_its_new_name():
    register = register_of(EVENT)
    register.take(RENAMED)
    (one,) = register.found
    assert (one.vdi, one.path, one.count) == (VDI2, RENAMED.new.path, 1)
    assert VDI2[:8] in register.in_question
    register.take(EVENT._replace(vdi=VDI2, path=RENAMED.new.path, place=600, pid=9))
    assert len(register.found) == 1
    temporary = image_path(PATH.replace(VDI, f"OLD_{VDI2}"))
    register.take(RENAMED._replace(place=700, old=RENAMED.new, new=temporary))
    assert (one.vdi, one.path) == (VDI2, temporary.path)


@pytest.mark.parametrize("what", ["another SR", "another VDI", "another name", "a copy", "over"])
def test_a_rename_of_another_image_changes_nothing(what):
    events = {
        "another SR": EVENT._replace(sr=SR2, path=None),
        "another VDI": EVENT._replace(vdi=VDI2, path=None),
        "another name": EVENT._replace(path=PATH.replace(VDI, f"OLD_{VDI}")),
        "a copy": EVENT._replace(copy=True),
        "over": EVENT,
    }
    register = register_of(events[what])
    if what == "over":
        register.take(PROOF)
    (one,) = register.found
    before = (one.vdi, one.path)
    register.take(RENAMED)
    assert (one.vdi, one.path) == before
