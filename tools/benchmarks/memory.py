"""The private memory of a command: of all its processes together, at its most."""

from __future__ import annotations

from pathlib import Path


def private_kib(pid: int) -> int:
    """KiB that only one of the processes of `pid` has, each: its own pages and those of what it started, added up."""
    return sum(_private(one) for one in _family(pid))


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return [pid]
    return [pid, *(one for child in children for one in _family(int(child)))]


def _private(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))
