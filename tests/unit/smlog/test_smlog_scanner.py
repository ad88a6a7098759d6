"""The pass over the blocks: any blocks, the same events."""

from __future__ import annotations

import json

import pytest

from smfix.smlog import scanner as scanner_module
from smfix.smlog.correlate.failures import Failure
from smfix.smlog.parse import window as window_module
from smfix.smlog.rules.resolutions import Proof, Strength
from smfix.smlog.scanner import Scanner
from smlog_text import (
    LV,
    PATH,
    SR,
    SR2,
    VDI,
    VDI2,
    blocks_of,
    check,
    corrupted,
    events_of,
    failed,
    gc,
    incidents_of,
    noise_of,
    said,
)

MAPPER = f"/dev/mapper/VG_XenStorage--{SR.replace('-', '--')}-VHD--{VDI.replace('-', '--')}"
DUMP = f"primary footer invalid: invalid cookie\n{PATH} appears invalid; dumping metadata\n"
RUN = [check(), *failed(DUMP), corrupted()]
OK = said("  pread SUCCESS")
OTHER = PATH.replace(VDI, VDI2)
LOG = [gc(f"=== SR {SR}: gc ==="), check(), OK, *RUN, check(OTHER), OK, check(), OK, *RUN, said("end")]


def kinds(found: list[object]) -> list[str]:
    return [type(event).__name__ for event in found]


@pytest.mark.parametrize("per_block", [1, 2, 3, 5, 100])
def test_any_blocks_tell_the_same(per_block):
    whole = [(event.place, kinds([event])) for event in events_of(LOG)]
    assert [(event.place, kinds([event])) for event in events_of(LOG, per_block)] == whole
    assert kinds(events_of(LOG, per_block)) == ["Failure", "Failure", "Proof", "Failure", "Failure"]


def test_disks_that_were_reported_before():
    scanner = Scanner(wanted={VDI2[:8]})
    found = []
    for block in blocks_of(LOG, 3):
        scanner.push(block)
        found += scanner.tell()
    found += scanner.tell(flush=True)
    assert {event.vdi for event in found if isinstance(event, Proof)} == {VDI, VDI2}
    assert scanner.wanted == {VDI[:8], VDI2[:8]}


def test_the_first_proof_after_each_report_is_told():
    again = [*LOG, check(), OK, check(), OK, check(PATH, "-B"), OK, check(PATH, "-B"), OK, *RUN, check(), OK]
    strengths = [event.strength for event in events_of(again) if isinstance(event, Proof)]
    assert strengths == [Strength.CHECKED, Strength.CHECKED, Strength.CHECKED], "what is proved is not asked again"
    deleted = gc(f"Deleting unlinked VDI *{VDI[:8]}(1G)")
    assert kinds(events_of([*RUN, deleted, deleted])) == ["Failure", "Failure", "Proof"]


RELINK = [
    gc(f"  Running VHD coalesce on *{VDI[:8]}(1G)"),
    gc("  Child process completed successfully"),
    gc(f"  Relinking 3f994938(1G) from *{VDI[:8]}(1G) to *{VDI2[:8]}(1G)"),
]


def test_a_coalesce_is_asked_only_where_no_check_said_it_before():
    assert kinds(events_of([*RUN, *RELINK])) == ["Failure", "Failure", "Proof", "Proof"]
    assert kinds(events_of([*RUN, check(), OK, *RELINK])) == ["Failure", "Failure", "Proof"]
    other = [line.replace(VDI, VDI2) for line in RUN]
    assert len(events_of([*RUN, *other, *RELINK])) == 6
    assert len(events_of([*RUN, *other, check(), OK, *RELINK])) == 7
    assert len(events_of([*RUN, *other, check(), OK, check(OTHER), OK, *RELINK])) == 6


@pytest.mark.parametrize("twin", [PATH.replace(SR, SR2), PATH.replace("058e", "ffff")], ids=["other SR", "same digits"])
def test_a_check_of_a_namesake_says_nothing_of_a_coalesce(twin):
    """Two disks whose UUIDs start alike, or one UUID on two SRs: a coalesce names eight digits."""

    def resolved(lines):
        return [one.proof is not None for one in incidents_of(lines)]

    began = [gc(f"=== SR {SR}: gc ==="), *RELINK]
    assert resolved([*RUN, check(twin), OK, *began]) == [True]
    namesake = [line.replace(PATH, twin) for line in RUN]
    assert resolved([*RUN, *namesake, check(twin), OK]) == [False, True]
    assert resolved([*RUN, *RUN, check(), OK, *began]) == [True]


