"""Footers and the tail: VHD1xx, and what looks like damage there and is none.

Theory. The footer exists twice: at the end, where tapdisk and coalesce overwrite it whenever the file
grows, and as a backup at offset 0, written last. So the end is what is lost in practice and the backup is
what it is restored from, unless the rest of the image contradicts it (:func:`contradictions`): a stale
backup describes a smaller disk, and believing it cuts living blocks off.

Source: ``vhd_util_check_footer``, ``vhd_util_check_validate_footer`` (blktap ``vhd-util-check.c``),
``vhd_write_footer``, ``vhd_kill_footer``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from smfix.formats.problem import CONFIRM, ERROR, INFO, REPORT, SAFE, Context, Detect, Detection, Problem
from smfix.formats.vhd import structs
from smfix.formats.vhd.image import MARK, VhdImage, inspect
from smfix.formats.vhd.problems.fixed_layout import fixed_signs, proved_fixed
from smfix.formats.vhd.problems.orphan_blocks import is_padding, written_sector
from smfix.formats.vhd.problems.witness import (
    copies,
    guest_may_have_written,
    is_confirmed,
    is_known,
    is_named_by_child,
    strangers,
)
from smfix.formats.vhd.structs import FOOTER_RULES, FOOTER_SIZE, TAP_VERSION_1_1, Footer, geometry_for
from smfix.values import SECTOR, Damaged, Edit, Extent, Finding, InUse, Reason, Refusal, Resize, Sound, Write, uuid_text

CLOCK_SLACK = 1800
"""Seconds that a timestamp may lie in the future (``TIMESTAMP_MAX_SLACK``)."""
RIVALS = 8
"""Footers in the tail, unlike the backup footer, that the image is read by at most."""
BLOCKS_OF_2_TIB = (2 << 40) // structs.BLOCK_SIZE
"""BAT entries of an image made with ``vhd-util create -S`` for SM's largest disk."""


# --------------------------------------------------------------------------- what the rest says


def contradictions(image: VhdImage) -> list[str]:
    """The evidence in the image against the footer it is read by; empty: none.

    Each is a sentence. Used before that footer is copied anywhere.
    """
    footer, header = image.footer, image.geometry
    if footer is None:
        return ["there is no sound footer"]
    objections = _not_allowed(footer)
    if not footer.is_sparse:
        return [*objections, "it describes a fixed disk, which has no backup footer"]
    if header is None or not isinstance(image.bat, Sound):
        return [*objections, "the header or the BAT it must agree with is damaged"]
    blocks = header.blocks_of(footer.current_size)
    if image.bat.value.beyond:
        first = image.bat.value.beyond[0]
        objections.append(f"block {first} is in use, but the disk it describes ends before block {blocks}")
    if isinstance(image.batmap, Sound):
        bits = image.batmap.value.bits
        stray = structs.first_bit(bits, blocks)
        if stray is not None:
            objections.append(f"the batmap marks block {stray}, but the disk it describes has {blocks}")
        covered = image.batmap.value.header.map_size * 8
        if covered < blocks:
            objections.append(f"the batmap covers {covered} blocks, the disk it describes has {blocks}")
    if footer.by_tap and footer.geometry != geometry_for(footer.current_size):
        objections.append("its geometry is not that of its size")
    roomy = header.max_bat_size > blocks and header.max_bat_size != BLOCKS_OF_2_TIB
    if footer.by_tap and image.view.growable and roomy:
        objections.append(f"the BAT was made for {header.max_bat_size} blocks, the disk it describes has {blocks}")
    has_parent = header.parent_uuid != structs.NULL_UUID or any(loc.code for loc in header.locators)
    if has_parent != footer.is_differencing:
        objections.append("header and footer disagree on whether there is a parent")
    return objections


def _not_allowed(footer: Footer) -> list[str]:
    """Values that the fields of a sound footer must not have."""
    return [
        f"its own fields are not allowed: {rule.why}"
        for rule in FOOTER_RULES[2:]
        if rule.broken(footer) and rule.key != "geometry"
    ]


def held_open(context: Context) -> bool:
    """The disk is open for writing: its footer is absent by design."""
    return context.in_use is InUse.READ_WRITE


