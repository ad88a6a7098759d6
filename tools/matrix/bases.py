"""The base images: recipes that real tools carry out.

Every base is an SR folder with one image under test and its relatives, each with guest data. ``vhd-util`` makes,
snapshots, resizes and coalesces; ``qemu-img`` and ``qemu-io`` make and write theirs. Guest data gets into a tap image
as it does on a host: written to a child as tapdisk would (:mod:`matrix.writer`), merged down by ``vhd-util coalesce``.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from matrix import reader, writer
from matrix.reader import SECTOR
from matrix.writer import ALL, Runs

VDI = "5b6ab4e1-9c1d-4a3f-8f57-0c9d1a2b3c4d"
PARENT = "0a7e3a52-61f0-4d39-9e0a-7d1f8e6b5a49"
CHILD = "c3f0d7a8-2b94-4e6d-b1c5-93e8a7f60d21"
SCRATCH = "ee000000-0000-4000-8000-0000000000ee"
MIB = 1 << 20


@lru_cache(maxsize=4)  # what is held in memory makes every process slower to start
def _bytes_of(path: Path) -> bytes:
    return path.read_bytes()


@dataclass(frozen=True)
class Base:
    """One made base. `image` is the file under test, `relatives` what lies beside it; `truth` is its guest disk."""

    name: str
    tool: str
    note: str
    folder: Path

    @property
    def image(self) -> Path:
        return self.folder / f"{VDI}.vhd"

    @property
    def relatives(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.suffix == ".vhd" and path != self.image)

    @property
    def truth(self) -> bytes:
        return _bytes_of(self.folder / "truth")

    @property
    def parent_truth(self) -> bytes | None:
        path = self.folder / "truth of the parent"
        return _bytes_of(path) if path.exists() else None


def read_truth(base: Base) -> Base:
    """Read the guest disk with the independent reader, once, and keep it beside the image."""
    parent = base.folder / f"{PARENT}.vhd"
    if parent.exists():
        above = reader.guest(parent.read_bytes())
        assert above is not None, base.name
        (base.folder / "truth of the parent").write_bytes(above)
    got = reader.guest(base.image.read_bytes(), base.parent_truth)
    assert got is not None, base.name
    (base.folder / "truth").write_bytes(got)
    return base


@dataclass(frozen=True)
class Recipe:
    """How a base is made: `make` fills the folder."""

    name: str
    tool: str
    note: str
    make: Callable[[Path], None]


def run(*words: str | Path) -> str:
    """Run one of the real tools; its output. Raises where it fails."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: exit {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def create(path: Path, mib: int, *, reserve: int | None = None) -> None:
    run("vhd-util", "create", "-n", path, "-s", str(mib), *(["-S", str(reserve)] if reserve else []))


def coalesce(path: Path, blocks: Mapping[int, Runs], seed: str) -> None:
    """Guest data into `path`, written there by ``vhd-util coalesce`` from a child that is then deleted."""
    child = path.parent / f"{SCRATCH}.vhd"
    run("vhd-util", "snapshot", "-n", child, "-p", path, "-e")
    writer.put(child, blocks, seed)
    run("vhd-util", "coalesce", "-n", child)
    child.unlink()


def snapshot(parent: Path, child: Path) -> None:
    """What SM does: a child on a parent that is hidden from then on."""
    run("vhd-util", "snapshot", "-n", child, "-p", parent, "-e")
    run("vhd-util", "set", "-n", parent, "-f", "hidden", "-v", "1")


# --------------------------------------------------------------------------- the recipes


def _dynamic(folder: Path) -> None:
    path = folder / f"{VDI}.vhd"
    create(path, 32)
    blocks = {0: ALL, 1: ((0, 63), (128, 1024)), 3: ALL, 5: ((17, 18), (4000, 4096)), 6: ((8, 16),)}
    coalesce(path, blocks | {15: ((0, 1), (100, 228), (4095, 4096))}, "dynamic")


def _leaf(folder: Path) -> None:
    parent, path = folder / f"{PARENT}.vhd", folder / f"{VDI}.vhd"
    create(parent, 32)
    coalesce(parent, {0: ALL, 1: ((0, 2048),), 2: ((8, 4000),), 7: ALL}, "leaf's parent")
    snapshot(parent, path)
    coalesce(path, {1: ((1000, 3000),), 2: ALL, 4: ((0, 8), (512, 1024)), 7: ((40, 48),), 15: ((1, 4095),)}, "leaf")


