"""What ``vhd-util read -p`` printed of many images, as data: ``fixtures/images/vhd-util-read.jsonl.xz``.

``python -m matrix.dumps`` records it anew (needs vhd-util and qemu-img; with SMFIX_MATRIX_PRELOAD half a minute, see
matrix.verdicts). Images of the real tools and of smfix's own maker are kept whole, as the sectors that are not NUL;
mutants are kept by number. Recorded in UTC, the image's path written IMAGE.
"""

from __future__ import annotations

import base64
import json
import lzma
import os
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from matrix import mutants, treatments
from matrix.bases import create, run
from matrix.mutants import SECTOR, Sparse, seal
from smfix.formats.vhd import build, structs
from smfix.formats.vhd.structs import Header, ParentLocator, PlatformCode
from smfix.report.escape import printable

FILE = Path(__file__).resolve().parents[2] / "fixtures" / "images" / "vhd-util-read.jsonl.xz"
STEP = 16
"""Every so many mutants one is recorded."""
MIB = 1 << 20
UUID = bytes(range(1, 17))
PARENT = build.ParentRef(bytes(range(100, 116)), "parent.vhd", 500_000_000)
Image = Callable[[Path], None]


@dataclass(frozen=True)
class Dump:
    """One image, what the tool printed of it (a byte a character) and its exit code (negative: a signal)."""

    name: str
    image: Sparse
    said: str
    code: int


# --------------------------------------------------------------------------- the images


def _created(mib: int, *options: str) -> Image:
    return lambda path: run("vhd-util", "create", "-n", path, "-s", str(mib), *options) and None


def _qemu(size: str, *options: str) -> Image:
    return lambda path: run("qemu-img", "create", "-q", "-f", "vpc", *options, path, size) and None


def _then(make_it: Image, *steps: tuple[str, ...]) -> Image:
    """`make_it`, then vhd-util with each of `steps` (its command first, NAME is the image)."""

    def made(path: Path) -> None:
        make_it(path)
        for words in steps:
            run("vhd-util", *(str(path) if word == "NAME" else word for word in words))

    return made


def _child(*options: str, raw: bool = False) -> Image:
    def made(path: Path) -> None:
        parent = path.with_name("parent.vhd")
        if raw:
            with parent.open("wb") as file:
                file.truncate(8 * MIB)
        else:
            create(parent, 8)
        run("vhd-util", "snapshot", "-n", path, "-p", parent, "-e", *(["-m"] if raw else []), *options)

    return made


def _bytes(raw: bytes) -> Image:
    return lambda path: path.write_bytes(raw) and None


def _own(mib: int, **options: object) -> bytes:
    blocks = {0: {5: b"x" * SECTOR}, 1: {n: bytes([n % 251]) * SECTOR for n in range(0, 4096, 64)}} if mib > 2 else {}
    return build.sparse(mib * MIB, UUID, blocks, **options).to_bytes()  # type: ignore[arg-type]


def _put(raw: bytes, at: int, data: bytes) -> bytes:
    at %= len(raw)
    return raw[:at] + data + raw[at + len(data) :]


def _foot(raw: bytes, at: int, data: bytes, *, only: str = "both", sealed: bool = True) -> bytes:
    """Both footers (or `only` the "end" or "backup") with `data` at byte `at` of them."""
    for place in {"both": (0, len(raw) - SECTOR), "end": (len(raw) - SECTOR,), "backup": (0,)}[only]:
        changed = _put(raw[place : place + SECTOR], at, data)
        raw = _put(raw, place, seal(changed, 64) if sealed else changed)
    return raw


def _head(raw: bytes, **changes: object) -> bytes:
    header = replace(structs.parse_header(raw[512:1536]), **changes)  # type: ignore[arg-type]
    return _put(raw, 512, header.sealed().encode())


def _locators(raw: bytes, change: Callable[[Header], list[ParentLocator]]) -> bytes:
    header = structs.parse_header(raw[512:1536])
    entries = change(header)
    return _head(raw, locators=tuple(entries) + (ParentLocator(0, 0, 0, 0, 0),) * (8 - len(entries)))