def same_footer(end: Footer, backup: Footer) -> bool:
    """Byte-identical, but for the `hidden` that an old tap set in the backup only."""
    if end == backup:
        return True
    old = backup.creator_version in (0x00000001, TAP_VERSION_1_1)
    return backup.hidden != 0 and backup.by_tap and old and replace(backup, hidden=0) == end


def primary_check(image: VhdImage) -> str:
    """What ``vhd-util check`` says of a damaged end footer."""
    reason = image.end.reasons[0] if isinstance(image.end, Damaged) else "invalid cookie"
    if image.size < FOOTER_SIZE or reason.startswith("error"):
        return "error reading primary footer: -22"
    return f"primary footer invalid: {reason}"


# --------------------------------------------------------------------------- VHD102


def _detect_odd(image: VhdImage, context: Context) -> Iterator[Detection]:
    if isinstance(image.end, Damaged) and image.size % SECTOR and not held_open(context):
        missing = -image.size % SECTOR
        facts = {"size": image.size, "over": image.size % SECTOR, "pad": missing}
        yield Detection(facts, primary_check(image))


def _fix_odd(image: VhdImage, finding: Finding, context: Context) -> tuple[Edit, ...] | Refusal:
    cut = cut_block(image)
    return cut or (Write(image.size, bytes(-image.size % SECTOR)),)


# --------------------------------------------------------------------------- VHD107


def _detect_poison(image: VhdImage, context: Context) -> Iterator[Detection]:
    both = (image.end, image.backup)
    where = [
        name for name, f in zip(("end", "backup"), both, strict=True) if isinstance(f, Sound) and f.value.is_poisoned
    ]
    if where:
        yield Detection({"where": " and ".join(where)}, "primary footer invalid: invalid cookie")


# --------------------------------------------------------------------------- VHD108


def _marked_sector(image: VhdImage) -> tuple[int, int] | None:
    """(block, offset in the guest disk) of a written sector under the 0xC7 mark at the end."""
    if not isinstance(image.end, Damaged) or image.end.raw != MARK:
        return None
    return written_sector(image, image.size - SECTOR)


