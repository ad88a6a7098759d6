"""Evidence for and against a footer besides the header and the BAT: its place, the other footer, its relatives. Pure.

Theory. A guest writes every sector of its own disk, so bytes that may once have been guest data prove nothing. The
sectors of a dynamic disk are in blocks: what is exactly at the end of data, or at offset 0, no guest has written.
A misdirected write can put the head of another disk into the file. Then a child that names this file with another
UUID, or the disk beside it that owns the UUID, contradicts it.

Source: ``vhd_footer_offset_at_eof``, ``allocate_block`` (libvhd.c, tapdisk block-vhd.c); cleanup.py deletes a hidden
disk that has no child.
"""

from __future__ import annotations

from itertools import islice, zip_longest

from smfix.formats.problem import Context
from smfix.formats.vhd import structs
from smfix.formats.vhd.image import VhdImage
from smfix.formats.vhd.structs import FOOTER_SIZE, PAGE, Footer
from smfix.values import Damaged, Extent, Sound, uuid_text

NAMED = 3
"""Relatives that are named one by one."""
SAMPLES = 64
"""Blocks of two larger images that are compared to tell a copy from another disk, or a few more."""
PAGES = 8
"""Pages that are compared of each of them."""
WHOLE = 16
"""Blocks of two images that are compared byte for byte at most, 32 MiB."""
_CONFIRMED = ("uuid", "type", "current_size", "hidden")
"""The fields of a footer that a witness must confirm."""


# --------------------------------------------------------------------------- a place that a guest reaches


def guest_may_have_written(image: VhdImage, at: int) -> str | None:
    """Why a guest may have written the footer at byte `at`, at the end or in the tail; None: no guest can have.

    The image has a header and a BAT. tapdisk writes a new block before its BAT entry, so that a crash leaves the
    guest's own sectors after the end of data. In a file only a footer exactly there is beyond its reach, on a volume
    one after the block that would follow.
    """
    header = image.geometry
    if header is None or not isinstance(image.bat, Sound):
        return "header and BAT do not tell where the guest's blocks end"
    end = structs.round_up(image.end_of_data)
    if at == end:
        return None
    if not image.view.growable:
        following = header.next_block(end) + header.block_space
        if at >= following or (at > end and image.bat.value.allocated == len(image.bat.value)):
            return None
        return f"on a volume, the block that follows the data (it ends at byte {end:,}) would reach it"
    if at < end:
        return "a block reaches across it"
    return f"it is {at - end:,} bytes behind the end of data, where a crash leaves what a guest wrote last"


def is_confirmed(image: VhdImage, footer: Footer, context: Context) -> bool:
    """Bytes that no guest writes have the same UUID, type, size and hidden: the damaged backup footer, or a child."""
    if isinstance(image.backup, Damaged) and len(image.backup.raw) == FOOTER_SIZE:
        left = structs.parse_footer(image.backup.raw)
        if all(getattr(left, name) == getattr(footer, name) for name in _CONFIRMED):
            return True
    sizes = {
        child.footer.current_size
        for child in children(context)
        if child.geometry is not None and child.footer is not None and child.geometry.parent_uuid == footer.uuid
    }
    return sizes == {footer.current_size} and footer.hidden == 1


# --------------------------------------------------------------------------- relatives


def children(context: Context) -> tuple[VhdImage, ...]:
    """Return the children that are VHDs."""
    return tuple(child for child in context.children if isinstance(child, VhdImage))


def named_parents(context: Context) -> list[bytes]:
    """Return the UUID of the parent that each child with a sound header names."""
    return [child.geometry.parent_uuid for child in children(context) if child.geometry is not None]


def is_named_by_child(footer: Footer, context: Context) -> bool:
    """A child names the footer's UUID as its parent's."""
    return footer.uuid in named_parents(context)


def is_known(footer: Footer, context: Context) -> bool:
    """The footer's UUID is the one that a child names, or that the operator gave."""
    return context.given_uuid == footer.uuid or is_named_by_child(footer, context)


def strangers(footer: Footer, context: Context) -> list[str]:
    """The relatives that deny that the disk is the one `footer` describes, each a sentence."""
    uuid = uuid_text(footer.uuid)
    objections = [
        f"its child {name}names the parent's UUID {uuid_text(child.geometry.parent_uuid)}, the footer has {uuid}"
        for name, child in zip_longest((f"{name} " for name in context.child_names), context.children, fillvalue="")
        if isinstance(child, VhdImage) and child.geometry is not None and child.geometry.parent_uuid != footer.uuid
    ]
    return [*objections[:NAMED], *owners(footer, context)]


def owners(footer: Footer, context: Context) -> list[str]:
    """The disks beside this one that have the footer's UUID and other content, each a sentence."""
    owning = [each.name for each in context.siblings if each.uuid == footer.uuid and each.is_rival]
    return [f"{name} is the disk with its UUID {uuid_text(footer.uuid)}, with other content" for name in owning[:NAMED]]


def copies(footer: Footer, context: Context) -> str:
    """The files beside this one that have the footer's UUID and are no rivals, as a sentence; empty: none."""
    names = [each.name for each in context.siblings if each.uuid == footer.uuid and not each.is_rival]
    return f"It shares its UUID with {', '.join(names[:NAMED])}: a copy." if names else ""


def is_rival(image: VhdImage, other: VhdImage) -> bool:
    """`other`, which has one of the image's UUIDs, is another disk: its header and BAT are sound, and it is no copy."""
    return other.geometry is not None and isinstance(other.bat, Sound) and not is_copy(image, other)


def is_copy(image: VhdImage, other: VhdImage) -> bool:
    """Both have one header and one BAT, and their blocks are alike: all of up to :data:`WHOLE`, else samples.

    A head that was written into the wrong file makes header and BAT equal as well, and disks that were copied from one
    template have blocks that begin alike. Of :data:`SAMPLES` blocks the sector bitmap and :data:`PAGES` pages are
    compared. Disks without a block have nothing that shows a copy.
    """
    header, bat = image.geometry, image.bat
    if header is None or header != other.geometry or not isinstance(bat, Sound) or not isinstance(other.bat, Sound):
        return False
    count = bat.value.allocated
    if not count or bat.value.differing(other.bat.value):
        return False
    if count <= WHOLE:
        spots = [Extent(at, header.block_space) for at, _ in image.blocks()]
    else:
        pages = range(header.bitmap_size, header.block_space, max(PAGE, header.block_size // PAGES))
        sampled = islice(image.blocks(), 0, None, max(1, count // SAMPLES))
        spots = [
            spot
            for at, _ in sampled
            for spot in (Extent(at, header.bitmap_size), *(Extent(at + page, PAGE) for page in pages))
        ]
    return all(image.view.read(spot) == other.view.read(spot) for spot in spots)