@pytest.mark.parametrize(
    "line",
    [
        check(PATH, "-B"),
        check(LV),
        check(LV.replace("VHD-", "LV-")),
        check(LV.replace("VHD-", "QCOW2-")),
        check(PATH.replace(VDI, f"OLD_{VDI}")),
        check(LV.replace(VDI, f"OLD_{VDI}")),
        check(LV.replace("VHD-", "LV-DELETED_")),
        check(MAPPER),
        said(f"['/sbin/lvremove', '-f', '{LV}']"),
        f'{{"_HOSTNAME": "xen1", "MESSAGE": {json.dumps(check()[25:])}, "_EXE": "/usr/bin/python3"}}',
    ],
)
def test_every_way_to_name_a_vdi_in_a_command(line):
    done = line.replace(line[line.index("['") :], "  pread SUCCESS" + ('"}' if line.startswith("{") else ""))
    found = [event for event in events_of([*RUN, line, done]) if isinstance(event, Proof)]
    assert [event.vdi for event in found] == [VDI]


def test_what_an_earlier_run_told_is_not_told_again():
    lines = [*LOG, *LOG]
    begin = len("".join(f"{line}\n" for line in LOG))
    for per_block in (1, 7, 100):
        scanner = Scanner(place=1000, begin=1000 + begin)
        found = []
        for block in blocks_of(lines, per_block):
            scanner.push(block)
            found += [event for event in scanner.tell() if isinstance(event, Failure)]
        found += [event for event in scanner.tell(flush=True) if isinstance(event, Failure)]
        later = [event for event in events_of(lines) if isinstance(event, Failure) and event.place >= begin]
        assert [event.place - 1000 for event in found] == [event.place for event in later]
        assert found


def test_blocks_out_of_reach_are_given_back(monkeypatch):
    monkeypatch.setattr(window_module, "REACH_BACK", 300)
    monkeypatch.setattr(scanner_module, "REACH_AHEAD", 300)
    scanner = Scanner()
    found = []
    for block in blocks_of([*LOG, *LOG], 2):
        scanner.push(block)
        found.extend(scanner.tell())
    assert len(scanner.spare) > 5
    found.extend(scanner.tell(flush=True))
    assert {event.vdi for event in found if isinstance(event, Failure)} == {VDI}


def test_a_report_of_a_volume_whose_vdi_is_unknown_asks_for_nothing():
    volume = "/dev/drbd/by-res/xcp-volume-1/0"
    bare = [check(volume, pid=4), *failed(DUMP.replace(PATH, volume), 4)]
    again = [*RUN, check(), OK, *bare, check(), OK]
    assert kinds(events_of(again)) == ["Failure", "Failure", "Proof", "Failure"]


def test_the_vdis_in_question_are_bounded(monkeypatch):
    monkeypatch.setattr(scanner_module, "_MOST_WANTED", 0)
    scanner = Scanner()
    for block in blocks_of(LOG):
        scanner.push(block)
    assert not [event for event in scanner.tell(flush=True) if isinstance(event, Proof)]
    assert scanner.wanted == set()


def test_a_proof_on_a_line_of_any_length():
    end = said("Deleting unlinked VDI *" + VDI[:8] + "(1G)" + "x" * 9000)
    assert kinds(events_of([*RUN, end])) == ["Failure", "Failure", "Proof"]
    far = said("x" * 9000 + "Deleting unlinked VDI *" + VDI[:8] + "(1G)")
    assert kinds(events_of([*RUN, far])) == ["Failure", "Failure"]
    last = [*RUN, said(f"Deleting unlinked VDI *{VDI[:8]}(1G)")]
    assert kinds(events_of(last)) == ["Failure", "Failure", "Proof"]


def test_noise_is_counted():
    lines = [said("['/sbin/vgs']"), *failed("x"), gc("gc: EXCEPTION <type 'x.KeyError'>, 'y'")]
    assert list(noise_of(lines).values()) == [1, 1]


@pytest.mark.parametrize("per_block", [1, 2, 5, 100])
def test_a_volume_that_is_removed_soon_after_it_was_reported(per_block, monkeypatch):
    monkeypatch.setattr(scanner_module, "REACH_AHEAD", 900)
    volume = LV.replace(VDI, VDI2)
    removed = [said(str(["/sbin/lvremove", "-f", volume])), OK]
    log = [
        *RUN,
        *[said("x")] * 30,
        check(volume),
        *failed(DUMP.replace(PATH, volume)),
        corrupted(f"*{VDI2[:8]}(1G)"),
        said("x"),
        *removed,
    ]
    assert [(event.vdi, event.strength) for event in events_of(log, per_block) if isinstance(event, Proof)] == [
        (VDI2, Strength.REMOVED)
    ]
