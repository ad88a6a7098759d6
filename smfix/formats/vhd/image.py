"""One image, read whole: every structure, sound or damaged, and the places that follow from them.

Theory. Nothing on a damaged disk can be trusted to be where another damaged structure says it is. So
each structure is read on its own, kept with all the reasons against it, and the derived places (end of
headers, end of data) are computed from what is sound, with the layout that libvhd would have made as the
fallback. Nothing here decides what is wrong: that is :mod:`smfix.problems`.

Source: ``vhd_open``, ``vhd_read_footer``, ``vhd_has_batmap``, ``vhd_end_of_headers``, ``vhd_end_of_data``
(blktap ``vhd/lib/libvhd.c``). Offsets and sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from smfix.formats.vhd import structs
from smfix.formats.vhd.bat import BAT_LIMIT, Bat, read_bat
from smfix.formats.vhd.structs import (
    BATMAP_COOKIE,
    BATMAP_HEADER_SIZE,
    BATMAP_VERSION_CURRENT,
    BLOCK_SIZE,
    FOOTER_COOKIE,
    FOOTER_SIZE,
    HEADER_COOKIE,
    HEADER_SIZE,
    NO_OFFSET,
    NULL_UUID,
    POISON_COOKIE,
    SHORT_FOOTER_SIZE,
    TAP_VERSION_1_2,
    TAP_VERSION_REFUSED,
    BatmapHeader,
    DiskType,
    Footer,
    Header,
    ParentLocator,
    PlatformCode,
    decode_footer,
    decode_header,
    round_up,
)
from smfix.values import SECTOR, ByteView, Damaged, Extent, Sound, uuid_text

TAIL_SCAN = 32 << 20
"""Bytes searched for a stray footer at each end of the tail."""
FIXED_SLACK = 1 << 16
"""Bytes behind a fixed disk that are no reason to doubt its size: padding, an earlier footer."""
MAP_OVER_BLOCKS = "its map would lie over blocks"
"""Said of a batmap whose header, which has no checksum, lays the map over blocks, unlike the layout."""
LOCATOR_LIMIT = 1 << 16
"""Bytes of one parent locator that are read at most."""
MARK = b"\xc7" * SECTOR
"""What tapdisk fills the last sector with when it resumes a disk (``vhd_kill_footer``)."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Batmap:
    """The batmap's header and its map; `summed` bytes of the map are under the checksum."""

    header: BatmapHeader
    bits: bytes
    summed: int


@dataclass(frozen=True, slots=True)
class Locator:
    """A parent locator in use: its index, its fields, the path it holds (None: not decodable)."""

    index: int
    entry: ParentLocator
    path: str | None