def _middle(folder: Path) -> None:
    parent, path, child = folder / f"{PARENT}.vhd", folder / f"{VDI}.vhd", folder / f"{CHILD}.vhd"
    create(parent, 32)
    coalesce(parent, {0: ALL, 4: ((0, 4000),), 9: ALL}, "middle's parent")
    snapshot(parent, path)
    coalesce(path, {0: ((0, 64), (2048, 2112)), 3: ALL, 4: ((3000, 4096),), 11: ((0, 777),)}, "middle")
    snapshot(path, child)
    writer.put(child, {3: ((0, 512),), 11: ALL, 12: ((5, 100),), 14: ALL}, "middle's child")


def _sparse(folder: Path) -> None:
    path = folder / f"{VDI}.vhd"
    create(path, 64)
    coalesce(path, {9: ((0, 8), (63, 64)), 30: ((2048, 2056),)}, "sparse")


def _out_of_order(folder: Path) -> None:
    path = folder / f"{VDI}.vhd"
    create(path, 32)
    for block, runs in {11: ALL, 2: ((1, 4000),), 15: ((0, 4095),), 0: ((4000, 4096),), 7: ALL}.items():
        coalesce(path, {block: runs}, "order")


def _two_tib(folder: Path) -> None:
    path = folder / f"{VDI}.vhd"
    create(path, 32, reserve=2 << 20)
    coalesce(path, {0: ALL, 2: ((0, 100),), 8: ((50, 4050),), 9: ALL}, "2 TiB")


def _resized(folder: Path) -> None:
    path = folder / f"{VDI}.vhd"
    create(path, 24)
    coalesce(path, {0: ALL, 2: ((0, 100),), 11: ((50, 4050),)}, "before the resize")
    run("vhd-util", "resize", "-n", path, "-s", "48", "-j", folder / "journal")
    (folder / "journal").unlink(missing_ok=True)
    coalesce(path, {1: ((0, 4096),), 13: ((7, 4000),), 20: ALL}, "after the resize")


def _preallocated(folder: Path) -> None:
    """The file system gave more room than was asked for: NUL between the last block and the footer."""
    path = folder / f"{VDI}.vhd"
    create(path, 32)
    coalesce(path, {0: ((0, 4000),), 4: ALL, 5: ((9, 90),), 12: ((2000, 4096),)}, "preallocated")
    raw = path.read_bytes()
    path.write_bytes(raw[:-SECTOR] + bytes(3 * MIB + SECTOR) + raw[-SECTOR:])


