"""Images by the thousand, each from one number: generated, then mutated field by field. For the differential test.

An image is sparse: a size and the sectors that are not NUL, so that thousands of disks cost nothing. The same
number gives the same bytes on every machine, which is what lets recorded verdicts of ``vhd-util check`` stand in
for the tool. Written without smfix. No timestamp lies near today: the verdict must not change with the year.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from matrix.reader import SECTOR, byte_sum

COUNT = 8000
"""How many numbers have a recorded verdict."""
PARENT_NAME = "parent.vhd"
PARENT_UUID = bytes(range(100, 116))
UUID = bytes(range(1, 17))
TIME = 500_000_000
MIB = 1 << 20
BLOCK = 2 * MIB
SPACE = BLOCK + SECTOR
UNUSED = 0xFFFFFFFF


class Sparse:
    """A file that is mostly holes: a `ByteView` of its own, and something to write to disk."""

    growable = True

    def __init__(self, size: int = 0) -> None:
        self.size = size
        self.sectors: dict[int, bytearray] = {}

    def put(self, at: int, data: bytes) -> None:
        """Write `data` at byte `at`; the file grows where needed."""
        self.size = max(self.size, at + len(data))
        while data:
            number, inside = divmod(at, SECTOR)
            piece = data[: SECTOR - inside]
            self.sectors.setdefault(number, bytearray(SECTOR))[inside : inside + len(piece)] = piece
            at, data = at + len(piece), data[len(piece) :]

    def get(self, at: int, length: int) -> bytes:
        """The bytes at `at`; short where the file ends."""
        length = max(0, min(length, self.size - at))
        raw = bytearray(length)
        first, last = at // SECTOR, -(-(at + length) // SECTOR)
        few = range(first, last) if last - first < len(self.sectors) else list(self.sectors)
        for number in few:
            sector = self.sectors.get(number)
            if sector is None or not first <= number < last:
                continue
            start = number * SECTOR - at
            low, high = max(0, start), min(length, start + SECTOR)
            raw[low:high] = sector[low - start : high - start]
        return bytes(raw)

    def read(self, extent) -> bytes:
        """As smfix asks."""
        return self.get(extent.offset, extent.length)

    def cut(self, size: int) -> None:
        """Truncate, or extend with a hole."""
        self.size = max(0, size)
        for number in [n for n in self.sectors if n * SECTOR >= self.size]:
            del self.sectors[number]
        tail = self.size % SECTOR
        if tail and self.size // SECTOR in self.sectors:
            self.sectors[self.size // SECTOR][tail:] = bytes(SECTOR - tail)

    def write(self, path: Path) -> None:
        """Put it on disk, holes as holes."""
        with path.open("wb") as file:
            for number, sector in sorted(self.sectors.items()):
                os.pwrite(file.fileno(), sector[: self.size - number * SECTOR], number * SECTOR)
            os.ftruncate(file.fileno(), self.size)


def chs(size: int) -> int:
    """Geometry (specification, CHS calculation)."""
    sectors = min(size // SECTOR, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        return (sectors // 255 // 16) << 16 | 16 << 8 | 255
    heads = max(-(-(sectors // 17) // 1024), 4)
    if sectors // 17 < heads * 1024 and heads <= 16:
        return (sectors // 17 // heads) << 16 | heads << 8 | 17
    spt = 31 if sectors // 31 < 16 * 1024 else 63
    return (sectors // spt // 16) << 16 | 16 << 8 | spt


def seal(raw: bytes, at: int) -> bytes:
    """`raw` with the checksum it demands in its 4 bytes at `at`."""
    return raw[:at] + struct.pack(">I", byte_sum(raw[:at] + bytes(4) + raw[at + 4 :])) + raw[at + 4 :]


def footer(
    size: int, kind: int, *, uuid: bytes = UUID, creator: bytes = b"tap\0", version: int = 0x10003, hidden: int = 0
) -> bytes:
    offset = 0xFFFFFFFFFFFFFFFF if kind == 2 else SECTOR
    raw = struct.pack(
        ">8sIIQI4sIIQQIII16sBB426x", b"conectix", 2, 0x10000, offset, TIME, creator, version, 0, size, size,
        chs(size), kind, 0, uuid, 0, hidden,
    )  # fmt: skip
    return seal(raw, 64)


@dataclass
class Subject:
    """An image in the making: where its structures lie, so that mutations can aim."""

    image: Sparse
    size: int
    kind: int
    entries: int
    placed: dict[int, int] = field(default_factory=dict)
    batmap_at: int | None = None
    map_at: int = 0
    locators: list[int] = field(default_factory=list)
    end_of_headers: int = 0

    @property
    def blocks(self) -> int:
        return -(-self.size // BLOCK)

    def reseal_batmap(self) -> None:
        if self.batmap_at is not None:
            summed = -(-(self.size >> 24) // SECTOR) * SECTOR or SECTOR
            total = struct.pack(">I", byte_sum(self.image.get(self.map_at, summed)))
            self.image.put(self.batmap_at + 24, total)


def build(rng: random.Random) -> Subject:
    """A sound image: dynamic, differencing or (seldom) fixed; tap of several versions, or foreign."""
    kind = rng.choices((3, 4, 2), (60, 30, 4))[0]
    size = rng.choice((1, 2, 3, 4, 5, 8, 16, 31, 32, 64, 130, 8194)) * MIB
    if rng.random() < 0.2:
        size += rng.choice((512, MIB // 2, MIB, 4096 * 3))
    image = Sparse()
    if kind == 2:
        image.put(size, footer(size, 2, hidden=rng.choice((0, 0, 1))))
        return Subject(image, size, 2, 0)
    creator, version = rng.choices(
        ((b"tap\0", 0x10003), (b"tap\0", 0x10002), (b"tap\0", 0x10001), (b"qemu", 0x50003), (b"vpc ", 0x50000)),
        (70, 6, 6, 12, 6),
    )[0]
    blocks = -(-size // BLOCK)
    entries = blocks if rng.random() < 0.7 else blocks + rng.choice((1, 7, 127, 128, 129, 1000))
    subject = Subject(image, size, kind, entries)
    at = 1536 + -(-entries * 4 // SECTOR) * SECTOR
    if creator == b"tap\0" and (version > 0x10001 or rng.random() < 0.6):
        subject.batmap_at, subject.map_at = at, at + SECTOR
        at += SECTOR + -(-entries // 8 // SECTOR) * SECTOR + (SECTOR if entries < 8 else 0)
        at = subject.map_at + (-(-entries // 4096) or 1) * SECTOR
    header = _header(subject, at) if kind == 4 else _plain_header(entries)
    if kind == 4:
        at += 3 * SECTOR
    subject.end_of_headers = at
    image.put(SECTOR, seal(header, 36))
    _blocks(subject, rng)
    end = footer(size, kind, creator=creator, version=version, hidden=rng.choice((0, 0, 0, 1)))
    image.put(0, end)
    slack = rng.choices((0, SECTOR, 3 * SECTOR, BLOCK + 4096), (80, 5, 5, 5))[0]
    image.put(image.size + slack, end)
    return subject


def _plain_header(entries: int) -> bytes:
    return struct.pack(">8sQQIII4x984x", b"cxsparse", 0xFFFFFFFFFFFFFFFF, 1536, 0x10000, entries, BLOCK)


def _header(subject: Subject, at: int) -> bytes:
    """A header with a parent, its locators' data put at `at`."""
    raw = bytearray(_plain_header(subject.entries))
    raw[40:56] = PARENT_UUID
    struct.pack_into(">I", raw, 56, TIME)
    name = PARENT_NAME.encode("utf-16-be")
    raw[64 : 64 + len(name)] = name
    url = f"file://./{PARENT_NAME}".encode()
    windows = f".\\{PARENT_NAME}".encode("utf-16-le")
    for index, (code, data) in enumerate(((0x4D616358, url), (0x57326B75, windows), (0x57327275, windows))):
        struct.pack_into(">IIIIQ", raw, 576 + 24 * index, code, SECTOR, len(data), 0, at)
        subject.image.put(at, data.ljust(SECTOR, b"\0"))
        subject.locators.append(at)
        at += SECTOR
    return bytes(raw)


