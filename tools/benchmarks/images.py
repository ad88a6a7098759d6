"""`check` and `scan` beside `vhd-util`: large BATs, many images, a damaged header. Called by ``run.py``.

`vhd-util check` compares every pair of blocks: at 1,044,480 blocks (a full 2 TiB disk) it would run for about
twenty minutes, so there smfix stands alone, beside an interpreter that does nothing.
"""

from __future__ import annotations

import sys
import uuid
from array import array
from collections.abc import Callable
from pathlib import Path

from smfix.formats.vhd.build import sparse
from smfix.formats.vhd.structs import BLOCK_SIZE

SMALL = 10_000
CHECK_LOOP = 'for f in "$1"/*.vhd; do vhd-util check -n "$f" > /dev/null; done'
STRIDE = 4104
"""Sectors from one block to the next: bitmap, data, and the gap that puts data on page boundaries."""


def full_image(path: Path, blocks: int) -> Path:
    """A disk of `blocks` blocks, every one allocated and none written, as a file with holes."""
    made = sparse(blocks * BLOCK_SIZE, bytes(range(16)), {})
    first = -(-(made.size // 512 + 1) // 8) * 8 + 7
    bat = array("I", range(first, first + blocks * STRIDE, STRIDE))
    if sys.byteorder == "little":
        bat.byteswap()
    with path.open("wb") as image:
        for write in made.writes[:-1]:
            image.seek(write.offset)
            image.write(write.data)
        image.seek(1536)
        image.write(bat.tobytes())
        image.seek((first + (blocks - 1) * STRIDE + 4097) * 512)
        image.write(made.footer.encode())
    return path


def small_images(folder: Path, count: int) -> Path:
    """`count` small disks, every other one with a block."""
    folder.mkdir()
    for number in range(count):
        name = uuid.UUID(int=number + 1 << 64)
        made = sparse(64 << 20, name.bytes, {0: {0: b"x" * 512}} if number % 2 else {})
        with (folder / f"{name}.vhd").open("wb") as image:
            for write in made.writes:
                image.seek(write.offset)
                image.write(write.data)
    return folder


def bad_header(path: Path) -> Path:
    """A small disk whose header's cookie is gone."""
    raw = bytearray(sparse(64 << 20, bytes(range(16)), {0: {0: b"x" * 512}}).to_bytes())
    raw[512:520] = bytes(8)
    path.write_bytes(raw)
    return path


def comparisons(folder: Path, smfix: str) -> list[tuple[str, list[str], str, list[str], int]]:
    """(name, words, other name, other words, most pairs) of every comparison, its images made."""
    nothing = [sys.executable, "-c", "pass"]
    rows: list[tuple[str, list[str], str, list[str], int]] = []
    for blocks in (10_000, 100_000):
        image = str(full_image(folder / f"{blocks}.vhd", blocks))
        name = f"check, {blocks:,} blocks"
        rows.append((f"smfix {name}", [smfix, "check", image], "vhd-util check", ["vhd-util", "check", "-n", image], 3))
    image = str(full_image(folder / "full.vhd", 1_044_480))
    rows.append(("smfix check, 1,044,480 blocks", [smfix, "check", image], "python -c pass", nothing, 9))
    many = str(small_images(folder / "many", SMALL))
    scan = [smfix, "scan", many]
    loop = ["bash", "-c", CHECK_LOOP, "loop", many]
    rows.append((f"smfix scan, {SMALL:,} images", scan, "vhd-util check, a loop", loop, 3))
    theirs = ["vhd-util", "scan", "-f", "-m", f"{many}/*.vhd"]
    rows.append((f"smfix scan, {SMALL:,} images", scan, "vhd-util scan -f", theirs, 7))
    damaged = str(bad_header(folder / "header.vhd"))
    check = ["vhd-util", "check", "-n", damaged]
    rows.append(("smfix check, header damaged", [smfix, "check", damaged], "vhd-util check", check, 1))
    return rows


Compare = Callable[[str, list[str], str, list[str], int], None]


def measure(folder: Path, smfix: str, compare: Compare) -> None:
    """Make the images, and hand each comparison to `compare`."""
    folder.mkdir(exist_ok=True)
    for row in comparisons(folder, smfix):
        compare(*row)