@dataclass(frozen=True, slots=True)
class VhdImage:
    """Every structure of one view, sound or damaged.

    `end` is the footer at the end of the view, `backup` the copy at 0, `tail` further sound footers
    found between end of data and the end (searched for only where `end` is damaged). `footer` is the
    one the image is read by, as ``vhd_open`` chooses it; None: there is no sound one. `header`, `bat`
    and `batmap` are None if the image has none (fixed disks, foreign creators). A fixed disk whose footer is not
    at the end is recognised by a footer in the tail, right after the disk that it describes.
    """

    view: ByteView
    end: Sound[Footer] | Damaged
    backup: Sound[Footer] | Damaged
    tail: tuple[Sound[Footer], ...]
    footer: Footer | None
    header: Sound[Header] | Damaged | None
    bat: Sound[Bat] | Damaged | None
    batmap: Sound[Batmap] | Damaged | None
    locators: tuple[Locator, ...]
    end_of_headers: int
    end_of_data: int

    @property
    def size(self) -> int:
        """Length of the view in bytes."""
        return self.view.size

    @property
    def footer_home(self) -> int:
        """The offset at which a footer may be written without touching a block.

        A device's last sector; in a file the first sector boundary at or after both the end of the file
        and the end of data.
        """
        if not self.view.growable:
            return self.size - FOOTER_SIZE
        return round_up(max(self.size, self.end_of_data))

    @property
    def uuids(self) -> frozenset[str]:
        """The UUIDs of the sound footers at the end and at offset 0, and of the one the image is read by."""
        sound = (each.value for each in (self.end, self.backup) if isinstance(each, Sound))
        return frozenset(uuid_text(each.uuid) for each in (*sound, self.footer) if each is not None)

    @property
    def format(self) -> str:
        """The name of the format (:class:`smfix.formats.base.Image` has this and the following ones)."""
        return "vhd"

    @property
    def append_from(self) -> int | None:
        """First byte after headers and blocks; None without a BAT."""
        return self.end_of_data if isinstance(self.bat, Sound) else None

    @property
    def virtual_size(self) -> int | None:
        """Size of the guest's disk in bytes."""
        return None if self.footer is None else self.footer.current_size

    @property
    def allocated(self) -> int | None:
        """Number of blocks that have a place."""
        return self.bat.value.allocated if isinstance(self.bat, Sound) else None

    @property
    def is_hidden(self) -> bool | None:
        """It is marked as a base copy."""
        return None if self.footer is None else self.footer.hidden != 0

    @property
    def uuid(self) -> bytes | None:
        """The UUID of the footer that the image is read by."""
        return None if self.footer is None else self.footer.uuid

    @property
    def known_uuids(self) -> frozenset[bytes]:
        """The UUIDs of all sound footers: if they differ, a child names the right one."""
        sound = (footer.value.uuid for footer in (self.end, self.backup, *self.tail) if isinstance(footer, Sound))
        return frozenset(sound) - {NULL_UUID}

    @property
    def has_parent(self) -> bool:
        """It is a differencing disk."""
        return self.footer is not None and self.footer.is_differencing

    @property
    def parent_uuid(self) -> bytes | None:
        """The UUID of the parent that the header names."""
        header = self.geometry if self.has_parent else None
        return None if header is None or header.parent_uuid == NULL_UUID else header.parent_uuid

    @property
    def parent_paths(self) -> tuple[str, ...]:
        """The paths of the parent locators, as far as they can be decoded."""
        return tuple(locator.path for locator in self.locators if locator.path is not None)

    @property
    def looks_like_vhd(self) -> bool:
        """Some structure carries its cookie: the image is, or was, a VHD."""
        if isinstance(self.end, Sound):
            return True
        footers = (self.end, self.backup, *self.tail)
        if any(isinstance(f, Sound) or f.raw[:8] in (FOOTER_COOKIE, POISON_COOKIE) for f in footers):
            return True
        if isinstance(self.header, Damaged):
            return self.header.raw[:8] == HEADER_COOKIE
        return True  # a header that is sound; or none is looked for: a fixed disk's footer

    @property
    def was_fixed(self) -> bool:
        """The footer is damaged, and its remains are those of a fixed disk's, right after that disk."""
        return self.footer is None and self.header is None

    @property
    def geometry(self) -> Header | None:
        """The header if it is sound and of a block size that libvhd opens and that holds a sector."""
        if isinstance(self.header, Sound) and SECTOR <= self.header.value.block_size <= BLOCK_SIZE:
            return self.header.value
        return None

    @property
    def layout(self) -> tuple[Header, Bat] | None:
        """The header and the BAT by which blocks are found; None if one of them is not sound."""
        if self.geometry is None or not isinstance(self.bat, Sound):
            return None
        return self.geometry, self.bat.value

    def blocks(self) -> Iterator[tuple[int, int]]:
        """(offset, block) of every allocated block, by place in the file; nothing without a BAT."""
        if isinstance(self.bat, Sound):
            yield from self.bat.value.placements()

    def full(self, block: int) -> bool:
        """A sound batmap says that every sector of the block is written (so tapdisk reads it)."""
        return isinstance(self.batmap, Sound) and structs.bit(self.batmap.value.bits, block)

    def bitmap(self, header: Header, offset: int) -> bytes:
        """The sector bitmap of the block that starts at `offset`; short if the view ends inside it."""
        return self.view.read(Extent(offset, -(-header.block_size // SECTOR // 8) or 1))


def inspect(view: ByteView, by: Footer | None = None) -> VhdImage:
    """Read every structure of `view`. Any bytes will do: nothing raises but the storage itself.

    `by` is the footer to read it by, instead of one in the file: a test whether that footer fits.
    """
    size = view.size
    end = _end_footer(view)
    raw = view.read(Extent(0, FOOTER_SIZE))
    if isinstance(end, Sound) and raw == end.value.encode():
        backup: Sound[Footer] | Damaged = Sound(end.value, Extent(0, FOOTER_SIZE))  # decoded once
    else:
        backup = decode_footer(raw, 0)
    footer = by or _chosen(end, backup)
    if footer is not None and not footer.is_sparse:
        return VhdImage(view, end, backup, (), footer, None, None, None, (), 0, max(0, size - FOOTER_SIZE))
    header = _header(view, footer)
    if isinstance(header, Damaged):
        eoh = FOOTER_SIZE + HEADER_SIZE
        tail = () if isinstance(end, Sound) else _tail_footers(view, eoh)
        if footer is None and header.raw[:8] != HEADER_COOKIE:
            disk = next((f for f in tail if _is_of_fixed(f)), None)
            if disk is not None:
                eod = disk.value.current_size
                return VhdImage(view, end, backup, (disk,), disk.value, None, None, None, (), 0, eod)
            if not tail and isinstance(end, Damaged) and (was := was_fixed(view, end)):
                return VhdImage(view, was, backup, (), None, None, None, None, (), 0, was.where.offset)
        footer = footer or (tail[-1].value if tail else None)
        whole = len(header.raw) == HEADER_SIZE
        locators = _locators(view, footer, structs.parse_header(header.raw)) if whole else ()
        return VhdImage(view, end, backup, tail, footer, header, None, None, locators, eoh, eoh)
    head = header.value
    bat = _bat(view, footer, head)
    batmap = _in_layout(_batmap(view, footer, head), bat, head)
    locators = _locators(view, footer, head)
    eoh = _end_of_headers(size, header, batmap, locators)
    eod = max(eoh, bat.value.highest_end(head.block_space)) if isinstance(bat, Sound) else eoh
    tail = ()
    if isinstance(end, Damaged) and isinstance(bat, Sound):
        start = max(eoh, bat.value.highest_end(head.block_space, below=size))
        tail = _tail_footers(view, start)
        if footer is None and tail:
            footer = tail[-1].value
            bat = _bat(view, footer, head)
            batmap = _in_layout(_batmap(view, footer, head), bat, head)
    return VhdImage(view, end, backup, tail, footer, header, bat, batmap, locators, eoh, eod)


def _end_footer(view: ByteView) -> Sound[Footer] | Damaged:
    """The last 512 bytes, or 511 if the size is odd (``vhd_util_check_footer``)."""
    size = view.size
    length = min(size, FOOTER_SIZE if size % SECTOR == 0 else SHORT_FOOTER_SIZE)
    at = size - length
    raw = view.read(Extent(at, length))
    if size % SECTOR not in (0, SHORT_FOOTER_SIZE):
        return Damaged(raw, ("error reading primary footer: -22",), Extent(at, length))
    return decode_footer(raw, at)


def _is_of_fixed(footer: Sound[Footer]) -> bool:
    """It is a fixed disk's, and follows that disk; padding may be between."""
    behind = footer.where.offset - footer.value.current_size
    return footer.value.type == DiskType.FIXED and 0 <= behind <= FIXED_SLACK


def was_fixed(view: ByteView, end: Damaged) -> Damaged | None:
    """The remains of the footer of a fixed disk: `end`, or the beginning of one in which the file ends.

    Two of three fields say that it was one: its type, its data offset, its place. Of one that was cut short the
    checksum must be right with zeros for what is missing.
    """
    at = view.size // SECTOR * SECTOR
    left = view.read(Extent(at, view.size - at))
    if left.startswith(FOOTER_COOKIE):
        whole = decode_footer(left.ljust(FOOTER_SIZE, b"\0"), at)
        if isinstance(whole, Sound) and _is_of_fixed(whole):
            return Damaged(whole.value.encode(), (*end.reasons, "the file ends inside it"), Extent(at, len(left)))
    if len(end.raw) < SHORT_FOOTER_SIZE:
        return None
    was = structs.parse_footer(end.raw)
    signs = (was.type == DiskType.FIXED, was.data_offset == NO_OFFSET, was.current_size == end.where.offset)
    return end if sum(signs) > 1 else None


def _chosen(end: Sound[Footer] | Damaged, backup: Sound[Footer] | Damaged) -> Footer | None:
    if isinstance(end, Sound):
        return end.value
    return backup.value if isinstance(backup, Sound) else None


def _header(view: ByteView, footer: Footer | None) -> Sound[Header] | Damaged:
    at = footer.data_offset if footer is not None else FOOTER_SIZE
    if at > view.size:
        return Damaged(b"", ("the footer places the header outside the file",), Extent(at, 0))
    return decode_header(view.read(Extent(at, HEADER_SIZE)), at)


def _bat(view: ByteView, footer: Footer | None, header: Header) -> Sound[Bat] | Damaged:
    blocks = header.max_bat_size if footer is None else header.blocks_of(footer.current_size)
    return read_bat(view, header.table_offset, blocks, header.max_bat_size, header.block_space)


def _batmap(view: ByteView, footer: Footer | None, header: Header) -> Sound[Batmap] | Damaged | None:
    at = header.bat_extent.end
    raw = view.read(Extent(at, BATMAP_HEADER_SIZE))
    known = len(raw) == BATMAP_HEADER_SIZE and raw[:8] == BATMAP_COOKIE
    if footer is None:
        if not known:
            return None
        current_size = header.max_bat_size * header.block_size
    else:
        old = footer.creator_version < TAP_VERSION_1_2
        if not footer.by_tap or footer.creator_version <= TAP_VERSION_REFUSED:
            return None
        if old and not (known and structs.parse_batmap_header(raw).version <= BATMAP_VERSION_CURRENT):
            return None  # vhd_has_batmap: a disk of tap 1.1 may have none
        current_size = footer.current_size
    where = Extent(at, len(raw))
    if len(raw) < BATMAP_HEADER_SIZE:
        return Damaged(raw, ("error reading batmap", "the file ends before the batmap"), where)
    head = structs.parse_batmap_header(raw)
    summed = structs.batmap_summed_size(current_size)
    reasons = _batmap_reasons(head, summed)
    bits = b""
    if not reasons:
        bits = view.read(Extent(head.map_offset, min(head.map_size, max(summed, BAT_LIMIT // 8))))
        if len(bits) < summed:
            reasons.append("the batmap reaches past the end of the file")
        elif structs.batmap_checksum(bits[:summed], head.version) != head.checksum:
            reasons.append("invalid checksum")
    if reasons:
        return Damaged(raw, tuple(reasons), where)
    return Sound(Batmap(head, bits, summed), where)


def _batmap_reasons(head: BatmapHeader, summed: int) -> list[str]:
    """All that speaks against the header of a batmap of which `summed` bytes are under the checksum."""
    reasons: list[str] = []
    if head.cookie != BATMAP_COOKIE:
        reasons.append("invalid cookie")
    if head.version > BATMAP_VERSION_CURRENT:
        reasons.append("unsupported batmap version")
    if head.map_size < summed:
        reasons.append("invalid batmap size" if head.map_size else "invalid size zero")
    if head.map_offset % SECTOR:
        # libvhd reads with O_DIRECT: what does not begin a sector cannot be read.
        reasons.append("invalid batmap offset")
    if summed > BAT_LIMIT // 8:
        reasons.append(f"it is for more blocks than smfix reads ({BAT_LIMIT})")
    return reasons


def _in_layout(
    batmap: Sound[Batmap] | Damaged | None, bat: Sound[Bat] | Damaged, header: Header
) -> Sound[Batmap] | Damaged | None:
    """`batmap`, damaged where its header (which has no checksum) lays the map over blocks, unlike the layout."""
    if not isinstance(batmap, Sound) or not isinstance(bat, Sound):
        return batmap
    usual = Extent(batmap.where.end, round_up(-(-header.max_bat_size // 8)) or SECTOR)
    claimed = batmap.value.header.map_extent
    if claimed == usual or not bat.value.covering(claimed, header.block_space):
        return batmap
    return Damaged(batmap.value.header.encode(), (MAP_OVER_BLOCKS,), batmap.where)


def _locators(view: ByteView, footer: Footer | None, header: Header) -> tuple[Locator, ...]:
    if footer is not None and not footer.is_differencing:
        return ()
    found: list[Locator] = []
    for index, entry in enumerate(header.locators):
        if entry.code == PlatformCode.NONE:
            continue
        path = None
        # A length beyond the space makes libvhd read beyond its buffer: whatever that gives, it is no path.
        inside = entry.data_length <= entry.space and entry.extent.end <= view.size
        if entry.code in structs.PATH_CODES and entry.space and inside:
            length = min(entry.data_length, LOCATOR_LIMIT)
            path = entry.decode_path(view.read(Extent(entry.data_offset, length)))
        found.append(Locator(index, entry, path))
    return tuple(found)


def _end_of_headers(
    size: int, header: Sound[Header], batmap: Sound[Batmap] | Damaged | None, locators: tuple[Locator, ...]
) -> int:
    """As ``vhd_end_of_headers``; a damaged batmap counts with the size libvhd would have given it."""
    head = header.value
    behind = head.bat_extent.end
    ends = [header.where.end, behind]
    if isinstance(batmap, Sound):
        ends += (batmap.where.end, batmap.value.header.map_extent.end)
    elif batmap is not None:
        ends.append(behind + BATMAP_HEADER_SIZE + (round_up(-(-head.max_bat_size // 8)) or SECTOR))
    ends += [loc.entry.extent.end for loc in locators if loc.entry.extent.end <= size]
    return max(ends)


def _tail_footers(view: ByteView, start: int) -> tuple[Sound[Footer], ...]:
    """Sound footers at any byte of the tail, in order; a long tail is searched at both its ends."""
    size = view.size
    spans = [(start, min(size, start + TAIL_SCAN)), (max(start + TAIL_SCAN, size - TAIL_SCAN), size)]
    found: dict[int, Sound[Footer]] = {}
    for low, high in spans:
        for at in _cookies(view, low, high):
            footer = decode_footer(view.read(Extent(at, FOOTER_SIZE)), at)
            if isinstance(footer, Sound) and footer.where.end <= size:
                found[at] = footer
    return tuple(found[at] for at in sorted(found))


def _cookies(view: ByteView, low: int, high: int) -> Iterator[int]:
    """The offsets of footer cookies in [low, high), bytes; at most 4096."""
    left = 4096
    at = low
    while at < high and left:
        raw = view.read(Extent(at, min(_CHUNK, high - at) + len(FOOTER_COOKIE) - 1))
        if not raw:
            return
        spot = raw.find(FOOTER_COOKIE)
        while spot >= 0 and left:
            left -= 1
            yield at + spot
            spot = raw.find(FOOTER_COOKIE, spot + 1)
        at += _CHUNK
