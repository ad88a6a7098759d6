"""Bases made without any tool, for the sample that runs in ``make test``: small, and the same in every run."""

from __future__ import annotations

import struct
from pathlib import Path

from matrix import writer
from matrix.bases import CHILD, PARENT, VDI, Base, read_truth
from matrix.damage import seal_footer
from matrix.writer import ALL
from smfix.formats.vhd import build as vhd_make
from smfix.formats.vhd.build import ParentRef, sparse

SIZE = 12 << 20
UUIDS = {VDI: b"\x11" * 16, PARENT: b"\x22" * 16, CHILD: b"\x33" * 16}


def dynamic(folder: Path) -> None:
    _empty(folder, VDI)
    blocks = {3: ALL, 0: ((0, 4000),), 5: ((17, 18), (300, 1000))}
    writer.put(folder / f"{VDI}.vhd", blocks, "synthetic dynamic")


def middle(folder: Path) -> None:
    """A parent above, a child below."""
    _empty(folder, PARENT)
    writer.put(folder / f"{PARENT}.vhd", {1: ALL, 4: ((0, 2000),)}, "synthetic parent")
    _empty(folder, VDI, PARENT)
    writer.put(folder / f"{VDI}.vhd", {4: ((1000, 3000),), 1: ((5, 4000),), 2: ALL}, "synthetic middle")
    _empty(folder, CHILD, VDI)
    writer.put(folder / f"{CHILD}.vhd", {0: ((7, 8),), 2: ((0, 64),)}, "synthetic child")


def foreign(folder: Path) -> None:
    """As another creator lays it out: no batmap, blocks back to back, every bitmap full."""
    path = folder / f"{VDI}.vhd"
    made = bytearray(sparse(SIZE, UUIDS[VDI], {}).to_bytes()[:2048])
    footer = seal_footer(made[:28] + b"qemu" + b"\0\x05\0\x03" + made[36:512])
    made[:512] = footer
    for index, block in enumerate((2, 0, 5)):
        at = 2048 + index * (512 + (2 << 20))
        struct.pack_into(">I", made, 1536 + 4 * block, at // 512)
        made += b"\xff" * 512 + writer.content("synthetic foreign", block)
    path.write_bytes(made + footer)


def fixed(folder: Path) -> None:
    made = vhd_make.fixed(SIZE, UUIDS[VDI], writer.content("synthetic fixed", 0, SIZE))
    (folder / f"{VDI}.vhd").write_bytes(made.to_bytes())


def _empty(folder: Path, name: str, parent: str | None = None) -> None:
    above = None if parent is None else ParentRef(UUIDS[parent], f"{parent}.vhd")
    hidden = int(name == PARENT or (name == VDI and parent is not None))
    (folder / f"{name}.vhd").write_bytes(sparse(SIZE, UUIDS[name], {}, parent=above, hidden=hidden).to_bytes())


MAKERS = {"made-dynamic": dynamic, "made-middle": middle, "made-foreign": foreign, "made-fixed": fixed}


def make(name: str, home: Path) -> Base:
    """The base `name` in a folder of its own below `home`."""
    folder = home / name
    folder.mkdir()
    MAKERS[name](folder)
    return read_truth(Base(name, "smfix.formats.vhd.build", "made without tools", folder))