def _gap(folder: Path) -> None:
    """A block was deleted from the middle by a tool that leaves its place empty: NUL between two blocks."""
    path = folder / f"{VDI}.vhd"
    create(path, 32)
    coalesce(path, {2: ALL, 6: ((1, 4000),)}, "gap")
    raw = path.read_bytes()
    path.write_bytes(raw[:-SECTOR] + bytes(2 * MIB + 4096) + raw[-SECTOR:])
    found = reader.layout(path.read_bytes())
    assert found is not None
    # The next block goes behind the gap, as it would for a writer that trusts the end of the file.
    at = found.file_size - SECTOR
    at = -(-(at + found.bitmap_size) // writer.PAGE) * writer.PAGE - found.bitmap_size
    raw = bytearray(path.read_bytes()[:-SECTOR])
    raw.extend(bytes(at + found.space - len(raw)))
    writer.fill(raw, found, at, ((0, 2000),), writer.content("gap", 9))
    raw[found.table_at + 36 : found.table_at + 40] = (at // SECTOR).to_bytes(4, "big")
    path.write_bytes(raw + found.footer)
    coalesce(path, {9: ((3000, 3100),), 14: ALL}, "gap, later")


def _all_blocks(folder: Path) -> None:
    path = folder / f"{VDI}.vhd"
    create(path, 10)
    blocks = {3: ((0, 3000),), 0: ALL, 4: ((1, 4096),), 1: ALL, 2: ((7, 8), (100, 4000))}
    for block, runs in blocks.items():
        coalesce(path, {block: runs}, "all")


def _qemu_write(path: Path, writes: Mapping[tuple[int, int], str]) -> None:
    for (offset, length), seed in writes.items():
        piece = path.parent / "piece"
        piece.write_bytes(writer.content(seed, offset, length))
        run("qemu-io", "-f", "vpc", "-c", f"write -q -s {piece} {offset} {length}", path)
        piece.unlink()


def _qemu(folder: Path) -> None:
    """No multiple of 2 MiB: the last block is partial, and it is written to its last sector."""
    path = folder / f"{VDI}.vhd"
    run("qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=dynamic", path, "31M")
    found = reader.layout(path.read_bytes())
    assert found is not None
    assert found.size % (2 * MIB)
    last = found.size // (2 * MIB) * 2 * MIB
    writes = {(0, 2 * MIB): "q0", (5 * MIB, 4096): "q1", (20 * MIB, MIB): "q2", (9 * MIB, 8192): "q3"}
    _qemu_write(path, writes | {(last, found.size - last): "q4"})


def _qemu_convert(folder: Path) -> None:
    path, raw = folder / f"{VDI}.vhd", folder / "raw"
    with raw.open("wb") as file:
        file.truncate(32 * MIB)
        for offset, length in ((0, MIB), (6 * MIB, 2 * MIB), (11 * MIB + 512, 1024), (27 * MIB, 4 * MIB)):
            file.seek(offset)
            file.write(writer.content("convert", offset, length))
    run("qemu-img", "convert", "-q", "-f", "raw", "-O", "vpc", "-o", "subformat=dynamic", raw, path)
    raw.unlink()


def _qemu_force(folder: Path) -> None:
    """Healthy, but ``vhd-util check`` finds its geometry too large (hazards, 13)."""
    path = folder / f"{VDI}.vhd"
    run("qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=dynamic,force_size=on", path, "32M")
    _qemu_write(path, {(0, 65536): "f0", (8 * MIB, 2 * MIB): "f1", (30 * MIB, 2 * MIB): "f2"})


def _fixed(folder: Path) -> None:
    """``create -r`` writes NUL; the guest's data is put where its number is."""
    path = folder / f"{VDI}.vhd"
    run("vhd-util", "create", "-n", path, "-s", "8", "-r")
    with path.open("r+b") as file:
        for offset, length in ((0, MIB), (3 * MIB + 512, 4096), (6 * MIB, 2 * MIB)):
            file.seek(offset)
            file.write(writer.content("fixed", offset, length))


def _qemu_fixed(folder: Path) -> None:
    """No multiple of 2 MiB, and written to its last sector."""
    path = folder / f"{VDI}.vhd"
    run("qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=fixed", path, "7M")
    found = reader.layout(path.read_bytes())
    assert found is not None
    last = found.size - MIB // 2
    with path.open("r+b") as file:
        for offset, length in ((0, 4096), (2 * MIB, MIB), (last, found.size - last)):
            file.seek(offset)
            file.write(writer.content("qemu fixed", offset, length))


RECIPES = (
    Recipe("tap-dynamic", "vhd-util create, coalesce", "32 MiB, 6 blocks, full and partial", _dynamic),
    Recipe("tap-leaf", "vhd-util snapshot, coalesce", "differencing, its hidden parent beside it", _leaf),
    Recipe("tap-middle", "vhd-util snapshot twice, coalesce", "differencing, parent above, child below", _middle),
    Recipe("tap-sparse", "vhd-util create, coalesce", "64 MiB, two blocks, few sectors", _sparse),
    Recipe("tap-out-of-order", "vhd-util coalesce five times", "blocks out of order", _out_of_order),
    Recipe("tap-2tib-bat", "vhd-util create -S 2097152", "32 MiB with a BAT for 2 TiB", _two_tib),
    Recipe("tap-resized", "vhd-util resize -j", "24 MiB resized to 48 MiB, data before and after", _resized),
    Recipe("tap-preallocated", "vhd-util create, coalesce", "3 MiB of NUL before the footer", _preallocated),
    Recipe("tap-gap", "vhd-util create, coalesce", "an empty block-sized gap between blocks", _gap),
    Recipe("tap-all-blocks", "vhd-util coalesce five times", "10 MiB, every block allocated", _all_blocks),
    Recipe("qemu-dynamic", "qemu-img create, qemu-io", "partial last block, written", _qemu),
    Recipe("qemu-convert", "qemu-img convert -O vpc", "from a sparse raw disk", _qemu_convert),
    Recipe("qemu-force-size", "qemu-img create -o force_size=on", "check calls the sound image invalid", _qemu_force),
    Recipe("tap-fixed", "vhd-util create -r", "fixed, 8 MiB, written at both ends", _fixed),
    Recipe("qemu-fixed", "qemu-img create -o subformat=fixed", "fixed, no multiple of 2 MiB", _qemu_fixed),
)


def make(recipe: Recipe, home: Path) -> Base:
    """Make the base in a folder of its own below `home`; read its guest disk with the independent reader."""
    folder = home / recipe.name
    folder.mkdir(parents=True)
    recipe.make(folder)
    for name in os.listdir(folder):
        assert name.endswith(".vhd"), name
    return read_truth(Base(recipe.name, recipe.tool, recipe.note, folder))
