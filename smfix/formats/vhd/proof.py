"""The proof that a plan changes no guest sector and no live metadata. Pure.

Theory. The guest reads through a map from guest sector to place in the file: BAT, then batmap, then sector
bitmap (the order in which tapdisk asks). The proof is on extents: the map is the same before and after, no
edit touches a byte that is mapped, nothing shrinks, and the diagnosis of the result shows no new error. The
guest's data itself need not be read for that; only the bitmaps of the blocks near an edit are.
"""

from __future__ import annotations

from collections.abc import Iterator

from smfix.formats.vhd import structs
from smfix.formats.vhd.image import VhdImage
from smfix.formats.vhd.problems.orphan_blocks import block_limit
from smfix.formats.vhd.structs import Header
from smfix.values import SECTOR, Diagnosis, Edit, Extent, Resize, Severity, Sound, Write


def violations(
    before: VhdImage,
    after: VhdImage,
    edits: tuple[Edit, ...],
    first: Diagnosis,
    second: Diagnosis,
    agreed: frozenset[int] = frozenset(),
    *,
    reread: bool = False,
) -> list[str]:
    """Why the plan must not be carried out, each a sentence; empty: it is proved.

    `first` and `second` are the diagnoses of `before` and `after`; `agreed` are the blocks whose BAT entry
    the operator agreed to change. `reread`: the operator agreed to another footer or header, so the map before
    was not what it should be; then the map after is the one that must not be touched.
    """
    known = {finding.code for finding in first.findings}
    new = sorted({finding.code for finding in second.findings if finding.severity is Severity.ERROR} - known)
    return [
        *_sizes(before, edits),
        *(f"the result would show {code}, which was not there before" for code in new),
        *_touched(after if reread else before, edits, agreed),
        *([] if reread else _moved(before, after, edits, agreed)),
    ]


def _sizes(before: VhdImage, edits: tuple[Edit, ...]) -> Iterator[str]:
    size = before.size
    for edit in edits:
        if isinstance(edit, Write):
            if edit.offset > size:
                yield f"a write at byte {edit.offset} would begin behind the end ({size})"
            reach = edit.extent.end
        else:
            reach = edit.size
            if edit.size < size:
                yield f"the image would shrink from {size} to {edit.size} bytes"
        if reach > size and not before.view.growable:
            yield "a device cannot grow"
        size = max(size, reach)


def mapped(image: VhdImage, header: Header, at: int, block: int) -> Iterator[Extent]:
    """The living bytes of the block that starts at `at`: its bitmap, and its written sectors.

    Bytes after :func:`~smfix.formats.vhd.problems.orphan_blocks.block_limit` do not exist, so they cannot be lost.
    """
    end = block_limit(image)
    data = at + header.bitmap_size
    if data > end:
        return
    yield Extent(at, header.bitmap_size)
    full = image.full(block)
    bits = b"" if full else image.bitmap(header, at)
    for index in range(header.block_size // SECTOR):
        spot = Extent(data + index * SECTOR, SECTOR)
        if spot.end <= end and (full or structs.bit(bits, index)):
            yield spot


def _bits(image: VhdImage) -> bytes:
    """The batmap's bits; empty where tapdisk does not read by it."""
    return image.batmap.value.bits if isinstance(image.batmap, Sound) else b""


def _touched(before: VhdImage, edits: tuple[Edit, ...], agreed: frozenset[int]) -> Iterator[str]:
    if before.footer is not None and not before.footer.is_sparse:
        # A fixed disk: the place of a sector is its number.
        living = min(before.footer.current_size, before.end_of_data)
        for edit in edits:
            if isinstance(edit, Write) and edit.offset < living:
                yield f"a write at byte {edit.offset} would touch the data of a fixed disk"
    layout = before.layout
    if layout is None:
        return
    header, bat = layout
    for edit in edits:
        if isinstance(edit, Resize):
            continue
        if any(loc.path is not None and loc.entry.extent.overlaps(edit.extent) for loc in before.locators):
            yield f"a write at byte {edit.offset} would touch the path to the parent"
        for at, block in bat.covering(edit.extent, header.block_space):
            if block not in agreed and any(spot.overlaps(edit.extent) for spot in mapped(before, header, at, block)):
                yield f"a write at byte {edit.offset} would touch live data of block {block}"


def _moved(before: VhdImage, after: VhdImage, edits: tuple[Edit, ...], agreed: frozenset[int]) -> Iterator[str]:
    old, new = before.layout, after.layout
    if old is None or new is None:
        if old is not new:
            yield "the BAT could be read only before or only after"
        return
    if old[0] != new[0] or any(block not in agreed for block in old[1].differing(new[1])):
        yield "the header or the BAT would change what the guest reads"
        return
    if before.footer is not None and after.footer is not None:
        for name in ("current_size", "type", "uuid"):
            if getattr(before.footer, name) != getattr(after.footer, name):
                yield f"the footer's {name} would change"
    if _bits(before) != _bits(after) and any(before.full(block) != after.full(block) for _, block in before.blocks()):
        yield "the batmap would change for a block that has a place"
    header, bat = old
    end = block_limit(before)
    for edit in edits:
        extent = Extent(before.size, edit.size - before.size) if isinstance(edit, Resize) else edit.extent
        for at, block in bat.covering(extent, header.block_space):
            if (
                block not in agreed
                and at + header.bitmap_size <= end
                and before.bitmap(header, at) != after.bitmap(header, at)
            ):
                yield f"the sector bitmap of block {block} would change"
