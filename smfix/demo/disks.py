"""The demo's disks: each a real image with known guest data, and what has happened to it.

A row of :data:`DISKS` is one disk; the story, the log and the proof all read the table. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from smfix.formats.base import NewImage, ParentLink
from smfix.formats.registry import FORMATS
from smfix.values import SECTOR, Reason, Status

SR = "7a142a29-9556-ee47-1e04-1a8517813369"
GUEST_SIZE = 16 << 20
MADE = 757_382_400
"""When the images were made: 2024-01-01, in seconds since 2000."""
FORMAT = FORMATS["vhd"]
BLOCK_SIZE = 2 << 20
_SECTORS = BLOCK_SIZE // SECTOR
_MARK = b"\xc7" * SECTOR
"""tapdisk fills the last sector with it when a VM resumes."""
_TEXT = "Interfaces, Version=1.0.500.0, Culture=neutral, PublicKeyToken=b03f5f7f11d50a3a".encode("utf-16-le")

Damage = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk: how SM's log reports it, how it was damaged, and the result that smfix must have.

    `blocks` says which of its blocks hold how much: ``{block: sectors}``, in the order in which they
    were written. `says` is the first line of ``vhd-util check``.
    """

    vdi: str
    story: str
    blocks: dict[int, Iterable[int]]
    damage: Damage
    says: str
    expect: Status
    reason: Reason | None = None
    parent: str | None = None
    hidden: bool = False
    folder: str = ""
    held: bool = False

    @property
    def name(self) -> str:
        """Its path below the SR's folder."""
        return f"{self.folder}{self.vdi}.vhd"

    @property
    def uuid(self) -> bytes:
        """The UUID in its footer: in SM's images it is not the VDI's."""
        return hashlib.blake2b(self.vdi.encode(), digest_size=16).digest()

    def guest_sector(self, block: int, index: int) -> bytes:
        """Return the 512 bytes that the guest wrote there: different in every sector of every disk."""
        seed = f"{self.vdi} {block} {index}".encode()
        return hashlib.blake2b(seed, digest_size=64).digest() * (SECTOR // 64)

    def guest_data(self) -> dict[int, bytes]:
        """Return everything that the guest wrote: sector -> bytes."""
        return {
            block * _SECTORS + index: self.guest_sector(block, index)
            for block, sectors in self.blocks.items()
            for index in sectors
        }

    def made(self) -> bytes:
        """Make the sound image."""
        above = None
        if self.parent is not None:
            parent = next(disk for disk in DISKS if disk.vdi == self.parent)
            above = ParentLink(parent.uuid, parent.name)
        return FORMAT.build(NewImage(GUEST_SIZE, self.uuid, self.guest_data(), above, MADE, self.hidden))


# --------------------------------------------------------------------------- the damage


def _guest_text(raw: bytes) -> bytes:
    """A coalesce overwrote the footer with guest data, and was killed."""
    return raw[:-SECTOR] + (_TEXT * 8)[:SECTOR]


def _odd_length(raw: bytes) -> bytes:
    return raw[:-SECTOR] + bytes(300)


def _preallocated(raw: bytes) -> bytes:
    return raw[:-SECTOR] + bytes(10 << 20)


def _cut_in_block(raw: bytes) -> bytes:
    """The storage ran full in the middle of the last block, after everything that the guest wrote there."""
    return raw[: -SECTOR - BLOCK_SIZE // 2]


def _backup_destroyed(raw: bytes) -> bytes:
    return b"\0" * SECTOR + raw[SECTOR:]


def _marked(raw: bytes) -> bytes:
    """Replace the footer by the mark that tapdisk writes when a VM resumes."""
    return raw[:-SECTOR] + _MARK


def _none(raw: bytes) -> bytes:
    return raw


_LOST = "primary footer invalid: invalid cookie"

DISKS = (
    Disk(
        "5b0c1a7e-3a52-4a05-9f0e-6d1f6e0b7c11",
        "leaf of the disk below; its length is not a multiple of 512",
        {0: range(64), 3: (7, 2000, 4095)},
        _odd_length,
        "error reading primary footer: -22",
        Status.REPAIRED,
        parent="1d994938-058e-102f-80dc-001ec95cb0b6",
    ),
    Disk(
        "1d994938-058e-102f-80dc-001ec95cb0b6",
        "the wiki's case: guest data in the place of the footer",
        {2: range(_SECTORS), 0: range(8, 900), 5: (0, 4095)},
        _guest_text,
        _LOST,
        Status.REPAIRED,
        hidden=True,
    ),
    Disk(
        "c5c0cdc3-c2c4-4c43-a5a2-845f36b866a4",
        "preallocated: ten MiB of zeros in the place of the footer",
        {1: range(300), 7: range(_SECTORS)},
        _preallocated,
        _LOST,
        Status.REPAIRED,
    ),
    Disk(
        "0f2d7c55-8d0b-4c0e-b8a1-90a3f0b3a6de",
        "cut off inside its last block, no written sector missing",
        {0: range(_SECTORS), 4: range(100)},
        _cut_in_block,
        _LOST,
        Status.REPAIRED,
    ),
    Disk(
        "e25e01be-7c1d-4f6a-a3f7-2f4c3a1e9b02",
        "its backup footer is destroyed",
        {6: range(50, 4000)},
        _backup_destroyed,
        "backup footer invalid: invalid cookie",
        Status.REPAIRED,
    ),
    Disk(
        "9a41c0de-55aa-4e1b-8c3d-0a7b6c5d4e3f",
        "healthy: it was repaired by hand since",
        {0: range(16)},
        _none,
        _LOST,
        Status.VALID,
    ),
    Disk(
        "77d3f4a2-1b9c-4d8e-9e6f-5c4b3a291807",
        "in use: another process holds it open read-write",
        {0: range(32), 1: range(32)},
        _marked,
        _LOST,
        Status.REFUSED,
        Reason.IN_USE,
        held=True,
    ),
    Disk(
        "24e9f9a6-c4a6-4fcf-a40b-b57b7c90d2f2",
        "a downloaded copy in a tmp folder",
        {0: range(16)},
        _guest_text,
        _LOST,
        Status.REFUSED,
        Reason.IMAGE_COPY,
        folder="tmpFco2q9/",
    ),
)
