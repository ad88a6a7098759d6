"""What proves an incident over, and what only looks like it."""

from __future__ import annotations

import pytest

from smfix.smlog.rules.resolutions import Strength, read_proofs
from smlog_text import LV, PATH, SR, SR2, VDI, VDI2, check, gc, line_at, said, window_of

OK = said("  pread SUCCESS")
A, P, C = "1d994938", "2e994938", "3f994938"


def proofs_of(lines: list[str], number: int = 1, wanted=None) -> list[tuple[str, str | None, Strength, int]]:
    window = window_of(lines)
    found = read_proofs(window, line_at(window, number), wanted, 0)
    return [(proof.vdi, proof.sr, proof.strength, len(proof.evidence)) for proof in found]


DELETING = gc(f"Deleting unlinked VDI *{A}(1.000G/2.000M?)")
WENT_ON = gc(f"Starting asynch srUpdate for SR {SR}")
# What a garbage collector says between a failure and its EXCEPTION: the SR's trees, however many.
LEAVING = [gc("GC process exiting, no work left"), gc("In cleanup"), *[gc("        *3f994938(8.000M/2.004M?)")] * 300]
VANISHED = gc(f"VDI {A}(1.000G/2.000M) disappeared since last scan")
GONE = (A, None, Strength.GONE, 1)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([check(), OK], [(VDI, SR, Strength.CHECKED, 2)]),
        ([check(LV), said("x", 3), OK], [(VDI, SR, Strength.CHECKED, 2)]),
        ([check(PATH, "-B"), OK], [(VDI, SR, Strength.CHECKED_FAST, 2)]),
        ([check(PATH, "-i"), OK], []),
        ([check(), said("FAILED in util.pread")], []),
        ([check()], []),
        ([check("/etc/fstab"), OK], []),
        ([said(f"['/usr/sbin/vhd-util', 'check', '-n', '{PATH}']"), said("SUCCESS")], [(VDI, SR, Strength.CHECKED, 2)]),
        ([said(f"['/sbin/lvremove', '-f', '{LV}']"), OK], [(VDI, SR, Strength.REMOVED, 2)]),
        ([said(f"['/sbin/lvremove', '-f', '{LV}']"), said("FAILED in")], []),
        ([said(f"['/sbin/lvremove', '-f', '{LV}', 'x']"), OK], []),
        ([DELETING, WENT_ON], [GONE]),
        ([DELETING, said("['/usr/bin/vhd-util', 'scan', '-f', '-m', '/x/*.vhd']"), gc("tag: EXCEPTION x, y")], [GONE]),
        ([DELETING, gc("Coalescing *3f994938(1G) -> *2e994938(1G)"), gc("coalesce: EXCEPTION x, y")], [GONE]),
        ([DELETING, gc("No work, exiting")], [GONE]),
        ([DELETING], [GONE]),
        ([gc(f"Deleting unlinked VDI *OLD_{A[:4]}(1.000G/2.000M?)")], []),
        ([gc(f"VDI {A}[VHD](1.000G//2.000M|n) disappeared since last scan")], [(A, None, Strength.GONE, 1)]),
        ([DELETING, gc("In cleanup")], [GONE]),
        ([DELETING, gc(f"=== SR {SR}: gc ==="), gc("gc: EXCEPTION x, y")], [GONE]),
        ([DELETING, gc("gc: EXCEPTION x, y", at="Aug 12 12:00:00")], [GONE]),
        # announced, and then it failed
        ([DELETING, *LEAVING, gc("gc: EXCEPTION <class 'util.SMException'>, os.unlink(/x.vhd) failed")], []),
        ([DELETING, *LEAVING, gc("Aborted")], []),
        ([DELETING, gc("gc: EXCEPTION <class 'util.SMException'>, os.unlink(/x.vhd) failed")], []),
        ([DELETING, said("['/sbin/lvremove', '-f', '/dev/x']"), said("FAILED in util.pread: (rc 5) stdout: ''")], []),
        ([DELETING, gc("Deleting unlinked VDI *99999999(1G)"), gc("gc: EXCEPTION <class 'x'>, y")], [GONE]),
        ([DELETING, said("FAILED in util.pread: (rc 5) stdout: ''", 77)], [GONE]),
        # of every disk at once: the scan failed, or the storage is away
        ([gc(f"VDI OLD_{A[:4]}(1G) disappeared since last scan")], []),
        ([VANISHED, gc("In cleanup"), gc("SR 7a14 ('nfs') (1 VDIs in 1 VHD trees): no changes")], [GONE]),
        ([VANISHED, gc("SR 7a14 ('nfs') (0 VDIs in 0 VHD trees): no changes")], []),
        ([VANISHED, gc("SR 7a14 ('nfs') (3 VDIs in 1 VHD trees): no changes"), gc("(0 VDIs in 0 VHD trees)")], [GONE]),
        ([gc("Found 1 VDIs for deletion:")], []),
        ([gc(f"Deleting unlinked VDI *{A}(1.000G/2.000M?) not", at="Aug  9 12:00:00")], [GONE]),
        ([said("['check']")], []),
    ],
)
def test_proofs(lines, expected):
    assert proofs_of(lines) == expected


