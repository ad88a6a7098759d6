"""The dynamic disk header: VHD2xx.

Source: ``vhd_util_check_validate_header``, ``vhd_validate_header`` (which ``vhd_open`` calls and which
prints nothing), ``vhd_util_check_validate_differencing_header`` (blktap).
"""

from __future__ import annotations

from collections.abc import Iterator

from smfix.formats.problem import CONFIRM, ERROR, REPORT, Context, Detect, Detection, Problem
from smfix.formats.vhd import structs
from smfix.formats.vhd.image import VhdImage
from smfix.formats.vhd.problems.footer import CLOCK_SLACK
from smfix.formats.vhd.problems.header_restore import relaid, restored
from smfix.formats.vhd.problems.orphan_blocks import block_limit
from smfix.formats.vhd.structs import HEADER_RULES, NULL_UUID, TAP_VERSION_REFUSED, Header
from smfix.values import SECTOR, Damaged, Edit, Finding, Reason, Refusal, Sound, Write


def _sound(image: VhdImage) -> Header | None:
    return image.header.value if isinstance(image.header, Sound) else None


def _detect_damaged(image: VhdImage, context: Context) -> Iterator[Detection]:
    if isinstance(image.header, Damaged) and image.looks_like_vhd:
        answer = restored(image, context)
        facts = {
            "reasons": "; ".join(image.header.reasons),
            "offset": image.header.where.offset,
            "restored_by": answer[1] if answer else None,
            "answer": f"One header fits {answer[1]}." if answer else "No single header fits the evidence.",
        }
        check = f"header is invalid: {image.header.reasons[0]}"
        yield Detection(facts, check, disposition=CONFIRM if answer else REPORT)


def _fix_damaged(image: VhdImage, finding: Finding, context: Context) -> tuple[Edit, ...] | Refusal:
    answer = restored(image, context)
    if answer is None or not isinstance(image.header, Damaged):
        return Refusal(Reason.NO_FIX, "no single header fits the evidence")
    return (Write(image.header.where.offset, answer[0].encode()),)


def _detect_relaid(image: VhdImage, context: Context) -> Iterator[Detection]:
    header, other = _sound(image), relaid(image)
    if header is not None and other is not None:
        facts = {
            "table_offset": header.table_offset,
            "block_size": header.block_size,
            "entries": header.max_bat_size,
            "usual_offset": other.table_offset,
            "usual_size": other.block_size,
            "usual_entries": other.max_bat_size,
        }
        yield Detection(facts)


def _fix_relaid(image: VhdImage, finding: Finding, context: Context) -> tuple[Edit, ...] | Refusal:
    other = relaid(image)
    if other is None or not isinstance(image.header, Sound):
        return Refusal(Reason.NO_FIX, "the usual layout does not fit")
    return (Write(image.header.where.offset, other.encode()),)


def _detect_field(key: str, *, silent: bool) -> Detect:
    rule = next(rule for rule in HEADER_RULES if rule.key == key)

    def detect(image: VhdImage, context: Context) -> Iterator[Detection]:
        header = _sound(image)
        if header is not None and rule.broken(header):
            yield Detection({"why": rule.why}, None if silent else f"header is invalid: {rule.why}")

    return detect


def _detect_table(image: VhdImage, context: Context) -> Iterator[Detection]:
    header = _sound(image)
    if header is None:
        return
    end = header.table_offset + header.max_bat_size * 4
    odd = header.table_offset == 0 or header.table_offset % SECTOR
    if odd or end > block_limit(image):
        facts = {"offset": header.table_offset, "end": end, "size": image.size}
        yield Detection(facts, "header is invalid: invalid table offset")


def _detect_version_refused(image: VhdImage, context: Context) -> Iterator[Detection]:
    footer = image.footer
    if footer is None or not footer.is_sparse:
        return  # `vhd-util check` does not open a fixed disk, and there is no bitmap in it
    if footer.by_tap and footer.creator_version == TAP_VERSION_REFUSED:
        yield Detection()


def _detect_parent_future(image: VhdImage, context: Context) -> Iterator[Detection]:
    header = _sound(image)
    if header is None or image.footer is None or not image.footer.is_differencing:
        return
    if header.parent_timestamp > structs.vhd_time(context.now) + CLOCK_SLACK:
        moment = structs.from_vhd_time(header.parent_timestamp).isoformat()
        yield Detection({"moment": moment}, "differencing header is invalid: parent creation time in future")


def _detect_parent_name(image: VhdImage, context: Context) -> Iterator[Detection]:
    header = _sound(image)
    if header is None or image.footer is None or not image.footer.is_differencing:
        return
    if header.parent_name_text() is None:
        yield Detection({}, "differencing header is invalid: invalid parent name")


def _detect_parent_fields(image: VhdImage, context: Context) -> Iterator[Detection]:
    header = _sound(image)
    if header is None or image.footer is None or image.footer.is_differencing:
        return
    filled = [
        why
        for why, is_filled in (
            ("non-null parent name", any(header.parent_name)),
            ("non-null parent locators", any(any(loc.encode()) for loc in header.locators)),
            ("non-null parent uuid", header.parent_uuid != NULL_UUID),
            ("non-zero parent timestamp", header.parent_timestamp != 0),
        )
        if is_filled
    ]
    if filled:
        yield Detection({"fields": ", ".join(filled)}, f"differencing header is invalid: invalid {filled[0]}")


