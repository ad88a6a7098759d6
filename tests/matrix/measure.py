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


class Judge:
    """Measures against one case: the sound image, its guest disk, the damaged image."""

    def __init__(self, sample: Sample, truth: bytes, parent: bytes | None, damaged: Damaged) -> None:
        self.parent, self.damaged = parent, damaged.raw
        self.truth, self.raw = bytearray(truth), bytearray(sample.raw)
        self.places = list(_places(sample))
        for guest, at, data in damaged.gained:
            self.truth[guest : guest + len(data)] = data
            self.raw[len(self.raw) :] = bytes(max(0, at + len(data) - len(self.raw)))
            self.raw[at : at + len(data)] = data
            self.places.append((guest // SECTOR, len(data) // SECTOR, at))
        before = reader.guest(damaged.raw, parent)
        self.opened_before = before is not None
        self.wrong_before = reader.wrong_sectors(before, self.truth)
        self.intact = [
            (guest, at) for guest, at in self._sectors() if damaged.raw[at : at + SECTOR] == self.raw[at : at + SECTOR]
        ]
        found = reader.layout(damaged.raw)
        end = found.end_of_data if found is not None else sample.found.end_of_data
        living = [*damaged.orphans, *((at, sample.found.space) for _, at in sample.found.allocated())]
        self.beyond = [
            at
            for start, length in living
            if start >= end
            for at in range(start, min(start + length, len(damaged.raw)), SECTOR)
            if any(damaged.raw[at : at + SECTOR])
        ]

    def _sectors(self) -> Iterator[tuple[int, int]]:
        """(guest sector, offset) of what the sound image holds and the damaged one may still hold."""
        for guest, count, at in self.places:
            yield from ((guest + n, at + n * SECTOR) for n in range(count))

    def measure(self, path: Path) -> Measured:
        with mapped(path) as after:
            got = reader.guest(after, self.parent)
            wrong = reader.wrong_sectors(got, self.truth)
            gone = {
                guest
                for guest, at in self.intact
                if guest in wrong and after[at : at + SECTOR] != self.raw[at : at + SECTOR]
            }
            if self.opened_before and got is not None:
                gone |= wrong - self.wrong_before
            beyond = sum(after[at : at + SECTOR] != self.damaged[at : at + SECTOR] for at in self.beyond)
            return Measured(path.stat().st_size, got is not None, wrong, len(gone), beyond)


def _places(sample: Sample) -> Iterator[tuple[int, int, int]]:
    """(first guest sector, count, offset in the file) of what the guest reads from the sound image."""
    found = sample.found
    for block, at in found.allocated():
        for low, high in reader.written(found, sample.raw, block, at):
            start = block * found.block_size // SECTOR + low
            count = min(high - low, found.size // SECTOR - start)
            yield start, count, at + found.bitmap_size + low * SECTOR