def test_disks_that_vanish_with_a_scan_that_failed_are_not_gone():
    assert proofs_of([said("***** VHD scan error: vhd=/x.vhd scan-error=-22"), VANISHED], number=2) == []
    assert proofs_of([said("Kicking GC"), VANISHED], number=2) == [GONE]
    assert proofs_of([said("***** VHD scan error: vhd=/x.vhd scan-error=-22", 77), VANISHED], number=2) == [GONE]


def test_only_what_is_asked_for():
    assert proofs_of([check(), OK], wanted={"0" * 8}) == []
    assert proofs_of([check(), OK], wanted={VDI[:8]}) != []
    assert proofs_of([said(f"['/sbin/lvremove', '-f', '{LV}']"), OK], wanted=set()) == []
    assert proofs_of([gc(f"Deleting unlinked VDI *{A}(1G)")], wanted=set()) == []


RELINKED = gc(f"  Relinking {C}(1G) from *{A}(1G) to *{P}(1G)")
RUNNING, DONE = gc(f"  Running VHD coalesce on *{A}(1G)"), gc("  Child process completed successfully")


def test_a_whole_coalesce_proves_both():
    lines = [gc(f"=== SR {SR}: gc ==="), RUNNING, DONE, gc("x"), RELINKED]
    assert proofs_of(lines, 5) == [(A, SR, Strength.CHECKED, 3), (P, SR, Strength.CHECKED_FAST, 3)]
    assert proofs_of(lines, 5, wanted={P}) != []
    assert proofs_of(lines, 5, wanted={C}) == []


@pytest.mark.parametrize(
    "before",
    [
        [RUNNING],
        [DONE],
        [],
        [gc(f"  Running VHD coalesce on *{C}(1G)"), DONE],
        [RUNNING, DONE, gc("==> Coalesce apparently already done: skipping")],
        [RUNNING.replace("Aug  9", "Aug  1"), DONE.replace("Aug  9", "Aug  1")],
        [RUNNING, DONE, *[gc("x")] * 500],
    ],
)
def test_half_a_coalesce_proves_nothing(before):
    assert proofs_of([*before, RELINKED], len(before) + 1) == []


def test_the_sr_of_short_names_is_the_runs():
    lines = [gc(f"=== SR {SR2}: gc ==="), gc(f"Deleting unlinked VDI *{VDI2[:8]}(1G)")]
    assert proofs_of(lines, 2) == [(VDI2[:8], SR2, Strength.GONE, 1)]


def renamed_of(lines: list[str], wanted=None) -> list[tuple[str, str]]:
    window = window_of(lines)
    return [(one.old.path, one.new.path) for one in read_proofs(window, line_at(window, 1), wanted, 0)]


def test_renames():
    temporary = PATH.replace(VDI, f"OLD_{VDI}")
    file = gc(f"Renaming {PATH} -> {temporary}")
    assert renamed_of([file]) == [(PATH, temporary)]
    assert renamed_of([file], {VDI2[:8]}) == []
    assert renamed_of([gc("Renaming /etc/passwd -> /etc/shadow")]) == []
    volume = said(str(["/sbin/lvrename", LV, f"VHD-{VDI2}"]))
    assert renamed_of([volume, OK]) == [(LV, LV.replace(VDI, VDI2))]
    assert renamed_of([volume, said("FAILED in util.pread: (rc 5) stdout: '', stderr: ''")]) == []
    assert renamed_of([volume]) == []
