"""List the disks of tapdisk with ``tap-ctl list``: also those that are paused, and so have no open descriptor.

Theory. A tapdisk that SM has paused (for a snapshot, a relink, a leaf-coalesce) has **closed** its image: no
descriptor is left in ``/proc``, yet it will open it read-write again, at any moment. Only ``tap-ctl list``
knows. It names the leaf, never its parents, and does not say how the image is open; so a disk that is listed
and has no open descriptor counts as written to.

Source: blktap control/tap-ctl.c (``tap_cli_list_dict``), drivers/tapdisk-vbd.h (the states).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from smfix.errors import Unreadable
from smfix.host import subprocesses

TIME_LIMIT = 5.0
"""Seconds. ``tap-ctl`` asks every tapdisk in turn; a hung one makes it wait."""

PAUSED = 0x20  # TD_VBD_PAUSED
# Absent fields are -1 in tapdisk. The path is the rest of the line: it may hold blanks.
_LINE = re.compile(
    r"(?:pid=(?P<pid>\d+)\s*)?(?:minor=(?P<minor>\d+)\s*)?(?:state=(?P<state>0x[0-9a-f]+|\d+)\s*)?"
    r"(?:args=(?P<type>[a-z0-9]+):(?P<path>/.*))?"
)


@dataclass(frozen=True, slots=True)
class Tapdisk:
    """One disk of one tapdisk. `pid` None: not told. `path`: the leaf, as SM called it."""

    pid: int | None
    is_paused: bool
    path: str


def listed() -> tuple[Tapdisk, ...]:
    """Every disk that a tapdisk of this host has; none without tap-ctl.

    Raises Unreadable if it is there and does not answer, within :data:`TIME_LIMIT` seconds.
    """
    found = subprocesses.program("tap-ctl")
    if found is None or os.geteuid() != 0:
        return ()  # its sockets are root's
    return parse(subprocesses.run([found, "list"], TIME_LIMIT))


def parse(text: str) -> tuple[Tapdisk, ...]:
    """The disks in the output of ``tap-ctl list``. Raises Unreadable for a line that is none of its own."""
    disks = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise Unreadable(f"tap-ctl list printed what cannot be understood: {line[:80]!r}")
        if match["path"]:
            pid = int(match["pid"]) if match["pid"] else None
            state = int(match["state"], 0) if match["state"] else 0
            disks.append(Tapdisk(pid, bool(state & PAUSED), match["path"]))
    return tuple(disks)
