"""Writes guest data into an image as tapdisk does: what a running VM would have written.

Used for the children that ``vhd-util coalesce`` then merges down with its own code, and for the crashes in which
a block is written and its BAT entry is not. Blocks go behind the end of data, their data on a page boundary; the
batmap's bit is set where every sector is written; the footer goes to the end last.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from matrix.reader import SECTOR, Layout, byte_sum, layout

PAGE = 4096
Runs = Sequence[tuple[int, int]]
ALL = ((0, 4096),)
"""Every sector of a 2 MiB block."""


def content(seed: str, block: int, block_size: int = 2 << 20) -> bytes:
    """The data of one block: never NUL, never twice the same, the same in every run."""
    raw = random.Random(f"{seed}/{block}").randbytes(block_size)
    return raw.replace(b"\0\0\0\0\0\0\0\0", b"smfixsmf")


def put(path: Path, blocks: Mapping[int, Runs], seed: str) -> None:
    """Write runs of sectors of `blocks`, in the mapping's order, each with its own content."""
    raw = bytearray(path.read_bytes())
    found = layout(raw)
    assert found is not None, f"{path} cannot be opened"
    end = found.end_of_data
    del raw[end:]
    for block, runs in blocks.items():
        at = found.bat[block]
        if at is None:
            at = -(-(len(raw) + found.bitmap_size) // PAGE) * PAGE - found.bitmap_size
            found.bat[block] = at
            raw.extend(bytes(at + found.space - len(raw)))
            struct.pack_into(">I", raw, found.table_at + 4 * block, at // SECTOR)
        fill(raw, found, at, runs, content(seed, block, found.block_size))
        _mark_full(raw, found, block, at)
    raw += found.footer
    path.write_bytes(raw)


def fill(raw: bytearray, found: Layout, at: int, runs: Runs, data: bytes) -> None:
    """Put the sectors of `runs` of a block at `at`: data first, then their bits."""
    for low, high in runs:
        start = at + found.bitmap_size + low * SECTOR
        raw[start : start + (high - low) * SECTOR] = data[low * SECTOR : high * SECTOR]
        for sector in range(low, high):
            raw[at + (sector >> 3)] |= 0x80 >> (sector & 7)


def _mark_full(raw: bytearray, found: Layout, block: int, at: int) -> None:
    size = found.block_size // SECTOR // 8
    if found.batmap_at is not None and raw[at : at + size].count(0xFF) == size:
        raw[found.batmap_map_at + (block >> 3)] |= 0x80 >> (block & 7)
        seal_batmap(raw, found)


def seal_batmap(raw: bytearray, found: Layout) -> None:
    """Put the checksum that the map demands into the batmap's header."""
    assert found.batmap_at is not None
    summed = -(-(found.size >> 24) // SECTOR) * SECTOR or SECTOR
    bits = bytes(raw[found.batmap_map_at : found.batmap_map_at + summed])
    struct.pack_into(">I", raw, found.batmap_at + 24, byte_sum(bits))