def _detect_mark(image: VhdImage, context: Context) -> Iterator[Detection]:
    spot = None if held_open(context) else _marked_sector(image)
    if spot is not None:
        block, guest = spot
        facts = {"block": block, "guest_sector": guest // SECTOR, "lost": [[guest, SECTOR]]}
        yield Detection(facts, primary_check(image))


def _accept_loss(image: VhdImage, finding: Finding, context: Context) -> tuple[Edit, ...] | Refusal:
    return ()


# --------------------------------------------------------------------------- VHD103, VHD101


def cut_block(image: VhdImage) -> Refusal | None:
    """Why nothing may be appended: a block reaches past the end of the file (VHD301, VHD302)."""
    if image.footer is not None and image.footer.type == structs.DiskType.FIXED and image.end_of_data <= image.size:
        return None  # no blocks; its disk ends where its footer was found
    header = image.geometry
    if header is None or not isinstance(image.bat, Sound):
        return Refusal(Reason.NO_FIX, "without header and BAT it is not known where the blocks end")
    limit = image.size if image.view.growable else image.footer_home
    if image.bat.value.highest_end(header.block_space) > limit:
        return Refusal(Reason.NO_FIX, "its blocks do not end before the footer's place: that must be repaired first")
    return None


def append_footer(image: VhdImage, footer: Footer) -> tuple[Edit, ...] | Refusal:
    """The edits that put `footer` into its place, touching no block and shrinking nothing."""
    home = image.footer_home
    cut = cut_block(image)
    if cut is not None:
        return cut
    if not image.view.growable:
        return (Write(home, footer.encode()),)
    if home > structs.round_up(image.size):
        return (Resize(home), Write(home, footer.encode()))
    return (Write(image.size, bytes(home - image.size) + footer.encode()),)


def _stray(image: VhdImage) -> Sound[Footer] | None:
    """The sound footer in the tail that counts: the one equal to the backup, else the last."""
    if isinstance(image.backup, Sound):
        for footer in image.tail:
            if same_footer(footer.value, image.backup.value):
                return footer
    return image.tail[-1] if image.tail else None


def _others(image: VhdImage, footer: Footer) -> list[Sound[Footer]]:
    """The sound footers of the tail that differ from `footer`, each content once, the last of each."""
    last = {found.value: found for found in image.tail if not same_footer(found.value, footer)}
    return sorted(last.values(), key=lambda found: found.where.offset)


def _objections(image: VhdImage, footer: Footer, context: Context) -> list[str]:
    """The evidence that `footer` is another disk's: the image, and relatives unless the operator gave this UUID."""
    told = [] if context.given_uuid == footer.uuid else strangers(footer, context)
    return [*contradictions(image), *told]


def _doubts(image: VhdImage, footer: Footer, context: Context) -> list[str]:
    """The structures that a guest may have written: those at offset 0, or a footer in the tail. Consent decides."""
    objections = [] if is_named_by_child(footer, context) else fixed_signs(image)
    if objections:
        objections.append(f"a guest of that disk may have written what is at offset 0, {_becomes(image, footer)}")
    others = _others(image, footer)
    if others:
        objections.append(f"a different sound footer is at byte {others[-1].where.offset:,}")
    return objections


def _becomes(image: VhdImage, footer: Footer) -> str:
    """The disk that `footer` describes, in words."""
    kind = "a differencing" if footer.is_differencing else "a dynamic"
    parent = image.geometry.parent_uuid if image.geometry is not None else structs.NULL_UUID
    named = f", with the parent {uuid_text(parent)}" if parent != structs.NULL_UUID else ""
    return f"by which it is {kind} disk of {footer.current_size:,} bytes{named}"


def _written_there(image: VhdImage, found: Sound[Footer]) -> list[str]:
    """Why a guest may have written the footer `found`, and what the disk would be by it; empty: no guest can have."""
    footer, why = found.value, guest_may_have_written(image, found.where.offset)
    hidden = ", hidden" if footer.hidden else ""
    what = f"{_becomes(image, footer)}{hidden}, UUID {uuid_text(footer.uuid)}"
    return [] if why is None else [f"a guest may have written it: {why}; {what}"]


def _told(against: list[str], footer: Footer, context: Context) -> dict[str, str]:
    """The facts for the message: `contradiction` is what speaks against the repair, `told` that and the copies."""
    contradiction = "; ".join(against)
    but = f"But {contradiction}." if contradiction else ""
    return {"contradiction": contradiction, "told": " ".join(filter(None, (but, copies(footer, context))))}


def _detect_stray(image: VhdImage, context: Context) -> Iterator[Detection]:
    stray = _stray(image)
    if stray is None or held_open(context):
        return
    is_backed = isinstance(image.backup, Sound) and same_footer(stray.value, image.backup.value)
    if isinstance(image.backup, Sound) and not is_backed:
        return
    # A fixed disk has no backup footer to agree with: its footer's place proves its size.
    objections = _objections(image, stray.value, context) if stray.value.is_sparse else _not_fixed(image, stray)
    doubts = _doubts(image, stray.value, context) if is_backed else []
    if not is_backed and stray.value.is_sparse:
        doubts = _written_there(image, stray)
    facts = {
        "offset": stray.where.offset,
        "behind": image.size - stray.where.end,
        **_told(objections or doubts, stray.value, context),
    }
    consent = CONFIRM if doubts or not is_backed else SAFE
    yield Detection(facts, primary_check(image), disposition=REPORT if objections else consent)


def _not_fixed(image: VhdImage, stray: Sound[Footer]) -> list[str]:
    """The evidence that the footer of a fixed disk, in the tail, is not this file's own."""
    objections = _not_allowed(stray.value)
    at = stray.where.end
    rest = image.view.read(Extent(at, SECTOR + 1)).rstrip(b"\0")
    if (image.size - at > SECTOR or len(rest) == SECTOR) and not is_padding(image, at):
        objections.append("data is behind it: a guest of a dynamic disk may have written it into a block")
    return objections


def _fix_stray(image: VhdImage, finding: Finding, context: Context) -> tuple[Edit, ...] | Refusal:
    stray = _stray(image)
    if stray is None:
        return Refusal(Reason.NO_FIX, "no sound footer lies in the tail")
    made = append_footer(image, stray.value)
    if isinstance(made, Refusal) or not stray.value.is_sparse or isinstance(image.backup, Sound):
        return made
    return (*made, Write(0, stray.value.encode()))


def _detect_lost(image: VhdImage, context: Context) -> Iterator[Detection]:
    if isinstance(image.end, Sound) or isinstance(image.backup, Damaged) or held_open(context):
        return
    backup = image.backup.value
    if backup.is_poisoned or any(same_footer(f.value, backup) for f in image.tail):
        return
    if proved_fixed(image, context):
        return  # VHD120
    objections = _objections(image, backup, context)
    if not is_known(backup, context):
        rivals = [f for f in _others(image, backup)[-RIVALS:] if not contradictions(inspect(image.view, by=f.value))]
        objections = [
            *(f"a different sound footer lies at byte {rival.where.offset:,}" for rival in rivals[-1:]),
            *objections,
        ]
    doubts = _doubts(image, backup, context)
    facts = {
        "reason": image.end.reasons[0],
        "offset": image.end.where.offset,
        "home": image.footer_home,
        **_told(objections or doubts, backup, context),
    }
    yield Detection(facts, primary_check(image), disposition=REPORT if objections else CONFIRM if doubts else SAFE)


def _fix_lost(image: VhdImage, finding: Finding, context: Context) -> tuple[Edit, ...] | Refusal:
    if not isinstance(image.backup, Sound):
        return Refusal(Reason.NO_FIX, "the backup footer is damaged too")
    return append_footer(image, image.backup.value)


# --------------------------------------------------------------------------- VHD104


def _detect_backup(image: VhdImage, context: Context) -> Iterator[Detection]:
    if not isinstance(image.end, Sound) or not image.end.value.is_sparse or isinstance(image.backup, Sound):
        return
    if image.end.value.is_poisoned:
        return
    end = image.end.value
    objections = _objections(image, end, context)
    doubts = [] if is_confirmed(image, end, context) else _written_there(image, image.end)
    facts = {
        "reason": image.backup.reasons[0],
        **_told(objections or doubts, end, context),
    }
    check = f"backup footer invalid: {image.backup.reasons[0]}"
    yield Detection(facts, check, disposition=REPORT if objections else CONFIRM if doubts else SAFE)


def _fix_backup(image: VhdImage, finding: Finding, context: Context) -> tuple[Edit, ...] | Refusal:
    if not isinstance(image.end, Sound):
        return Refusal(Reason.NO_FIX, "the footer at the end is damaged too")
    return (Write(0, image.end.value.encode()),)


# --------------------------------------------------------------------------- field rules


_CALLED = {"primary": "footer", "backup": "backup footer"}
"""What ``vhd-util check`` calls a footer, and what it is called here."""


def _breaking(image: VhdImage, broken: Callable[[Footer], bool]) -> Iterator[tuple[str, Footer]]:
    """The sound footers that are `broken`, each content once, and how ``vhd-util check`` calls them."""
    end = image.end.value if isinstance(image.end, Sound) else None
    if end is not None and broken(end):
        yield "primary", end
    backup = image.backup.value if isinstance(image.backup, Sound) else None
    if backup is None or backup is end or image.footer is None or not image.footer.is_sparse:
        return
    if broken(backup) and backup != end:
        yield "backup", backup


def _detect_field(key: str) -> Detect:
    rule = next(rule for rule in FOOTER_RULES if rule.key == key)

    def detect(image: VhdImage, context: Context) -> Iterator[Detection]:
        for which, footer in _breaking(image, rule.broken):
            facts = {"which": which, "footer": _CALLED[which], "why": rule.why, "value": _value(footer, key)}
            yield Detection(facts, f"{which} footer invalid: {rule.why}")

    return detect


def _value(footer: Footer, key: str) -> str:
    names = {"extra-features": "features", "creator-version": "creator_version", "data-offset": "data_offset"}
    value = getattr(footer, names.get(key, key))
    if isinstance(value, int):
        return f"0x{value:x}"
    return "not all NUL" if len(value) > len(structs.NULL_UUID) else bytes(value).hex()


def _detect_future(image: VhdImage, context: Context) -> Iterator[Detection]:
    now = structs.vhd_time(context.now)
    for which, footer in _breaking(image, lambda footer: footer.timestamp > now + CLOCK_SLACK):
        moment = structs.from_vhd_time(footer.timestamp).isoformat()
        facts = {"which": which, "footer": _CALLED[which], "moment": moment}
        yield Detection(facts, f"{which} footer invalid: creation time in future")


def _field_row(code: str, key: str, what: str) -> Problem:
    return Problem(
        code,
        f"footer field not allowed: {what}",
        f"The {{footer}}'s checksum is right, but {what} is not allowed ({{why}}; it holds {{value}}).",
        ERROR,
        REPORT,
        _detect_field(key),
        means="Tools that check the footer refuse the disk. Its data is where it was.",
        why="It was written on purpose: by a foreign or very old tool, or by hand.",
        advice="Compare with the disk's record in XAPI; copy the disk with a tool that reads it.",
        source=f"vhd_util_check_validate_footer: {key}",
    )


# --------------------------------------------------------------------------- VHD901


def _detect_in_use(image: VhdImage, context: Context) -> Iterator[Detection]:
    if held_open(context) and isinstance(image.end, Damaged) and isinstance(image.backup, Sound):
        state = "tapdisk's 0xC7 mark stands there" if image.end.raw == MARK else image.end.reasons[0]
        yield Detection({"state": state})


# --------------------------------------------------------------------------- the rows

IN_USE = Problem(
    "VHD901",
    "footer absent because the disk is in use",
    "The disk is open for writing and its footer is absent ({state}). That is normal: tapdisk restores it on closing.",
    INFO,
    REPORT,
    _detect_in_use,
    means="Nothing is wrong: every running disk can look like this.",
    why=(
        "tapdisk overwrites the footer with the first new block and puts it back when the disk closes; a "
        "resumed disk has its last sector filled with 0xC7. So every running disk fails `vhd-util check`."
    ),
    advice="Do nothing, and never write to it: a footer written now can land inside live data.",
    source="tapdisk block-vhd.c: vhd_kill_footer; libvhd.c: vhd_write_footer",
)

PRIMARY = (
    Problem(
        "VHD102",
        "file size is not a multiple of 512",
        "The file is {size:,} bytes long, {over} more than whole sectors: no footer can be read at its end.",
        ERROR,
        SAFE,
        _detect_odd,
        fix=_fix_odd,
        done="padded with NUL to the next sector boundary",
        todo="pad with NUL to the next sector boundary",
        turn=30,
        means=(
            "The disk cannot be opened: tools look for the footer on a sector boundary. The guest's data is not "
            "touched by this."
        ),
        why="A write was cut short, or something was appended or cut off by hand.",
        advice="If the file ends inside a block, that is repaired first (VHD301).",
        source="vhd_util_check_footer; vhd_util_check_bat (invalid file size)",
    ),
    Problem(
        "VHD107",
        "SM's journaled resize was interrupted",
        "The footer carries the cookie `v_poison` ({where}): a resize by the storage manager is unfinished.",
        ERROR,
        REPORT,
        _detect_poison,
        means="The disk is out of service on purpose until the resize is finished or reverted.",
        why="A journaled resize disables the disk with this cookie before it moves metadata; it was interrupted.",
        advice="Let the storage manager revert it from its journal (an SR scan does, or `vhd-util revert -j`).",
        source="libvhd-journal.c: vhd_journal_disable_vhd; libvhd.h: VHD_POISON_COOKIE",
        bars=Refusal(
            Reason.SM_PENDING, "a resize by the storage manager is unfinished; the storage manager reverts it itself"
        ),
    ),
    Problem(
        "VHD108",
        "tapdisk's 0xC7 mark lies on a written guest sector",
        "The last sector holds tapdisk's 0xC7 mark and belongs to block {block}: guest sector {guest_sector} is lost.",
        ERROR,
        CONFIRM,
        _detect_mark,
        lossy=True,
        fix=_accept_loss,
        done="one guest sector accepted as lost",
        todo="accept one guest sector as lost",
        turn=10,
        means="512 bytes that the guest had written are gone; everything else is where it was.",
        why="A resumed disk had its last sector filled with 0xC7 while the last block reached to the file's end.",
        advice="Restore that sector from a backup or let the guest check its file system.",
        source="tapdisk block-vhd.c: vhd_kill_footer",
        stays_lost=True,
    ),
    Problem(
        "VHD103",
        "footer inside the tail, not at the end",
        "A sound footer stands at byte {offset:,}, {behind:,} bytes before the end of the file. {told}",
        ERROR,
        SAFE,
        _detect_stray,
        also=(CONFIRM, REPORT),
        fix=_fix_stray,
        done="the footer was appended at the end, and put at offset 0 if it was lost there",
        todo="append a copy of the footer that stands before the end, and put it at offset 0 if it is lost there",
        turn=40,
        means=("The disk cannot be opened: no tool looks for a footer there. The guest's data is not touched by this."),
        why="Something was appended behind the footer, or the file system preallocated space there.",
        advice="Where something contradicts it, compare the disk's size with XAPI's before anything is written.",
        asks_relatives=True,
        source="vhd_util_check_footer; measured on preallocating file systems",
    ),
    Problem(
        "VHD101",
        "footer lost, backup footer sound",
        "The footer at the end is missing ({reason}); the backup footer at offset 0 is sound. {told}",
        ERROR,
        SAFE,
        _detect_lost,
        also=(CONFIRM, REPORT),
        fix=_fix_lost,
        done="the backup footer was appended as the footer",
        todo="append the footer, a copy of the one at offset 0",
        turn=40,
        means=(
            "Every tool that opens the disk as a whole refuses it, and coalesce of its chain stops. The guest's "
            "data is not touched by this."
        ),
        why=(
            "The footer is overwritten whenever the file grows and written back last. A crash, a killed coalesce "
            "or a full file system leaves the disk without it."
        ),
        advice="Where something contradicts the backup footer, it is not copied: compare the size with XAPI's.",
        asks_relatives=True,
        source="vhd_util_check_footer; vhd_util_coalesce_parent",
    ),
    _field_row("VHD109", "features", "the reserved feature bit being clear"),
    _field_row("VHD110", "extra-features", "a further feature bit"),
    _field_row("VHD111", "version", "this file format version"),
    _field_row("VHD112", "data-offset", "a data offset in a fixed disk"),
    Problem(
        "VHD902",
        "creation time in the future",
        "The {footer} was made at {moment}, which is in the future by this host's clock.",
        ERROR,
        REPORT,
        _detect_future,
        means="`vhd-util check` refuses the disk until that time. Nothing is lost.",
        why="The clock of this host or of the one that made the disk was wrong. The disk is not damaged.",
        advice="Set the clock. There is nothing to repair.",
        source="vhd_util_check_validate_footer: TIMESTAMP_MAX_SLACK",
        may_remain=True,
    ),
    _field_row("VHD113", "creator-version", "this tap creator version"),
    Problem(
        "VHD904",
        "geometry larger than the disk",
        "The {footer}'s geometry ({value}) is larger than the one that belongs to its size ({why}).",
        ERROR,
        REPORT,
        _detect_field("geometry"),
        means="`vhd-util check` refuses the disk; everything that reads it works.",
        why="qemu with force_size=on writes such disks; `vhd-util check` rejects them, readers do not care.",
        advice=(
            "The guest's data is whole and there is nothing to repair, but `vhd-util check` will go on refusing the "
            "file, and the storage manager merges nothing into a disk that it refuses. Shut the VM down and copy the "
            "disk (`xe vdi-copy uuid=VDI sr-uuid=SR`): the copy does not have this fault. Attach the copy instead."
        ),
        source="vhd_util_check_validate_footer: geometry",
        may_remain=True,
    ),
    _field_row("VHD115", "type", "this disk type"),
    _field_row("VHD116", "saved", "this saved state"),
    _field_row("VHD117", "hidden", "this hidden state"),
    _field_row("VHD118", "reserved", "data in the reserved bytes"),
    _field_row("VHD119", "uuid", "a null UUID"),
)

BACKUP = (
    Problem(
        "VHD104",
        "backup footer lost, footer sound",
        "The backup footer at offset 0 is damaged ({reason}); the footer at the end is sound. {told}",
        ERROR,
        SAFE,
        _detect_backup,
        also=(CONFIRM, REPORT),
        fix=_fix_backup,
        done="the backup footer was rewritten from the footer",
        todo="rewrite the backup footer, a copy of the footer at the end",
        turn=15,
        means=(
            "The disk still opens, but `vhd-util check` refuses it and coalesce of its chain stops. If the footer is "
            "lost too, no copy is left."
        ),
        why="The first sector was overwritten or a write to it was cut short.",
        advice="Where something contradicts the footer, it is not copied: compare the size with XAPI's.",
        asks_relatives=True,
        source="vhd_util_check_footer",
    ),
)
