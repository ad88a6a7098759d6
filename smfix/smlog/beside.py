"""The files of a rotated set: SMlog, SMlog.1, SMlog.2.gz; by name their age.

logrotate renames one file after the other, compresses some, or copies the log and cuts it off; all
while it is read. So a set is looked at until it stands still.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import NamedTuple

from smfix.smlog.patterns import pattern

_SETTLING = 8  # looks at a folder until it stands still
_NUMBERED = pattern(r"\.(?P<number>[0-9]{1,4})(?:\.[a-z0-9]{1,4})?\Z")
_DATED = pattern(r"-(?P<date>[0-9]{8}(?:-?[0-9]{1,10})?)(?:\.[a-z0-9]{1,4})?\Z")


class Sibling(NamedTuple):
    """One file of the rotated set. `age` 0 is the log itself, larger is older."""

    path: str
    age: tuple[int, str]
    device: int
    inode: int
    size: int

    @property
    def same(self) -> tuple[str, int, int]:
        """What stays while the file only grows."""
        return self.path, self.device, self.inode


def siblings(path: str) -> list[Sibling]:
    """The rotated set of the log at `path`, newest first; each once, plain rather than packed.

    A rotation renames one file after the other: it is looked at until two looks are the same.
    """
    before: list[Sibling] | None = None
    for _ in range(_SETTLING):
        now = _look(path)
        if before is not None and [one.same for one in now] == [one.same for one in before]:
            return now
        before = now
    return before or []


def _look(path: str) -> list[Sibling]:
    folder, name = os.path.split(path)
    found: dict[tuple[int, str], Sibling] = {}
    with suppress(OSError):
        for other in sorted(os.listdir(folder or ".")):
            age = _age(name, other)
            if age is None:
                continue
            where = os.path.join(folder, other)
            with suppress(OSError):
                status = os.stat(where)
                if stat.S_ISREG(status.st_mode):
                    # "SMlog.1" sorts before "SMlog.1.gz": while it is being packed, the plain one counts.
                    found.setdefault(age, Sibling(where, age, status.st_dev, status.st_ino, status.st_size))
    return [found[age] for age in sorted(found)]


def _age(name: str, other: str) -> tuple[int, str] | None:
    """Where `other` stands in the rotated set of `name`: (0, "") is the log itself."""
    if other == name:
        return 0, ""
    if not other.startswith(name):
        return None
    rest = other[len(name) :]
    if numbered := _NUMBERED.match(rest):
        return int(numbered["number"]), ""
    if dated := _DATED.match(rest):
        # Later dates are newer: their complement sorts them to the front.
        return 1, dated["date"].translate(str.maketrans("0123456789", "9876543210"))
    return None
