"""Fixed disks: VHD120, VHD308, VHD309.

Theory. A fixed disk is the guest's disk as it is, and a footer after it. There is no backup footer, no header, no
BAT: nothing but the one footer's size says how long the disk is, and nothing but the footer's place says how long it
was. If the footer is before the end of the disk that it describes, the file was cut (or the footer is another
disk's), and the guest reads the footer as data and nothing after it.

Source: ``__vhd_io_fixed_read``, ``vhd_end_of_data`` (libvhd.c), ``schedule_data_read`` (tapdisk block-vhd.c): the
place of a sector is its number; ``vhd_util_check_footer`` looks at nothing but the footer. Offsets in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from smfix.formats.problem import CONFIRM, ERROR, REPORT, WARNING, Context, Detection, Problem
from smfix.formats.vhd.image import FIXED_SLACK, VhdImage
from smfix.formats.vhd.problems.fixed_layout import proved_fixed
from smfix.formats.vhd.problems.footer import held_open, primary_check
from smfix.formats.vhd.structs import FOOTER_SIZE, DiskType, Footer, geometry_for
from smfix.values import SECTOR, Damaged, Edit, Extent, Finding, Reason, Refusal, Resize, Sound, Write

LARGEST_GEOMETRY = 65535 * 16 * 255 * SECTOR
"""Bytes of a disk whose geometry is that of every larger one."""
SAMPLED = 1 << 20
"""Bytes behind the disk's end, and before the footer, that are looked at."""


def _end(image: VhdImage) -> Sound[Footer] | None:
    """The footer of a fixed disk at the end of the file."""
    if isinstance(image.end, Sound) and image.footer is image.end.value and image.end.value.type == DiskType.FIXED:
        return image.end
    return None


# --------------------------------------------------------------------------- VHD120


def _damaged(image: VhdImage, context: Context) -> tuple[Damaged, Footer | None] | None:
    """The remains of the disk's footer, and the footer that its checksum proves (None: none, or several)."""
    proved = proved_fixed(image, context)
    if proved is None and isinstance(image.end, Damaged) and image.was_fixed:
        return image.end, None
    return proved


def _detect_damaged(image: VhdImage, context: Context) -> Iterator[Detection]:
    found = None if held_open(context) and not image.was_fixed else _damaged(image, context)
    if found is not None:
        left, answer = found
        proved = "One footer has the checksum that it holds." if answer else "No single footer has its checksum."
        if not image.was_fixed:
            proved += " The sound footer at offset 0 is of a VHD that the disk's guest has written there."
        facts = {"reasons": "; ".join(left.reasons), "offset": left.where.offset, "answer": proved}
        yield Detection(facts, primary_check(image), disposition=CONFIRM if answer else REPORT)


def _fix_damaged(image: VhdImage, finding: Finding, context: Context) -> tuple[Edit, ...] | Refusal:
    proved = proved_fixed(image, context)
    if proved is None:
        return Refusal(Reason.NO_FIX, "no single footer has the checksum that the damaged one holds")
    return (Write(proved[0].where.offset, proved[1].encode()),)


# --------------------------------------------------------------------------- VHD308


def _detect_cut(image: VhdImage, context: Context) -> Iterator[Detection]:
    end = _end(image)
    if end is None or end.value.current_size <= end.where.offset:
        return
    size, there = end.value.current_size, end.where.offset
    # Size and geometry are two fields: if they disagree, it may be the size that is wrong. From some size on
    # all geometries are one. And a dynamic disk's footer at offset 0 says that this one is a guest's (VHD105).
    fits = size % SECTOR == 0 and end.value.geometry == geometry_for(size) and size < LARGEST_GEOMETRY
    dynamic = isinstance(image.backup, Sound) and image.backup.value.is_sparse
    believed = image.view.growable and fits and not dynamic
    first = there // SECTOR * SECTOR
    facts = {
        "size": size,
        "there": there,
        "missing": size - there,
        "sectors": (size - first) // SECTOR,
        "first": first // SECTOR,
        "lost": [[first, size - first]],
    }
    yield Detection(facts, disposition=CONFIRM if believed else REPORT)


def _fix_cut(image: VhdImage, finding: Finding, context: Context) -> tuple[Edit, ...] | Refusal:
    end = _end(image)
    if end is None or not image.view.growable:
        return Refusal(Reason.NO_FIX, "a device cannot be extended: grow the logical volume first")
    size = end.value.current_size
    blank = Write(end.where.offset, bytes(min(image.size, size) - end.where.offset))
    grown = (Resize(size),) if size > image.size else ()
    return (blank, *grown, Write(size, end.value.encode()))


# --------------------------------------------------------------------------- VHD309


def _detect_behind(image: VhdImage, context: Context) -> Iterator[Detection]:
    end = _end(image)
    if end is None or not image.view.growable:
        return  # the bytes after a disk on a larger device are left from other volumes
    size, there = end.value.current_size, end.where.offset
    if there - size <= FIXED_SLACK:
        return
    first = size + FOOTER_SIZE  # an earlier footer may be right after the disk
    for start in (first, max(first, there - SAMPLED)):
        raw = image.view.read(Extent(start, min(SAMPLED, there - start)))
        if raw.count(0) != len(raw):
            yield Detection({"size": size, "behind": there - size})
            return


ROWS = (
    Problem(
        "VHD120",
        "footer of a fixed disk damaged",
        "The footer at byte {offset:,} is damaged ({reasons}), and a fixed disk has no other. {answer}",
        ERROR,
        REPORT,
        _detect_damaged,
        also=(CONFIRM,),
        fix=_fix_damaged,
        done="the footer was restored from its own fields, proved by its checksum",
        todo="restore the footer from its own fields, proved by its checksum",
        turn=7,
        means="No tool opens the disk as a VHD. The guest's data is not touched by this: it is the file up to there.",
        why="The last sector was overwritten in part, or a write to it was cut short.",
        advice="The file without its last 512 bytes is the raw disk: it can be imported as such.",
        source='vhd_util_check_footer; specification, "Fixed Hard Disk Image"',
        rereads=True,
    ),
    Problem(
        "VHD308",
        "fixed disk cut short",
        (
            "The footer gives the disk {size:,} bytes, the file holds {there:,} before it: {sectors:,} guest sectors "
            "are lost, from sector {first:,}."
        ),
        ERROR,
        CONFIRM,
        _detect_cut,
        lossy=True,
        also=(REPORT,),
        fix=_fix_cut,
        done="the file was extended with zeros to the disk's end, the footer put behind it",
        todo="extend the file with zeros to the disk's end, put the footer behind it",
        turn=20,
        means=(
            "The guest reads the footer as its own data, and errors behind it. `vhd-util check` calls such a file "
            "valid: it looks at nothing but the footer."
        ),
        why="The file was truncated or copied in part, and a footer put at its new end.",
        advice="Copy the disk again from where it came from, or restore it: what is missing is not in the file.",
        source="__vhd_io_fixed_read (libvhd.c); schedule_data_read (tapdisk block-vhd.c)",
    ),
    Problem(
        "VHD309",
        "data behind the end of a fixed disk",
        "The footer gives the disk {size:,} bytes; data lies in the {behind:,} bytes between its end and the footer.",
        WARNING,
        REPORT,
        _detect_behind,
        means="The guest reads nothing of it. The disk may have been larger than its footer says.",
        why="A footer from before a resize, or of another disk, stands at the end of the file.",
        advice="Compare the size with the disk's record in XAPI before the file is copied or cut.",
        source="vhd_end_of_data (libvhd.c): a fixed disk's data is whatever lies before the footer",
    ),
)
