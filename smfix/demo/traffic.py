"""The demo's SMlog: a few thousand lines of ordinary traffic, and the incidents among them. Pure.

Written in the form of today's storage manager: syslog, one prefix per line, pids interleaved.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta

from smfix.demo.disks import DISKS, SR, Disk

LINES = 4000
HOST = "xcp-host-1"
_MOUNT = "/var/run/sr-mount"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_STARS = "*" * 23


def logged_path(disk: Disk) -> str:
    """Return the disk's path as the storage manager logs it."""
    return f"{_MOUNT}/{SR}/{disk.name}"


def smlog(dumps: dict[str, str], end: datetime) -> str:
    """Return the whole log, its last line at `end`. `dumps`: the metadata of the damaged images by VDI.

    Every disk of the table is reported, the chain's leaf before its parent, the first of them twice.
    """
    noise = random.Random(SR)  # noqa: S311 - the same log each time, and no secret
    runs = [_reported(disk, dumps[disk.vdi], 20000 + 37 * number) for number, disk in enumerate(DISKS)]
    runs.append(_reported(DISKS[1], dumps[DISKS[1].vdi], 21999))
    starts = {LINES * (number + 1) // (len(runs) + 1): run for number, run in enumerate(runs)}
    lines: list[tuple[str, int, str]] = []
    open_runs: list[Iterator[tuple[str, int, str]]] = []
    for number in range(LINES):
        if number in starts:
            open_runs.append(iter(starts[number]))
        lines += _ordinary(noise, number)
        # An incident's lines come between others', as on a busy host.
        lines += [line for run in open_runs for line in (next(run, None),) if line is not None]
    step = timedelta(hours=6) / len(lines)
    moments = (end - step * left for left in range(len(lines) - 1, -1, -1))
    return "".join(
        f"{_MONTHS[at.month - 1]} {at.day:2d} {at:%H:%M:%S} {HOST} {ident}: [{pid}] {text}\n"
        for at, (ident, pid, text) in zip(moments, lines, strict=True)
    )


def _reported(disk: Disk, dump: str, pid: int) -> list[tuple[str, int, str]]:
    """Return the lines of a GC run that finds the disk corrupted and skips it."""
    path = logged_path(disk)
    mark = "*" if disk.hidden else ""
    output = f"{disk.says}\n{path} appears invalid; dumping metadata\n{dump}"
    failed = f"FAILED in util.pread: (rc 22) stdout: '{output}', stderr: ''"
    check = f"['/usr/bin/vhd-util', 'check', '--debug', '-n', '{path}']"
    banner = f"         {_STARS}"
    trace = [
        "*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*",
        banner,
        "         *  E X C E P T I O N  *",
        banner,
        f"coalesce: EXCEPTION <class 'util.SMException'>, VHD {mark}{disk.vdi[:8]}(16.000M/6.034M) corrupted",
        '  File "/opt/xensource/sm/cleanup.py", line 1774, in coalesce',
        "    self._coalesce(vdi)",
        '  File "/opt/xensource/sm/cleanup.py", line 693, in validate',
        '    raise util.SMException("VHD %s corrupted" % self)',
        "",
        "*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*~*",
    ]
    gc = [f"SR {SR[:4]} ('demo') ({len(DISKS)} VDIs in {len(DISKS) - 1} VHD trees): no changes"]
    run = [("SMGC", pid, line) for line in gc]
    run += [("SM", pid, line) for line in (check, *failed.split("\n"))]
    run += [("SMGC", pid, line) for line in ("In cleanup", *trace, "Coalesce failed, skipping")]
    return run


def _ordinary(noise: random.Random, number: int) -> list[tuple[str, int, str]]:
    """Return one or two lines of ordinary traffic."""
    pid = 3000 + number % 997
    uuid = f"{noise.getrandbits(32):08x}-0000-4000-8000-{noise.getrandbits(48):012x}"
    chatter: tuple[tuple[tuple[str, str], ...], ...] = (
        (("SM", f"lock: opening lock file /var/lock/sm/{SR}/sr"),),
        (("SM", f"lock: acquired /var/lock/sm/{SR}/sr"), ("SM", f"lock: released /var/lock/sm/{SR}/sr")),
        (("SM", f"sr_update {{'sr_uuid': '{SR}', 'subtask_of': 'DummyRef:|{uuid}|SR.stat'}}"),),
        (
            ("SM", f"['/usr/sbin/td-util', 'query', 'vhd', '-vpf', '{_MOUNT}/{SR}/{uuid}.vhd']"),
            ("SM", "  pread SUCCESS"),
        ),
        (("SM", "['/sbin/dmsetup', 'status']"), ("SM", "  pread SUCCESS")),
        (("SM", f"vdi_attach {{'sr_uuid': '{SR}', 'vdi_uuid': '{uuid}', 'command': 'vdi_attach'}}"),),
        (("SM", "tap.activate: Launched Tapdisk(vhd:/dev/sm/phy, pid=9110, minor=7, state=R)"),),
        (("SMGC", "No work, exiting"), ("SMGC", "GC process exiting, no work left")),
        (("SM", f"Kicking SMGC@{SR}..."),),
        (("SM", "***** Long LVM call of 'vgs' took 1.2"),),
        (("SMGC", "GC active, about to go quiet"), ("SMGC", "  Child process completed successfully")),
    )
    return [(ident, pid, text) for ident, text in noise.choice(chatter)]
