"""Which mount a path is on, by the mount table: nothing below the mount point is touched."""

from __future__ import annotations

import re
from typing import NamedTuple


class Mount(NamedTuple):
    """One line of the mount table. `id`: its number in this namespace; `kind`: the file system's type."""

    id: str
    kind: str


def mount_of(path: str, proc: str = "/proc") -> Mount | None:
    """The mount that holds the resolved `path`; None if it cannot be known.

    The longest mount point wins, then the last of them: a mount hides what was there before.
    """
    best, found = "", None
    try:
        with open(f"{proc}/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                left, _, right = line.partition(" - ")
                fields = left.split()
                point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4])
                inside = path == point or path.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, found = point, Mount(fields[0], right.split()[0])
    except (OSError, IndexError):
        return found
    return found