_COPY = "Keep the file as it is; restore it from a backup, or ask for help with `smfix show` at hand."


def _field_row(code: str, key: str, what: str, *, silent: bool = False) -> Problem:
    return Problem(
        code,
        f"header field not allowed: {what}",
        f"The header's checksum is right, but {what} is not allowed ({{why}}).",
        ERROR,
        REPORT,
        _detect_field(key, silent=silent),
        means="Tools that check the header refuse the disk. Its data is where it was.",
        why="It was written on purpose: by a foreign tool, or by hand.",
        advice=_COPY,
        source=f"{'vhd_validate_header' if silent else 'vhd_util_check_validate_header'}: {key}",
    )


ROWS = (
    Problem(
        "VHD201",
        "header damaged",
        "The header at byte {offset:,} is damaged: {reasons}. {answer}",
        ERROR,
        REPORT,
        _detect_damaged,
        also=(CONFIRM,),
        fix=_fix_damaged,
        done="the header was restored",
        todo="restore the header",
        turn=9,
        means=(
            "The header says where everything is; without it no tool opens the disk. The blocks themselves are not "
            "touched by this."
        ),
        why="The sectors behind the backup footer were overwritten or a write to them was cut short.",
        advice=_COPY,
        source="vhd_util_check_validate_header",
        rereads=True,
    ),
    _field_row("VHD202", "version", "this header version"),
    _field_row("VHD203", "data-offset", "a data offset"),
    Problem(
        "VHD204",
        "BAT outside the file",
        "The header places the BAT at byte {offset:,} to {end:,}; the file is {size:,} bytes long.",
        ERROR,
        REPORT,
        _detect_table,
        means="No tool opens the disk: the table that says where its blocks lie is not where it should be.",
        why="The table offset or the number of entries is wrong, or the file was cut inside the BAT.",
        advice=_COPY,
        source="vhd_util_check_validate_header: invalid table offset",
    ),
    _field_row("VHD205", "block-size", "a block size that is no power of two"),
    _field_row("VHD206", "reserved", "data in the reserved bytes"),
    _field_row("VHD207", "block-size-large", "a block size above 2 MiB", silent=True),
    _field_row("VHD208", "platform-code", "an unknown platform code of a parent locator", silent=True),
    Problem(
        "VHD212",
        "header describes another layout",
        (
            "The header's checksum is right, but it places a BAT of {entries:,} entries at byte {table_offset:,} and "
            "blocks of {block_size:,} bytes, while BAT, batmap and blocks lie as for {usual_entries:,} entries at "
            "{usual_offset:,} and {usual_size:,} bytes."
        ),
        ERROR,
        CONFIRM,
        _detect_relaid,
        fix=_fix_relaid,
        done="the header was made to fit BAT, batmap and blocks",
        todo="make the header fit BAT, batmap and blocks",
        turn=6,
        means="The disk opens, and the guest reads data from the wrong places.",
        why="A field was changed and the checksum recomputed. `vhd-util check` may pass it.",
        advice=_COPY,
        source="vhd_initialize_header (libvhd.c): what tap writes; qemu vpc.c: the same",
        rereads=True,
        proved_at_first=True,
    ),
    Problem(
        "VHD211",
        "tap creator version 0.1",
        "The disk was made by tapdisk 0.1, whose bitmaps are little-endian; today's tools refuse it.",
        ERROR,
        REPORT,
        _detect_version_refused,
        means="Today's tools do not open the disk. It is not damaged.",
        why="It is a disk of a very old release that was never updated.",
        advice="Convert it with the tools of its time.",
        source="vhd_open: unsupported version 0.1 VHD",
    ),
    Problem(
        "VHD903",
        "parent creation time in the future",
        "The header says that the parent was made at {moment}, in the future by this host's clock.",
        ERROR,
        REPORT,
        _detect_parent_future,
        means="`vhd-util check` refuses the disk until that time. Nothing is lost.",
        why="The clock of this host or of the one that made the snapshot was wrong. The disk is not damaged.",
        advice="Set the clock. There is nothing to repair.",
        source="vhd_util_check_validate_differencing_header",
        may_remain=True,
    ),
    Problem(
        "VHD210",
        "parent name not readable",
        "The header's parent name is not ASCII in UTF-16.",
        ERROR,
        REPORT,
        _detect_parent_name,
        means="Tools that look for the parent by its name do not find it. This disk's own data is where it was.",
        why="The name was overwritten, or a foreign tool wrote another encoding.",
        advice=_COPY,
        source="vhd_header_decode_parent",
    ),
    Problem(
        "VHD209",
        "parent fields in a disk without parent",
        "The footer says that there is no parent, but the header holds: {fields}.",
        ERROR,
        REPORT,
        _detect_parent_fields,
        means="If the disk has a parent after all, whatever it did not write itself reads as zeros.",
        why="The footer's type is wrong (a differencing disk was made dynamic), or the header's fields are left over.",
        advice="Find out which of the two is right before anything is written: a lost parent is lost data.",
        source="vhd_util_check_validate_differencing_header",
    ),
)
