"""Open an image as libvhd does, error numbers included, for ``smfix show``. Pure.

Theory. :mod:`smfix.formats.vhd.image` reads everything. libvhd stops at the first thing it dislikes and goes
on with whatever bytes it has by then, and that is what ``vhd-util read -p`` prints. To print the same, its steps are
followed here one by one: ``vhd_open``, ``vhd_read_footer``, ``vhd_read_header``, ``vhd_get_bat``, ``vhd_get_batmap``,
``vhd_parent_locator_read`` (blktap ``vhd/lib/libvhd.c``). A read is one with O_DIRECT and sectors of 512 bytes.
Errors are errno values, 0 if there is none. Offsets and sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from smfix.formats.vhd import structs
from smfix.formats.vhd.image import Locator
from smfix.formats.vhd.structs import BatmapHeader, Footer, Header, ParentLocator, PlatformCode
from smfix.values import SECTOR, ByteView, Extent, Sound

EIO, EINVAL, EPIPE = 5, 22, 32
"""A read that ends before it should; one that begins in a sector, or nowhere; one behind the end (``atomicio``)."""
MAP_LIMIT = 64 << 20
"""Bytes of a batmap that are read at most: one for a guest disk of 1 PiB. A longer one counts as unreadable."""
_PATH_LIMIT = 1 << 16
_BLANK_FOOTER = structs.parse_footer(bytes(structs.FOOTER_SIZE))
_BLANK_HEADER = structs.parse_header(bytes(structs.HEADER_SIZE))
_TAP_0_1 = 0x00000001


@dataclass(frozen=True, slots=True)
class Opened:
    """The values that libvhd holds after it opened an image and looked at all its metadata.

    `footer` and `header` are those that it read last, sound or not; all NUL if it read none (`blank_footer`,
    `blank_header`). `error`: the image cannot be opened, and nothing else was looked at. `bat_error`: its BAT cannot
    be read. `batmap` is the batmap's header where libvhd likes it and its map, else the error; None: it has none.
    `locators` are those in use, of a differencing image.
    """

    footer: Footer
    header: Header
    error: int = 0
    bat_error: int = 0
    batmap: BatmapHeader | int | None = None
    locators: tuple[Locator, ...] = ()

    @property
    def blank_footer(self) -> bool:
        """No footer was read."""
        return self.footer == _BLANK_FOOTER

    @property
    def blank_header(self) -> bool:
        """No header was read, or it was not looked for."""
        return self.header == _BLANK_HEADER


def opened(view: ByteView) -> Opened:
    """Open `view` as ``vhd-util read`` does."""
    footer, error = _footer(view)
    header = _BLANK_HEADER
    if not footer.is_sparse:
        return Opened(footer, header, error, 0 if error else EINVAL)
    raw, failed = _read(view, footer.data_offset, structs.HEADER_SIZE)
    if not failed:
        header = structs.parse_header(raw)
        failed = EINVAL if _disliked(header) else 0
    error = error or failed or (EINVAL if footer.by_tap and footer.creator_version == _TAP_0_1 else 0)
    if error:
        return Opened(footer, header, error)
    used = [(index, entry) for index, entry in enumerate(header.locators) if entry.code != PlatformCode.NONE]
    locators = tuple(Locator(index, entry, _parent_path(view, entry)) for index, entry in used)
    return Opened(
        footer,
        header,
        bat_error=_bat_error(view, footer, header),
        batmap=_batmap(view, footer, header),
        locators=locators if footer.is_differencing else (),
    )


def _read(view: ByteView, at: int, length: int) -> tuple[bytes, int]:
    """`length` bytes at `at`, and the error; fewer bytes if the file ends before."""
    if not 0 <= at < 1 << 63:
        return b"", EINVAL
    if at >= view.size:
        return b"", EPIPE
    if at % SECTOR:
        return b"", EINVAL
    if at + length > view.size:
        return view.read(Extent(at, view.size - at)), EIO
    return view.read(Extent(at, length)), 0


def _footer(view: ByteView) -> tuple[Footer, int]:
    """``vhd_read_footer``: the end, then 511 bytes there, then the copy at 0."""
    end, short = view.size - structs.FOOTER_SIZE, view.size - structs.SHORT_FOOTER_SIZE
    places = [(end, False), (short, True), (0, False)]
    footer = _BLANK_FOOTER
    for at, is_short in places:
        if is_short and (at < 0 or at % SECTOR):
            continue
        raw, error = _read(view, at, structs.FOOTER_SIZE)
        if is_short or not error:  # 511 bytes are looked at, though their read ends early
            footer = structs.parse_footer(raw)
            error = 0 if isinstance(structs.decode_footer(raw, at), Sound) else EINVAL
        if error != EINVAL:
            return footer, error
    return footer, EINVAL


def _disliked(header: Header) -> bool:
    """``vhd_validate_header``: it minds less than ``vhd-util check`` does."""
    rules = {"cookie", "checksum", "version", "data-offset", "block-size", "block-size-large", "platform-code"}
    return any(rule.key in rules and rule.broken(header) for rule in structs.HEADER_RULES)


def _bat_error(view: ByteView, footer: Footer, header: Header) -> int:
    """``vhd_read_bat``: of blocks of 2 MiB, whatever the header says, counted in 64 and kept in 32 bits."""
    size = (footer.current_size + structs.BLOCK_SIZE - 1) & (1 << 64) - 1
    blocks = (size // structs.BLOCK_SIZE) & 0xFFFFFFFF
    if header.max_bat_size < blocks:
        return EINVAL
    at, length = header.table_offset, structs.round_up(blocks * 4) or SECTOR
    inside = 0 <= at < view.size and at % SECTOR == 0 and at + length <= view.size
    return 0 if inside else _read(view, at, SECTOR)[1] or EIO


def _batmap(view: ByteView, footer: Footer, header: Header) -> BatmapHeader | int | None:
    """``vhd_has_batmap`` and ``vhd_get_batmap``: as :class:`Opened` has it."""
    if not footer.by_tap or footer.creator_version <= _TAP_0_1:
        return None
    raw, error = _read(view, header.bat_extent.end, structs.BATMAP_HEADER_SIZE)
    head = None if error else structs.parse_batmap_header(raw)
    liked = head is not None and head.cookie == structs.BATMAP_COOKIE
    liked = liked and head is not None and head.version <= structs.BATMAP_VERSION_CURRENT
    if footer.creator_version < structs.TAP_VERSION_1_2 and not liked:
        return None
    if head is None or not liked:
        return error or EINVAL
    summed = structs.batmap_summed_size(footer.current_size)
    if head.map_size < summed or summed > MAP_LIMIT:  # the tool aborts at the former (decision 14)
        return EINVAL
    bits, error = _read(view, head.map_offset, summed)
    if error:
        return error
    return head if structs.batmap_checksum(bits, head.version) == head.checksum else EINVAL


def _parent_path(view: ByteView, entry: ParentLocator) -> str | None:
    """The path that a locator holds; None if it cannot be read, or is longer than its space."""
    if entry.code not in structs.PATH_CODES or not 0 < entry.space < 1 << 31:
        return None
    if entry.extent.end > view.size or entry.data_offset % SECTOR or entry.data_length > entry.space:
        return None
    return entry.decode_path(view.read(Extent(entry.data_offset, min(entry.data_length, _PATH_LIMIT))))


def parent_name(footer: Footer, header: Header) -> str | None:
    """The parent's name in the header; None if it cannot be decoded. tap 0.1 wrote it in the host's byte order."""
    if footer.by_tap and footer.creator_version == _TAP_0_1:
        return header.parent_name_text("utf-16")
    return header.parent_name_text()