def _only(code: PlatformCode) -> Callable[[Header], list[ParentLocator]]:
    return lambda header: [entry for entry in header.locators if entry.code == code]


def _first(**changes: int) -> Callable[[Header], list[ParentLocator]]:
    return lambda header: [replace(header.locators[0], **changes), *header.locators[1:]]


def _recipes() -> Iterator[tuple[str, Image]]:
    for mib in (1, 2, 3, 8, 100, 8194, 10240, 102400, 1048576, 2088960):
        yield f"vhd-util create {mib} MiB", _created(mib)
    for mib in (1, 2, 100):
        yield f"vhd-util create {mib} MiB, fixed", _created(mib, "-r")
    yield "vhd-util create, BAT for 2 TiB", _created(8, "-S", "2088960")
    yield "vhd-util create, BAT for 1 GiB", _created(8, "-S", "1024")
    for field, value in (("hidden", "1"), ("marker", "7"), ("hidden", "0")):
        yield f"vhd-util set {field} {value}", _then(_created(8), ("set", "-n", "NAME", "-f", field, "-v", value))
    digest = "c0ffee" + "0" * 52 + "c0ffee"
    yield "vhd-util key", _then(_created(8), ("key", "-s", "-n", "NAME", "-H", digest))
    yield "vhd-util modify, smaller", _then(_created(8), ("modify", "-n", "NAME", "-s", str(6 * MIB)))
    yield "vhd-util resize -f", _then(_created(8, "-S", "64"), ("resize", "-n", "NAME", "-s", "32", "-f"))
    yield "vhd-util snapshot", _child()
    yield "vhd-util snapshot of a raw disk", _child(raw=True)
    yield "vhd-util snapshot, BAT for 2 TiB", _child("-S", "2088960")
    yield "vhd-util snapshot, hidden", _then(_child(), ("set", "-n", "NAME", "-f", "hidden", "-v", "1"))
    for size in ("1M", "5M", "64M", "10G", "127G", "500G", "2040G"):
        yield f"qemu-img create {size}", _qemu(size)
        yield f"qemu-img create {size}, force_size", _qemu(size, "-o", "force_size=on")
    yield "qemu-img create 1M, fixed", _qemu("1M", "-o", "subformat=fixed")
    yield "qemu-img create 3M, fixed, force_size", _qemu("3M", "-o", "subformat=fixed,force_size=on")
    for mib in (1, 2, 4, 64):
        yield f"smfix {mib} MiB", _bytes(_own(mib))
    yield "smfix, BAT of 4,096", _bytes(_own(8, bat_blocks=4096))
    yield "smfix, hidden", _bytes(_own(8, hidden=1, timestamp=331_551_901))
    yield "smfix, fixed", _bytes(build.fixed(MIB, UUID).to_bytes())
    yield "smfix, differencing", _bytes(_own(8, parent=PARENT))
    yield from _odd_locators()
    yield from _odd_footers()
    yield from _odd_metadata()
    yield from _damaged()


