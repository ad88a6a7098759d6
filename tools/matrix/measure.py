"""What a treatment did to a damaged image: lost, shrunk, unreadable, right or wrong. Facts only, no verdicts."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from matrix import reader
from matrix.damage import Damaged, Sample
from matrix.reader import SECTOR


@contextmanager
def mapped(path: Path) -> Iterator[bytes | mmap.mmap]:
    """The bytes of a file, however large and sparse it is."""
    if path.stat().st_size == 0:
        yield b""
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        yield view


@dataclass
class Measured:
    """Sectors are counted of 512 bytes.

    `lost`: guest sectors that were intact in the damaged file and that nobody can get at any more. `beyond`:
    sectors of living data behind the end of data that are gone. `wrong`: guest sectors that do not read as before
    the damage.
    """

    size: int
    opens: bool
    wrong: set[int]
    lost: int
    beyond: int


Run = tuple[int, int, int]
"""(first guest sector, count of sectors, offset in the file)."""


class Judge:
    """Measures against one case: the sound image, its guest disk, the damaged image."""

    def __init__(self, sample: Sample, truth: bytes, parent: bytes | None, damaged: Damaged) -> None:
        self.parent, self.damaged = parent, damaged.raw
        self.truth, self.raw, runs = _with_gains(sample, truth, damaged)
        self.intact = [part for run in runs for part in _alike(run, self.raw, damaged.raw)]
        found = reader.layout(damaged.raw)
        self.opened_before = found is not None
        self.wrong_before = reader.wrong_sectors(found, damaged.raw, parent, self.truth)
        end = found.end_of_data if found is not None else sample.found.end_of_data
        living = [*damaged.orphans, *((at, sample.found.space) for _, at in sample.found.allocated())]
        self.beyond = [(start, min(start + length, len(damaged.raw))) for start, length in living if start >= end]

    def _is_data(self, at: int) -> bool:
        """Not NUL, and no footer that was appended inside a block."""
        raw = self.damaged[at : at + SECTOR]
        return any(raw) and not reader.footer_is_sound(raw)

    def measure(self, path: Path) -> Measured:
        """What the file at `path` came to."""
        with mapped(path) as after:
            found = reader.layout(after)
            wrong = reader.wrong_sectors(found, after, self.parent, self.truth)
            gone: set[int] = set()
            for run in self.intact:
                kept = sum(count for _, count, _ in _alike(run, self.raw, after))
                if kept < run[1]:
                    alive = {guest + n for guest, count, _ in _alike(run, self.raw, after) for n in range(count)}
                    gone |= (set(range(run[0], run[0] + run[1])) - alive) & wrong
            if self.opened_before and found is not None:
                gone |= wrong - self.wrong_before
            beyond = sum(
                after[at : at + SECTOR] != self.damaged[at : at + SECTOR] and self._is_data(at)
                for start, stop in self.beyond
                if after[start:stop] != self.damaged[start:stop]
                for at in range(start, stop, SECTOR)
            )
            return Measured(path.stat().st_size, found is not None, wrong, len(gone), beyond)


def _with_gains(sample: Sample, truth: bytes, damaged: Damaged) -> tuple[bytes, bytes, list[Run]]:
    """(guest disk, file, its runs) as they would be, sound, with what was written just before the damage."""
    runs = list(_places(sample))
    if not damaged.gained:
        return truth, sample.raw, runs
    disk, raw = bytearray(truth), bytearray(sample.raw)
    for guest, at, data in damaged.gained:
        disk[guest : guest + len(data)] = data
        raw.extend(bytes(max(0, at + len(data) - len(raw))))
        raw[at : at + len(data)] = data
        runs.append((guest // SECTOR, len(data) // SECTOR, at))
    return bytes(disk), bytes(raw), runs


def _alike(run: Run, one, other) -> list[Run]:
    """The parts of a run whose bytes are the same in both files."""
    guest, count, at = run
    if one[at : at + count * SECTOR] == other[at : at + count * SECTOR]:
        return [run]
    parts: list[Run] = []
    for n in range(count):
        place = at + n * SECTOR
        if one[place : place + SECTOR] == other[place : place + SECTOR]:
            if parts and parts[-1][0] + parts[-1][1] == guest + n:
                parts[-1] = (parts[-1][0], parts[-1][1] + 1, parts[-1][2])
            else:
                parts.append((guest + n, 1, place))
    return parts


def _places(sample: Sample) -> Iterator[Run]:
    """What the guest reads from the sound image."""
    found = sample.found
    for block, at in found.allocated():
        for low, high in reader.written(found, sample.raw, block, at):
            start = block * found.block_size // SECTOR + low
            count = min(high - low, found.size // SECTOR - start)
            yield start, count, at + found.bitmap_size + low * SECTOR
