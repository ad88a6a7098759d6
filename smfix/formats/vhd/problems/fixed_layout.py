"""Recognise a fixed disk, whatever its guest has written at offset 0. Pure.

Theory. The sectors of a fixed disk are the file from its first byte on, so its guest can put a whole VHD there: backup
footer, header, BAT, blocks. No guest reaches the footer after the disk, its remains once it is
damaged, and the file's length: a fixed disk is as long as its size, which for the storage manager is whole MiB, and a
dynamic one ends with a block, which begins off a MiB.

Source: ``vhd_open`` and ``__vhd_io_fixed_read`` (libvhd.c); FileSR.py and LVHDSR.py round sizes to 2 MiB.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

from smfix.formats.problem import Context
from smfix.formats.vhd import structs
from smfix.formats.vhd.image import FIXED_SLACK, VhdImage, inspect, was_fixed
from smfix.formats.vhd.problems.witness import is_named_by_child
from smfix.formats.vhd.structs import (
    FOOTER_COOKIE,
    FOOTER_RULES,
    FOOTER_SIZE,
    NO_OFFSET,
    PAGE,
    DiskType,
    Footer,
    geometry_for,
)
from smfix.values import SECTOR, Damaged, Extent, Sound

MIB = 1 << 20


def fixed_signs(image: VhdImage) -> list[str]:
    """The reason to read the file as a fixed disk whose guest wrote the bytes at offset 0; empty: there is none.

    Of a volume the length says nothing: it is always whole MiB, and the storage manager keeps no fixed disk there.
    """
    if isinstance(image.end, Sound):
        return []
    signs: list[str] = []
    if is_left_of_fixed(image):
        signs.append("what is left of a footer at the end of the file is a fixed disk's")
    if image.view.growable and image.size % MIB <= FOOTER_SIZE:
        over = image.size % MIB
        behind = f" and {over} bytes" if over else ""
        signs.append(f"the file is {image.size // MIB} MiB{behind} long, as a fixed disk is")
    return signs


def is_left_of_fixed(image: VhdImage) -> bool:
    """The file's last 64 KiB hold the remains of a fixed disk's footer, right after that disk.

    Two of three fields say so: its type, its data offset, its place.
    """
    start = max(0, image.size - FIXED_SLACK) // SECTOR * SECTOR
    raw = image.view.read(Extent(start, image.size - start))
    return any(_says_fixed(raw[at : at + FOOTER_SIZE], start + at) for at in range(0, len(raw), SECTOR))


def _says_fixed(raw: bytes, at: int) -> bool:
    if not raw.startswith(FOOTER_COOKIE) and len(raw) < FOOTER_SIZE - 1:
        return False  # the end of a file that does not end with a sector
    footer = structs.parse_footer(raw.ljust(FOOTER_SIZE, b"\0"))
    signs = (footer.type == DiskType.FIXED, footer.data_offset == NO_OFFSET, footer.current_size == at > 0)
    return sum(signs) > 1


def holds_a_vhd(image: VhdImage) -> bool:
    """The file is a fixed disk with a sound footer, whose guest put the head of another VHD at offset 0.

    The footer has its place right after its disk. Of a file that is not whole MiB long, no block of the head's BAT
    may reach its end, nor may the block that would follow: a guest of that dynamic disk can have written the footer.
    """
    end = image.end
    if not isinstance(end, Sound) or end.value.is_sparse or end.value.current_size != end.where.offset:
        return False
    if image.view.growable and end.where.offset % MIB == 0:
        return True
    head = read_by_backup(image)
    header = None if head is None else head.geometry
    if head is None or header is None or not isinstance(head.bat, Sound):
        return False
    return end.where.offset >= head.end_of_data + PAGE + header.block_space


def read_by_backup(image: VhdImage) -> VhdImage | None:
    """The image read by its backup footer; None: that one is not sound."""
    return inspect(image.view, by=image.backup.value) if isinstance(image.backup, Sound) else None


def proved_fixed(image: VhdImage, context: Context) -> tuple[Damaged, Footer] | None:
    """The remains of the fixed disk's footer at the end, and the one footer that has its checksum; None: none.

    A child that names the UUID of the backup footer says that the disk is not fixed.
    """
    if not isinstance(image.end, Damaged):
        return None
    if isinstance(image.backup, Sound) and is_named_by_child(image.backup.value, context):
        return None
    left = image.end if image.was_fixed else was_fixed(image.view, image.end)
    answer = None if left is None else restored(left, context)
    return None if left is None or answer is None else (left, answer)


def restored(left: Damaged, context: Context) -> Footer | None:
    """The footer that the damaged one leaves: constants, and the size by its place; its own checksum arbitrates."""
    parsed = structs.parse_footer(left.raw)
    size = left.where.offset
    constant: dict[str, Any] = {
        "cookie": FOOTER_COOKIE,
        "features": 2,
        "version": 0x00010000,
        "data_offset": NO_OFFSET,
        "type": DiskType.FIXED,
        "current_size": size,
        "saved": 0,
        "reserved": bytes(426),
    }
    sizes = {parsed.original_size, size}
    geometries = {parsed.geometry, geometry_for(size)}
    uuids = {parsed.uuid, *(() if context.given_uuid is None else (context.given_uuid,))}
    fitting: set[Footer] = set()
    for original, geometry, hidden, uuid in product(sizes, geometries, (0, 1), uuids):
        fields = {"original_size": original, "geometry": geometry, "hidden": hidden, "uuid": uuid}
        footer = replace(parsed, **constant, **fields)
        if not any(rule.broken(footer) for rule in FOOTER_RULES):  # its checksum is one of them
            fitting.add(footer)
    return fitting.pop() if len(fitting) == 1 else None
