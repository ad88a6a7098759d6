"""What a kind of damage is made of: a name, a sentence, and a function from a sound image to a damaged one."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

from matrix.reader import FIXED, SECTOR, Layout, byte_sum, layout
from matrix.writer import PAGE, Runs, content, fill

FAMILIES = ("footer", "backup", "both", "tail", "header", "bat", "batmap", "bitmap", "cut", "crash", "fixed")


@dataclass(frozen=True)
class Damaged:
    """A damaged image. `orphans` are extents that hold data no BAT entry names.

    `gained` is guest data that the sound image did not have yet: (guest offset, place in the file, bytes). `silent`
    says why nobody could see the damage from the bytes; None: the bytes tell.
    """

    raw: bytes
    orphans: tuple[tuple[int, int], ...] = ()
    gained: tuple[tuple[int, int, bytes], ...] = ()
    silent: str | None = None


class Sample:
    """A sound image about to be damaged: its bytes, its layout, and chance that is the same in every run.

    `sound` is the image before any damage, where `raw` has some already: layout and bitmaps are the sound one's.
    """

    def __init__(self, name: str, raw: bytes, sound: bytes | None = None) -> None:
        self.sound = raw if sound is None else sound
        found = layout(self.sound)
        assert found is not None
        self.name = name
        self.raw = raw
        self.found: Layout = found
        self.rng = random.Random(name)

    @property
    def size(self) -> int:
        return len(self.raw)

    @property
    def is_tap(self) -> bool:
        return self.found.batmap_at is not None

    @property
    def is_differencing(self) -> bool:
        return self.found.kind == 4

    @property
    def footer(self) -> bytes:
        return self.found.footer

    @property
    def header(self) -> bytes:
        return self.raw[self.found.header_at : self.found.header_at + 1024]

    def by_place(self) -> list[tuple[int, int]]:
        """(offset, block), lowest place first."""
        return sorted((at, block) for block, at in self.found.allocated())

    @property
    def last(self) -> tuple[int, int]:
        """(offset, block) of the highest block."""
        return self.by_place()[-1]

    def bits(self, at: int) -> bytes:
        return self.sound[at : at + self.found.block_size // SECTOR // 8]

    def with_bytes(self, *puts: tuple[int, bytes]) -> bytearray:
        """The image with `puts` (offset, bytes) laid over it."""
        raw = bytearray(self.raw)
        for at, data in puts:
            raw[at : at + len(data)] = data
        return raw

    def with_entries(self, entries: dict[int, int], raw: bytearray | None = None) -> bytearray:
        """The image with BAT entries (sector numbers) replaced."""
        raw = bytearray(self.raw) if raw is None else raw
        for block, entry in entries.items():
            struct.pack_into(">I", raw, self.found.table_at + 4 * block, entry & 0xFFFFFFFF)
        return raw

    def entry(self, block: int) -> int:
        at = self.found.bat[block]
        return 0xFFFFFFFF if at is None else at // SECTOR

    def free_block(self) -> int | None:
        """A block without a place, above the first."""
        return next((n for n, at in enumerate(self.found.bat) if at is None), None)

    def with_block(self, block: int, runs: Runs, *, entry: bool) -> tuple[bytearray, int]:
        """Without its footer and slack, with one more block at the end: (image, its offset)."""
        raw = bytearray(self.raw[: self.found.end_of_data])
        at = -(-(len(raw) + self.found.bitmap_size) // PAGE) * PAGE - self.found.bitmap_size
        if not self.is_tap:
            at = len(raw)
        raw.extend(bytes(at + self.found.space - len(raw)))
        fill(raw, self.found, at, runs, content("orphan", block, self.found.block_size))
        if entry:
            self.with_entries({block: at // SECTOR}, raw)
        return raw, at

    def without_footer(self, raw: bytes | None = None) -> bytearray:
        return bytearray((self.raw if raw is None else raw)[:-SECTOR])


def seal_footer(raw: bytes) -> bytes:
    """A footer with the checksum that its bytes demand: what a writer meant to write."""
    return raw[:64] + struct.pack(">I", byte_sum(raw[:64] + bytes(4) + raw[68:])) + raw[68:]


def seal_header(raw: bytes) -> bytes:
    return raw[:36] + struct.pack(">I", byte_sum(raw[:36] + bytes(4) + raw[40:])) + raw[40:]


def changed(raw: bytes, at: int, data: bytes) -> bytes:
    return raw[:at] + data + raw[at + len(data) :]


def flipped(raw: bytes, at: int, mask: int = 0x10) -> bytes:
    return changed(raw, at, bytes([raw[at] ^ mask]))


Make = Callable[[Sample], Damaged | bytes | bytearray | None]


@dataclass(frozen=True)
class Kind:
    """One kind of damage. `make` gives None where the base has nothing that it could damage."""

    name: str
    text: str
    make: Make

    @property
    def family(self) -> str:
        return self.name.split("-", 1)[0]

    def damage(self, sample: Sample) -> Damaged | None:
        """The damaged image; None where this kind has nothing to damage in it. A fixed disk has kinds of its own."""
        if (sample.found.kind == FIXED) != (self.family == "fixed"):
            return None
        made = self.make(sample)
        if made is None:
            return None
        made = made if isinstance(made, Damaged) else Damaged(bytes(made))
        return None if made.raw == sample.raw else made


class Catalogue(list[Kind]):
    """A list of kinds that functions register themselves in."""

    def kind(self, name: str, text: str) -> Callable[[Make], Make]:
        def register(make: Make) -> Make:
            assert all(known.name != name for known in self), name
            self.append(Kind(name, text, make))
            return make

        return register

    def add(self, name: str, text: str, make: Make) -> None:
        self.kind(name, text)(make)