def _odd_locators() -> Iterator[tuple[str, Image]]:
    child = _own(8, parent=PARENT)
    data = structs.parse_header(child[512:1536]).locators[0].data_offset
    for code in (PlatformCode.MACX, PlatformCode.W2KU, PlatformCode.W2RU):
        yield f"one locator {code.name}", _bytes(_locators(child, _only(code)))
    for code in (PlatformCode.WI2R, PlatformCode.WI2K, PlatformCode.MAC):
        yield f"locator {code.name}", _bytes(_locators(child, _first(code=code)))
    yield "locator of an unknown code", _bytes(_locators(child, _first(code=0x58585858)))
    yield "no locator", _bytes(_locators(child, lambda _header: []))
    yield "eight locators", _bytes(_locators(child, lambda header: [header.locators[0]] * 8))
    for space in (0, 1, 2, 511, 513, 1024, 1 << 20, 1 << 31):
        yield f"locator space {space}", _bytes(_locators(child, _first(data_space=space)))
    for length in (0, 6, 7, 8, 9):
        yield f"locator length {length}", _bytes(_locators(child, _first(data_length=length)))
    for at in (0, data + 1, len(child), len(child) - 100, 1 << 62, 1 << 63):
        yield f"locator at {at}", _bytes(_locators(child, _first(data_offset=at)))
    for text in (
        b"http://x/y.vhd",
        b"file://",
        b"file:///run/sr-mount/x y.vhd",
        b"file://caf\xc3\xa9.vhd",
        b"\xff\xfe",
    ):
        changed = _put(_locators(child, _first(data_length=len(text))), data, text.ljust(SECTOR, b"\0"))
        yield f"locator data {text!r}", _bytes(changed)
    windows = "C:\\disks\\par ent.vhd".encode("utf-16-le")
    wide = _locators(child, lambda h: [replace(h.locators[1], data_length=len(windows))])
    yield "locator with a drive", _bytes(_put(wide, data + SECTOR, windows))
    for name in ("", "a", "x" * 255, "c:\\d.vhd", "caf\u00e9"):
        field = name.encode("utf-16-be").ljust(512, b"\0")
        yield f"parent name {name[:12]!r}", _bytes(_head(child, parent_name=field))


def _odd_footers() -> Iterator[tuple[str, Image]]:
    raw = _own(8)
    for at, data, what in (
        (8, b"\0\0\0\3", "temporary"), (8, b"\0\0\0\0", "no features"), (12, b"\0\2\0\7", "file format 2.7"),
        (24, bytes(4), "of the year 2000"), (24, b"\xff" * 4, "of the year 2136"), (28, b"vpc ", "by Virtual PC"),
        (28, b"win\0", "by Windows"), (28, b"\0\0\0\0", "by nobody"), (28, b"ta\x1bp", "by an escape"),
        (32, b"\0\1\0\2", "tap 1.2"), (32, b"\0\1\0\1", "tap 1.1"), (32, b"\0\0\0\1", "tap 0.1"),
        (32, b"\0\2\0\0", "tap 2.0"), (36, b"Wi2k", "of Windows"), (36, b"Mac ", "of Macintosh"),
        (40, b"\xff" * 8, "original size"), (48, b"\0\0\0\0\1\0\0\0", "16 MiB"), (56, b"\xff" * 4, "geometry"),
        (60, b"\0\0\0\0", "type 0"), (60, b"\0\0\0\1", "type 1"), (60, b"\0\0\0\2", "type 2"),
        (60, b"\0\0\0\4", "type 4"), (60, b"\0\0\0\6", "type 6"), (60, b"\0\0\0\7", "type 7"),
        (68, bytes(16), "no UUID"), (84, b"\1", "saved"), (84, b"\7", "saved 7"), (85, b"\x7f", "hidden 127"),
        (85, b"\xff", "hidden 255"), (0, b"v_poison", "poisoned"),
    ):  # fmt: skip
        yield f"footers: {what}", _bytes(_foot(raw, at, data))
    yield "tap 1.1, hidden, not summed", _bytes(_foot(_foot(raw, 32, b"\0\1\0\1"), 85, b"\1", sealed=False))