def _blocks(subject: Subject, rng: random.Random) -> None:
    image = subject.image
    table = bytearray(b"\xff" * (subject.entries * 4))
    bits = bytearray((-(-subject.entries // 4096) or 1) * SECTOR)
    at = subject.end_of_headers
    chosen = rng.sample(range(subject.blocks), min(subject.blocks, rng.choice((0, 1, 2, 3, 5))))
    for block in chosen:
        if subject.batmap_at is not None or rng.random() < 0.5:
            at = -(-(at + SECTOR) // 4096) * 4096 - SECTOR
        subject.placed[block] = at
        struct.pack_into(">I", table, 4 * block, at // SECTOR)
        full = rng.random() < 0.4
        image.put(at, b"\xff" * SECTOR if full else b"\xf0" + bytes(SECTOR - 1))
        if full:
            bits[block >> 3] |= 0x80 >> (block & 7)
        image.put(at + SECTOR, b"guest data".ljust(SECTOR, b"."))
        at += SPACE
    image.put(1536, bytes(table).ljust(-(-len(table) // SECTOR) * SECTOR, b"\0"))
    if subject.batmap_at is not None:
        head = struct.pack(">8sQIII", b"tdbatmap", subject.map_at, len(bits) // SECTOR, 0x10002, 0)
        image.put(subject.batmap_at, head.ljust(SECTOR, b"\0"))
        image.put(subject.map_at, bytes(bits))
        subject.reseal_batmap()
    image.cut(max(image.size, at))


# --------------------------------------------------------------------------- mutations

FOOTER_FIELDS = (
    (0, 8), (8, 4), (12, 4), (16, 8), (24, 4), (28, 4), (32, 4), (36, 4), (40, 8), (48, 8), (56, 4), (60, 4), (64, 4),
    (68, 16), (84, 1), (85, 1), (86, 1), (87, 1), (511, 1),
)  # fmt: skip
HEADER_FIELDS = (
    (0, 8), (8, 8), (16, 8), (24, 4), (28, 4), (32, 4), (36, 4), (40, 16), (56, 4), (60, 4), (64, 2), (66, 2), (575, 1),
    (768, 1), (769, 1), (1023, 1),
)  # fmt: skip
LOCATOR_FIELDS = ((0, 4), (4, 4), (8, 4), (12, 4), (16, 8))
BATMAP_FIELDS = ((0, 8), (8, 8), (16, 4), (20, 4), (24, 4), (28, 1), (94, 1))
FUTURE = 0xF0000000
NEAR = range(TIME + 1, FUTURE)


def _value(rng: random.Random, old: bytes) -> bytes:
    """Another value for a field: its edges, its neighbours, one bit flipped, or chance."""
    width = len(old)
    number = int.from_bytes(old, "big")
    top = (1 << (8 * width)) - 1
    choices = (
        0, 1, 2, 3, 7, top, top - 1, number + 1, number - 1, number ^ 1 << rng.randrange(8 * width), number << 1,
        number >> 1, rng.getrandbits(8 * width), number + SECTOR, number + BLOCK,
    )  # fmt: skip
    return (rng.choice(choices) & top).to_bytes(width, "big")


def _no_clock(at: int, offset: int, value: bytes) -> bytes:
    """A timestamp between then and a century from now would make the verdict depend on the day."""
    number = int.from_bytes(value, "big")
    return value if at != offset or number not in NEAR else struct.pack(">I", FUTURE)


def _footer_field(s: Subject, rng: random.Random) -> None:
    at, width = rng.choice(FOOTER_FIELDS)
    places = {"end": (s.image.size - SECTOR,), "backup": (0,), "both": (s.image.size - SECTOR, 0)}
    which = "end" if s.kind == 2 else rng.choices(tuple(places), (2, 2, 6))[0]
    if s.image.size < SECTOR:
        return
    value = _no_clock(at, 24, _value(rng, s.image.get(s.image.size - SECTOR + at, width)))
    sealed = at != 64 and rng.random() < 0.8
    for place in places[which]:
        raw = bytearray(s.image.get(place, SECTOR).ljust(SECTOR, b"\0"))
        raw[at : at + width] = value
        if at == 48 and rng.random() < 0.6:
            raw[56:60] = struct.pack(">I", chs(int.from_bytes(value, "big")) & 0xFFFFFFFF)
        s.image.put(place, seal(bytes(raw), 64) if sealed else bytes(raw))


def _put_header(s: Subject, rng: random.Random, at: int, value: bytes) -> None:
    raw = bytearray(s.image.get(SECTOR, 1024).ljust(1024, b"\0"))
    raw[at : at + len(value)] = value
    s.image.put(SECTOR, seal(bytes(raw), 36) if at != 36 and rng.random() < 0.8 else bytes(raw))


def _header_field(s: Subject, rng: random.Random) -> None:
    at, width = rng.choice(HEADER_FIELDS)
    _put_header(s, rng, at, _no_clock(at, 56, _value(rng, s.image.get(SECTOR + at, width).ljust(width, b"\0"))))


def _locator_field(s: Subject, rng: random.Random) -> None:
    if s.kind != 4 and rng.random() < 0.8:
        return
    at, width = rng.choice(LOCATOR_FIELDS)
    at += 576 + 24 * rng.choice((0, 1, 2, 3, 7))
    old = s.image.get(SECTOR + at, width).ljust(width, b"\0")
    codes = (b"W2ru", b"W2ku", b"MacX", b"Mac ", b"Wi2r", bytes(4))
    is_code = (at - 576) % 24 == 0
    _put_header(s, rng, at, rng.choice(codes) if is_code and rng.random() < 0.7 else _value(rng, old))


def _locator_data(s: Subject, rng: random.Random) -> None:
    if s.locators:
        at = rng.choice(s.locators) + rng.choice((0, 2, 7, 9, 11, 20))
        s.image.put(at, rng.choice((b"\0", b"x", b"/", b"\xff", b"\x80")))


def _bat_entry(s: Subject, rng: random.Random) -> None:
    if not s.entries:
        return
    block = rng.choice((*s.placed, 0, s.blocks - 1, s.entries - 1, rng.randrange(s.entries)))
    end = s.image.size // SECTOR
    others = [at // SECTOR for at in s.placed.values()] or [s.end_of_headers // SECTOR]
    other = rng.choice(others)
    step = SPACE // SECTOR
    near = rng.choice((-step, -step + 1, -1, 0, 1, 7, step - 1, step))
    choices = (
        0, 1, 3, s.end_of_headers // SECTOR, s.end_of_headers // SECTOR - 1, other + near, other + near,
        other ^ 1 << 29, end, end - 1, end - step, end - step - 1, end - step + 1, end + 7,
        UNUSED - 1, UNUSED - step, UNUSED - step - 1, UNUSED, rng.getrandbits(32), rng.randrange(1, 1 << 24),
    )  # fmt: skip
    s.image.put(1536 + 4 * block, struct.pack(">I", rng.choice(choices) & 0xFFFFFFFF))


def _batmap_field(s: Subject, rng: random.Random) -> None:
    if s.batmap_at is not None:
        at, width = rng.choice(BATMAP_FIELDS)
        s.image.put(s.batmap_at + at, _value(rng, s.image.get(s.batmap_at + at, width).ljust(width, b"\0")))


def _batmap_bit(s: Subject, rng: random.Random) -> None:
    if s.batmap_at is not None:
        block = rng.choice((*s.placed, 0, s.blocks - 1, s.blocks, rng.randrange(s.blocks + 8)))
        old = s.image.get(s.map_at + (block >> 3), 1).ljust(1, b"\0")[0]
        s.image.put(s.map_at + (block >> 3), bytes([old ^ 0x80 >> (block & 7)]))
        if rng.random() < 0.7:
            s.reseal_batmap()


def _size(s: Subject, rng: random.Random) -> None:
    size = s.image.size
    some = rng.choice(tuple(s.placed.values()) or (s.end_of_headers,))
    choices = (
        size - 1, size - 2, size - 256, size - 511, size - 512, size - 513, size - 1024, size + 1, size + 511,
        size + 512, size + 513, size + 4096, size + BLOCK, 0, 1, 511, 512, 513, 1023, 1024, 1535, 1536, 1540, 2048,
        s.end_of_headers, s.end_of_headers + SECTOR, some, some + SECTOR, some + SPACE // 2 // SECTOR * SECTOR,
        some + SPACE,
    )  # fmt: skip
    s.image.cut(rng.choice(choices))


def _footer_moved(s: Subject, rng: random.Random) -> None:
    """The footer once more at another end: after a cut or an extension it is whole again."""
    backup = s.image.get(0, SECTOR).ljust(SECTOR, b"\0")
    if s.kind != 2:
        _size(s, rng)
        s.image.put(-(-s.image.size // SECTOR) * SECTOR, backup)


def _flip(s: Subject, rng: random.Random) -> None:
    limit = min(s.image.size, s.end_of_headers or SECTOR)
    at = rng.randrange(max(1, limit)) if rng.random() < 0.8 else max(0, s.image.size - 1 - rng.randrange(SECTOR))
    old = s.image.get(at, 1).ljust(1, b"\0")[0]
    s.image.put(at, bytes([old ^ 1 << rng.randrange(8)]))


def _wipe(s: Subject, rng: random.Random) -> None:
    starts = [0, SECTOR, 2 * SECTOR, 1536, s.image.size - SECTOR, *s.locators, *s.placed.values()]
    starts += [s.batmap_at, s.map_at] if s.batmap_at is not None else []
    fill = rng.choice((b"\0", b"\xff", b"\xc7", b"0"))
    s.image.put(max(0, rng.choice(starts)), fill * rng.choice((8, 256, SECTOR)))


MUTATIONS: tuple[tuple[Callable[[Subject, random.Random], None], int], ...] = (
    (_footer_field, 20), (_header_field, 18), (_locator_field, 8), (_locator_data, 4), (_bat_entry, 22),
    (_batmap_field, 8), (_batmap_bit, 8), (_size, 8), (_footer_moved, 5), (_flip, 6), (_wipe, 5),
)  # fmt: skip


def mutant(number: int) -> Sparse:
    """The image of this number: sound for one in twenty, else with one to three mutations."""
    rng = random.Random(f"smfix differential {number}")
    subject = build(rng)
    if number % 20:
        makers, weights = zip(*MUTATIONS, strict=True)
        for mutate in rng.choices(makers, weights, k=rng.choice((1, 1, 1, 1, 2, 3))):
            mutate(subject, rng)
    return subject.image


def parent() -> Sparse:
    """The parent that the differencing images name: it lies beside them."""
    image = Sparse()
    end = footer(8 * MIB, 3, uuid=PARENT_UUID, hidden=1)
    image.put(0, end)
    image.put(SECTOR, seal(_plain_header(4), 36))
    image.put(1536, (b"\xff" * 16).ljust(SECTOR, b"\0"))
    head = struct.pack(">8sQIII", b"tdbatmap", 2560, 1, 0x10002, 0xFFFFFFFF)
    image.put(2048, head.ljust(SECTOR, b"\0"))
    image.put(2560, bytes(SECTOR))
    image.put(3072, end)
    return image