def _odd_metadata() -> Iterator[tuple[str, Image]]:
    raw = _own(8)
    at = raw.index(b"tdbatmap")
    for where, data, what in (
        (0, b"x", "cookie"), (12, b"\0\0\0\1", "place"), (16, bytes(4), "size 0"), (16, b"\0\0\0\2", "two sectors"),
        (20, b"\0\1\0\1", "version 1.1"), (20, b"\0\2\0\0", "version 2.0"), (24, bytes(4), "checksum"),
        (28, b"\7", "marker"), (29, b"\1" + bytes(range(64)), "key hash"), (29, b"\2", "key hash of another form"),
        (512, b"\xff", "a bit more"),
    ):  # fmt: skip
        yield f"batmap: {what}", _bytes(_put(raw, at + where, data))
    yield "batmap: tap 1.1 without", _bytes(_foot(_put(raw, at, b"x"), 32, b"\0\1\0\1"))
    for changes, what in (
        ({"max_bat_size": 3}, "BAT too small"), ({"max_bat_size": 1 << 31}, "BAT beyond the end"),
        ({"table_offset": 0}, "BAT at 0"), ({"table_offset": 1537}, "BAT inside a sector"),
        ({"table_offset": len(raw)}, "BAT behind the end"), ({"table_offset": len(raw) - 10}, "BAT at the very end"),
        ({"table_offset": 1 << 63}, "BAT beyond 63 bits"), ({"block_size": MIB}, "blocks of 1 MiB"),
        ({"block_size": 4 * MIB}, "blocks of 4 MiB"), ({"block_size": 3 * MIB // 2}, "blocks of 1.5 MiB"),
        ({"block_size": 0}, "blocks of 0"), ({"version": 0x20000}, "header 2.0"), ({"data_offset": 1}, "data offset"),
        ({"reserved1": 5}, "reserved"), ({"parent_uuid": UUID}, "a parent it cannot have"),
        ({"parent_timestamp": 86_400}, "a parent's time"), ({"cookie": b"cxspars\0"}, "cookie"),
    ):  # fmt: skip
        yield f"header: {what}", _bytes(_head(raw, **changes))
    yield "header: checksum", _bytes(_put(raw, 512 + 36, bytes(4)))
    yield "header: first sector gone", _bytes(_put(raw, 512, bytes(512)))
    yield "header: elsewhere", _bytes(_foot(raw, 16, (1 << 20).to_bytes(8, "big")))
    yield "header: behind the end", _bytes(_foot(raw, 16, (1 << 40).to_bytes(8, "big")))
    yield "header: inside a sector", _bytes(_foot(raw, 16, (600).to_bytes(8, "big")))


def _damaged() -> Iterator[tuple[str, Image]]:
    for kind, raw in (("dynamic", _own(8)), ("differencing", _own(8, parent=PARENT))):
        cut = raw[:-SECTOR]
        ends = {
            "cut off": cut, "zeroed": cut + bytes(SECTOR), "the mark": cut + b"\xc7" * SECTOR,
            "twice": raw + raw[:SECTOR], "behind 5 MiB": cut + bytes(5 * MIB) + raw[-SECTOR:],
            "5 MiB of nothing": cut + bytes(5 * MIB),
            "a byte short": raw[:-1], "two bytes short": raw[:-2], "511 of garbage": cut + b"x" * 511,
            "a byte long": raw + b"\0", "511 long": raw + bytes(511), "cookie": _foot(raw, 0, b"x", only="end"),
            "another": _foot(raw, 85, b"\1", only="end"), "unsummed": _foot(raw, 85, b"\1", only="end", sealed=False),
        }  # fmt: skip
        yield from ((f"{kind}, footer: {what}", _bytes(bad)) for what, bad in ends.items())
        yield f"{kind}, backup zeroed", _bytes(_put(raw, 0, bytes(SECTOR)))
        yield f"{kind}, both zeroed", _bytes(_put(cut + bytes(SECTOR), 0, bytes(SECTOR)))
        yield f"{kind}, both garbage", _bytes(_put(cut + b"y" * SECTOR, 0, b"y" * SECTOR))
        yield f"{kind}, both summed wrong", _bytes(_foot(raw, 70, b"\0", sealed=False))
        for size in (0, 1, 511, 512, 1023, 1024, 1535, 1536, 1540, 2048, 2560, 3072):
            yield f"{kind}, first {size} bytes", _bytes(raw[:size])
    yield "fixed, footer cut off", _bytes(build.fixed(MIB, UUID).to_bytes()[:-SECTOR])
    yield "text", _bytes(b"not a VHD at all\n" * 100)


# --------------------------------------------------------------------------- the record


def said_of(path: Path, zone: str = "UTC") -> tuple[str, int]:
    """What the tool prints of the image at `path`, a byte a character, and its exit code."""
    done = subprocess.run(
        ["vhd-util", "read", "-p", "-n", str(path)],
        capture_output=True, check=False, env=treatments.preloaded() | {"TZ": zone}, timeout=treatments.TIME_LIMIT,
    )  # fmt: skip
    return done.stdout.decode("latin-1").replace(str(path), "IMAGE"), done.returncode


def _of_file(path: Path) -> Sparse:
    """The file, without its holes."""
    image = Sparse(path.stat().st_size)
    with path.open("rb") as file:
        at = 0
        while at < image.size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # nothing but a hole is left
                break
            raw = os.pread(file.fileno(), min(MIB, image.size - at), at)
            for start in range(0, len(raw), SECTOR):
                if raw[start : start + SECTOR].strip(b"\0"):
                    image.put(at + start, raw[start : start + SECTOR])
            at += len(raw)
    return image


def _runs(image: Sparse) -> list[tuple[int, str]]:
    """(offset, zlib in base64) of what is not NUL."""
    runs: list[tuple[int, bytearray]] = []
    for number in sorted(image.sectors):
        at = number * SECTOR
        if runs and runs[-1][0] + len(runs[-1][1]) == at:
            runs[-1][1].extend(image.sectors[number])
        else:
            runs.append((at, bytearray(image.sectors[number])))
    return [(at, base64.b64encode(zlib.compress(bytes(raw), 9)).decode()) for at, raw in runs]


def load() -> list[Dump]:
    """Everything that is recorded."""
    dumps = []
    with lzma.open(FILE, "rt", encoding="utf-8") as lines:
        for line in lines:
            one = json.loads(line)
            if "mutant" in one:
                image = mutants.mutant(one["mutant"])
            else:
                image = Sparse()
                for at, raw in one["runs"]:
                    image.put(at, zlib.decompress(base64.b64decode(raw)))
                image.cut(one["size"])
            dumps.append(Dump(one["name"], image, one["said"], one["code"]))
    return dumps


def record() -> None:
    """Make every image, let the tool read it, and write the file."""
    documents = []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        path = folder / "image.vhd"
        for name, make_it in _recipes():
            for old in folder.iterdir():
                old.unlink()
            make_it(path)
            image = _of_file(path)
            said, code = said_of(path)
            documents.append({"name": name, "size": image.size, "runs": _runs(image), "said": said, "code": code})
        for number in range(0, mutants.COUNT, STEP):
            mutants.mutant(number).write(path)
            said, code = said_of(path)
            documents.append({"name": f"mutant {number}", "mutant": number, "said": said, "code": code})
    with lzma.open(FILE, "wt", encoding="utf-8", preset=9) as file:
        file.writelines(json.dumps(document) + "\n" for document in documents)
    print(f"{FILE.name}: {len(documents)} images, {FILE.stat().st_size:,} bytes")


# --------------------------------------------------------------------------- the comparison

EXACT, NO_BAT, NO_HEADER, ABORTED = "the same", "goes on without a BAT", "no BAT in a fixed disk", "the tool aborts"


def rule_of(said: str, code: int, ours: str) -> str | None:
    """Why `ours` may differ from what the tool `said` (decision 14); None: it may not."""
    escaped = "\n".join(
        printable(line.encode("latin-1").decode("ascii", "surrogateescape")) for line in said.split("\n")
    )
    if ours == escaped:
        return EXACT
    if code < 0 and not said and ours.startswith("VHD Footer Summary") and "failed to get batmap header" in ours:
        return ABORTED
    first = said.partition("\n")[0]
    if not first.startswith("Failed to get bat for IMAGE: -") or said != first + "\n":
        return None
    if ours.startswith(said + "VHD Footer Summary:\n"):
        return NO_BAT
    alone = ours.startswith("VHD Footer Summary:\n") and "VHD Header" not in ours and "Dynamic" not in ours
    return NO_HEADER if alone and "Differencing" not in ours else None


if __name__ == "__main__":
    record()
