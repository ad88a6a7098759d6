"""Footers that disagree, and footers that are both gone: VHD105, VHD106.

Theory. No fixed rule picks the right one of two sound footers: a stale backup and a stale primary both exist. But
each can be asked what the disk would be if it were right, and header, BAT and batmap then agree or do not
(:func:`smfix.formats.vhd.problems.footer.contradictions`). One that nothing contradicts, against one that something
does, is proved. Where both footers are gone, header, BAT, batmap and the children that name this disk fix its fields,
or they do not: what nothing fixes is asked for, never invented.
Source: ``vhd_util_check_footer``, ``vhd_write_footer`` (primary first, then backup: a hint, never proof).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product
from typing import Any, NamedTuple

from smfix.formats.problem import CONFIRM, ERROR, REPORT, Context, Detection, Problem
from smfix.formats.vhd import structs
from smfix.formats.vhd.bat import Bat
from smfix.formats.vhd.image import VhdImage, inspect
from smfix.formats.vhd.problems.fixed_layout import holds_a_vhd
from smfix.formats.vhd.problems.footer import (
    BLOCKS_OF_2_TIB,
    append_footer,
    contradictions,
    cut_block,
    primary_check,
    same_footer,
)
from smfix.formats.vhd.problems.header_restore import begins_batmap
from smfix.formats.vhd.problems.orphan_blocks import written_sector
from smfix.formats.vhd.problems.witness import children, is_known, named_parents, owners
from smfix.formats.vhd.structs import (
    FOOTER_COOKIE,
    FOOTER_SIZE,
    NULL_UUID,
    PAGE,
    SHORT_FOOTER_SIZE,
    DiskType,
    Footer,
    Header,
    geometry_for,
)
from smfix.values import SECTOR, Damaged, Edit, Extent, Finding, Reason, Refusal, Resize, Sound, Write, uuid_text

COMBINATIONS = 4096
"""Combinations of two damaged copies that are tried at most."""
IN_GAPS = 8
"""Footers left between blocks that are weighed at most."""
_FIELDS = tuple(name for name in Footer.__slots__ if name != "checksum")
_FREE = (
    "timestamp",
    "creator_app",
    "creator_version",
    "creator_os",
    "original_size",
    "current_size",
    "geometry",
    "uuid",
)
"""Fields whose value no rule fixes."""
BENT = 2
"""Fields with one allowed value that a damaged copy may have wrong: with more it is no footer any more."""
_IDLE = {"timestamp", "original_size", "creator_os", "saved"}
"""Fields that change neither what the guest reads nor what the storage manager does."""


# --------------------------------------------------------------------------- VHD105


def _pair(image: VhdImage) -> tuple[Footer, Footer] | None:
    end, backup = image.end, image.backup
    if not isinstance(end, Sound) or not isinstance(backup, Sound) or not end.value.is_sparse:
        return None
    if end.value.is_poisoned or backup.value.is_poisoned or same_footer(end.value, backup.value):
        return None
    return end.value, backup.value


def _disguised(image: VhdImage) -> tuple[Footer, Footer] | None:
    """A fixed disk's footer at the end of a dynamic disk: its guest wrote those bytes, into the last block's end.

    While the disk is open its footer is absent, and the guest's own sectors reach to the end of the file. The header
    may be damaged besides: a sound footer of a dynamic disk at offset 0 is no chance.
    """
    end, backup = image.end, image.backup
    if not isinstance(end, Sound) or not isinstance(backup, Sound):
        return None
    if end.value.is_sparse or not backup.value.is_sparse or holds_a_vhd(image):
        return None
    return end.value, backup.value


def _decided(image: VhdImage, end: Footer, backup: Footer, context: Context) -> tuple[str | None, dict[str, list[str]]]:
    """(`end`, `backup` or None: which one is proved, what speaks against each)."""
    against = {
        "end": contradictions(inspect(image.view, by=end)),
        "backup": contradictions(inspect(image.view, by=backup)),
    }
    differ = {name for name in _FIELDS if getattr(end, name) != getattr(backup, name)}
    for which, footer in (("end", end), ("backup", backup)):
        named = named_parents(context)
        if "uuid" in differ and named and footer.uuid not in named:
            against[which].append("its UUID is not the one that its children name")
        if "uuid" in differ:
            against[which] += owners(footer, context)
            if context.given_uuid not in (None, footer.uuid):
                against[which].append("its UUID is not the one that was given")
        if "hidden" in differ and footer.hidden and not context.children:
            against[which].append("it is hidden, and no live child of the disk is known")
        if "hidden" in differ and not footer.hidden and context.children:
            against[which].append("it is not hidden, yet the disk has a child")
    clean = [which for which, reasons in against.items() if not reasons]
    if not end.is_sparse:
        # Only a child or the operator says that this is no fixed disk.
        return ("backup" if clean == ["backup"] and is_known(backup, context) else None), against
    if len(clean) == 1:
        return clean[0], against
    return ("end" if clean and differ <= _IDLE else None), against


def _detect_differ(image: VhdImage, context: Context) -> Iterator[Detection]:
    pair = _pair(image) or _disguised(image)
    if pair is None:
        return
    fields = [name for name in _FIELDS if getattr(pair[0], name) != getattr(pair[1], name)] or ["checksum"]
    chosen, against = _decided(image, *pair, context)
    spot = _covered(image, pair[1])
    covered = "" if spot is None else f"Guest sector {spot // SECTOR:,} is under the end footer, or is these bytes."
    speaks = "; ".join(
        f"against the {which} footer: {', '.join(reasons)}" for which, reasons in against.items() if reasons
    )
    weighed = f"{speaks[:1].upper()}{speaks[1:]}." if speaks else "Nothing in the image contradicts either."
    facts = {
        "fields": {name: [_shown(footer, name) for footer in pair] for name in fields},
        "names": ", ".join(fields),
        "chosen": chosen,
        "against": against,
        "speaks": " ".join(filter(None, (weighed, covered))),
        "lost": [] if spot is None else [[spot, SECTOR]],
    }
    # `vhd-util check` does not look at the backup footer of what it takes for a fixed disk.
    check = "primary and backup footers do not match" if pair[0].is_sparse else None
    yield Detection(facts, check, disposition=CONFIRM if chosen else REPORT, lossy=spot is not None)


def _covered(image: VhdImage, backup: Footer) -> int | None:
    """The guest offset of the written sector that the footer at the end overlays; None: none."""
    spot = written_sector(inspect(image.view, by=backup), image.end.where.offset)
    return None if spot is None else spot[1]


def _shown(footer: Footer, name: str) -> str:
    value = getattr(footer, name)
    return bytes(value).hex() if isinstance(value, bytes) else str(value)


def _fix_differ(image: VhdImage, finding: Finding, context: Context) -> tuple[Edit, ...] | Refusal:
    pair = _pair(image) or _disguised(image)
    chosen = finding.facts["chosen"]
    if pair is None or chosen is None or not isinstance(image.end, Sound):
        return Refusal(Reason.NO_FIX, "the evidence does not decide which footer is right")
    if chosen == "end":
        return (Write(0, pair[0].encode()),)
    if pair[0].is_sparse and not finding.facts["lost"]:
        return (Write(image.end.where.offset, pair[1].encode()),)
    return _put_behind(inspect(image.view, by=pair[1]), pair[1])


def _put_behind(image: VhdImage, backup: Footer) -> tuple[Edit, ...] | Refusal:
    """Leave the bytes at the end as they are: they may be the guest's. The backup footer goes after them."""
    if not image.view.growable:
        return Refusal(Reason.NO_FIX, "the footer at the end of the volume is inside a block")
    if cut_block(image) is None:
        return append_footer(image, backup)
    # The block is cut off as well: VHD301 names what is missing.
    return (Resize(structs.round_up(image.size) + SECTOR),)


# --------------------------------------------------------------------------- VHD106


def _detect_no_footer(image: VhdImage, context: Context) -> Iterator[Detection]:
    if isinstance(image.end, Sound) or isinstance(image.backup, Sound) or image.tail or image.was_fixed:
        return
    footer, origin, missing = _rebuilt(image, context)
    facts = {
        "end": image.end.reasons[0],
        "backup": image.backup.reasons[0],
        "origin": origin,
        "missing": [lack.words for lack in missing],
        # The options by which the operator completes it: empty if they are not enough.
        "options": [lack.option for lack in missing if lack.option] if all(lack.option for lack in missing) else [],
        "state": _state(footer, origin, missing),
    }
    yield Detection(facts, primary_check(image), disposition=CONFIRM if footer else REPORT)


class _Lack(NamedTuple):
    """A field that no evidence determines; `option`: the one by which the operator can give it."""

    words: str
    option: str | None = None


def _state(footer: Footer | None, origin: dict[str, str], missing: list[_Lack]) -> str:
    if footer is not None:
        return "Rebuilt from: " + "; ".join(f"{name} = {why}" for name, why in origin.items()) + "."
    given = [lack.option for lack in missing if lack.option]
    words = "Not fixed by any evidence: " + "; ".join(lack.words for lack in missing) + "."
    # Ask for no fact that would not complete it.
    return words if len(given) in (0, len(missing)) else f"{words} {' and '.join(given)} alone do not finish it."


def _patched(image: VhdImage, header: Header, context: Context) -> Footer | None:
    """The footer that both damaged copies together leave: each field from one of them, or the only value allowed.

    The checksum that either copy still holds arbitrates; nothing in the image may speak against the result. It adds up
    bytes, so that a wrong value here hides a wrong one there once in some hundred times: what is no footer any more is
    no witness, and size and geometry have to say the same.
    """
    raws = [f.raw for f in (image.end, image.backup) if isinstance(f, Damaged) and len(f.raw) >= SHORT_FOOTER_SIZE]
    has_parent = header.parent_uuid != NULL_UUID or any(loc.code for loc in header.locators)
    only: dict[str, Any] = {
        "cookie": FOOTER_COOKIE,
        "features": 2,
        "version": 0x00010000,
        "data_offset": FOOTER_SIZE,
        "type": DiskType.DIFFERENCING if has_parent else DiskType.DYNAMIC,
        "saved": 0,
        "reserved": bytes(426),
    }
    copies = [
        copy
        for copy in map(structs.parse_footer, raws)
        if sum(getattr(copy, name) != value for name, value in only.items()) <= BENT
    ]
    if not copies:
        return None
    named = set(named_parents(context))
    whole = header.max_bat_size * header.block_size
    open_ = {name: {getattr(copy, name) for copy in copies} for name in _FIELDS if name not in only}
    open_["hidden"] = {1} if context.children else open_["hidden"] & {0, 1} or {0}
    if header.max_bat_size != BLOCKS_OF_2_TIB:  # else it is the size that a disk may grow to
        open_["current_size"] |= {whole}
    open_["uuid"] |= named
    open_["geometry"] |= {geometry_for(size) for size in open_["current_size"]}
    found: set[Footer] = set()
    for values in islice(product(*open_.values()), COMBINATIONS):
        footer = replace(copies[0], **only, **dict(zip(open_, values, strict=True))).sealed()
        if any(footer.checksum == copy.checksum for copy in copies) and _agrees(footer, copies, whole):
            found.add(footer)
    allowed = {replace(copy, **only).sealed() for copy in copies}
    if len(copies) == 2 and allowed == {copy.sealed() for copy in copies} and len(allowed) == 1:
        found |= allowed  # only the checksums are wrong
    fitting = [footer for footer in found if not contradictions(inspect(image.view, by=footer))]
    return fitting[0] if len(fitting) == 1 else None


def _agrees(footer: Footer, copies: list[Footer], whole: int) -> bool:
    """The size and the geometry of `footer` say the same, and not one of them alone.

    Both are in one copy, or the size is that of the `whole` BAT; or every open field is as in one copy.
    """
    if any(all(getattr(footer, name) == getattr(copy, name) for name in _FREE) for copy in copies):
        return True
    seen = footer.current_size == whole or any(footer.geometry == copy.geometry for copy in copies)
    return seen and footer.geometry == geometry_for(footer.current_size)


def _rebuilt(image: VhdImage, context: Context) -> tuple[Footer | None, dict[str, str], list[_Lack]]:
    """(the footer that the evidence fixes or None, where each field comes from, what is missing)."""
    header = image.geometry
    if header is None or not isinstance(image.bat, Sound):
        return None, {}, [_Lack("header and BAT are not both sound")]
    patched = _patched(image, header, context)
    if patched is not None:
        return patched, {"every field": "one of the two damaged copies, proved by a stored checksum"}, []
    left = _left_in_gap(image, header, image.bat.value, context)
    if left is not None:
        why = "a footer that an earlier writer left between two blocks, and that nothing contradicts"
        return left, {"every field": why, "hidden": f"{left.hidden}, by the children known"}, []
    batmap_seen = begins_batmap(image, header.bat_extent.end)
    origin: dict[str, str] = {}
    missing: list[_Lack] = []
    if batmap_seen:
        origin["creator"] = "tap 1.3, the image has a batmap"
    else:
        missing.append(_Lack("the creator (there is no batmap)"))
    has_parent = header.parent_uuid != NULL_UUID or any(loc.code for loc in header.locators)
    origin["type"] = f"{'differencing' if has_parent else 'dynamic'}, by the header's parent fields"
    uuid = _uuid(context, origin, missing)
    size = _size(header, image, context, origin, missing)
    hidden = int(bool(context.children))
    origin["hidden"] = f"{hidden}, the disk has {'a' if hidden else 'no'} known child"
    stamps = [c.geometry.parent_timestamp for c in children(context) if c.geometry is not None]
    timestamp = min([*stamps, structs.vhd_time(context.now)]) if stamps else 0
    origin["timestamp"] = "the oldest child's parent timestamp" if stamps else "2000-01-01, unknown"
    if missing or uuid is None or size is None:
        return None, origin, missing
    footer = Footer(
        cookie=FOOTER_COOKIE,
        features=2,
        version=0x00010000,
        data_offset=FOOTER_SIZE,
        timestamp=timestamp,
        creator_app=b"tap\0",
        creator_version=structs.TAP_VERSION_CURRENT,
        creator_os=0,
        original_size=size,
        current_size=size,
        geometry=geometry_for(size),
        type=DiskType.DIFFERENCING if has_parent else DiskType.DYNAMIC,
        checksum=0,
        uuid=uuid,
        saved=0,
        hidden=hidden,
    ).sealed()
    image = inspect(image.view, by=footer)
    objections = [] if isinstance(image.batmap, Sound) else ["the batmap does not fit that size"]
    objections += [why for why in contradictions(image) if context.given_size is None or "BAT was made" not in why]
    return (None, origin, [_Lack(why) for why in objections]) if objections else (footer, origin, [])


def _left_in_gap(image: VhdImage, header: Header, bat: Bat, context: Context) -> Footer | None:
    """The one footer in the gaps between blocks that nothing contradicts; None: none, or several.

    libvhd aligns a block's data and leaves the former footer at the previous end. No guest
    can write there. Whether the disk is hidden may have changed since: its children tell.
    """
    seen: dict[bytes, Footer] = {}
    for gap, _ in bat.narrow(header.block_space, FOOTER_SIZE, image.end_of_headers):
        start = structs.round_up(gap.offset)
        for at in range(start, min(gap.end - FOOTER_SIZE + 1, start + PAGE), SECTOR):
            read = structs.decode_footer(image.view.read(Extent(at, FOOTER_SIZE)), at)
            if isinstance(read, Sound):
                footer = replace(read.value, hidden=int(bool(context.children))).sealed()
                idle = replace(footer, timestamp=0, original_size=0, creator_os=0, saved=0)
                seen[idle.sealed().encode()] = footer
    named = set(named_parents(context))
    if context.given_uuid is not None:
        named |= {context.given_uuid}
    fitting = [
        footer
        for footer in islice(seen.values(), IN_GAPS)
        if named <= {footer.uuid}
        and context.given_size in (None, footer.current_size)
        and not contradictions(inspect(image.view, by=footer))
    ]
    return fitting[0] if len(fitting) == 1 and len(seen) <= IN_GAPS else None


def _uuid(context: Context, origin: dict[str, str], missing: list[_Lack]) -> bytes | None:
    named = set(named_parents(context)) - {NULL_UUID}
    if context.given_uuid is not None:
        origin["uuid"] = f"{uuid_text(context.given_uuid)}, given"
        if named - {context.given_uuid}:
            missing.append(_Lack("the UUID given is not the one that its children name"))
        return context.given_uuid
    if len(named) == 1:
        uuid = named.pop()
        origin["uuid"] = f"{uuid_text(uuid)}, named by its child"
        return uuid
    several = _Lack("its children name several UUIDs")
    missing.append(several if named else _Lack("the UUID (give it with --uuid)", "--uuid"))
    return None


def _size(
    header: Header, image: VhdImage, context: Context, origin: dict[str, str], missing: list[_Lack]
) -> int | None:
    whole = header.max_bat_size * header.block_size
    if context.given_size is not None:
        origin["size"] = f"{context.given_size:,} bytes, given"
        if not 0 < context.given_size <= whole:
            missing.append(_Lack(f"the size given does not fit a BAT for {whole:,} bytes"))
        return context.given_size
    sizes = {child.footer.current_size for child in children(context) if child.footer is not None}
    if sizes == {whole}:
        origin["size"] = f"{whole:,} bytes, by the BAT and by its child"
        return whole
    missing.append(_Lack(f"the size (give it with --size; the BAT allows up to {whole:,} bytes)", "--size"))
    return None


def _fix_no_footer(image: VhdImage, finding: Finding, context: Context) -> tuple[Edit, ...] | Refusal:
    footer, _, missing = _rebuilt(image, context)
    if footer is None:
        return Refusal(Reason.NO_FIX, "; ".join(lack.words for lack in missing))
    made = append_footer(replace(image, footer=footer), footer)
    return made if isinstance(made, Refusal) else (*made, Write(0, footer.encode()))


# --------------------------------------------------------------------------- VHD307


def _larger(image: VhdImage) -> Footer | None:
    """The footer with the size that the BAT was made for, if that is a disk's own size and nothing denies it."""
    header, footer = image.geometry, image.footer
    if header is None or footer is None or not footer.by_tap or header.max_bat_size == BLOCKS_OF_2_TIB:
        return None
    if footer.has_batmap and not begins_batmap(image, header.bat_extent.end):
        return None
    size = header.max_bat_size * header.block_size
    larger = replace(footer, current_size=size, geometry=geometry_for(size)).sealed()
    return None if contradictions(inspect(image.view, by=larger)) else larger


def _detect_beyond(image: VhdImage, context: Context) -> Iterator[Detection]:
    both = isinstance(image.end, Sound) and isinstance(image.backup, Sound)
    if not both or _pair(image) is not None or not isinstance(image.bat, Sound) or image.footer is None:
        return
    if image.bat.value.beyond:
        larger = _larger(image)
        facts = {
            "block": image.bat.value.beyond[0],
            "size": image.footer.current_size,
            "larger": None if larger is None else larger.current_size,
            "answer": "" if larger is None else f"The BAT was made for {larger.current_size} bytes, and that fits.",
        }
        yield Detection(facts, disposition=CONFIRM if larger else REPORT)


def _fix_beyond(image: VhdImage, finding: Finding, context: Context) -> tuple[Edit, ...] | Refusal:
    larger = _larger(image)
    if larger is None or not isinstance(image.end, Sound):
        return Refusal(Reason.NO_FIX, "no size is proved")
    return (Write(image.end.where.offset, larger.encode()), Write(0, larger.encode()))


BEYOND = Problem(
    "VHD307",
    "blocks in use beyond the disk's size",
    "Block {block} is in use, but both footers give the disk {size:,} bytes and end it before that block. {answer}",
    ERROR,
    REPORT,
    _detect_beyond,
    also=(CONFIRM,),
    fix=_fix_beyond,
    done="both footers were given the size that the BAT was made for",
    todo="give both footers the size that the BAT was made for",
    turn=11,
    means="The guest sees a smaller disk than it once wrote to, and cannot reach the rest.",
    why="The size was set back, or a resize was interrupted, and the guest can no longer reach what it wrote.",
    advice="Compare the size with XAPI's record. `vhd-util check` passes it; `vhd-util repair` cuts the block off.",
    source="vhd_read_bat (libvhd.c): only the entries for the current size are read",
    rereads=True,
    proved_at_first=True,
)

DIFFER = Problem(
    "VHD105",
    "both footers sound, they disagree",
    "The footer and the backup footer are both sound but differ in: {names}. {speaks}",
    ERROR,
    REPORT,
    _detect_differ,
    also=(CONFIRM,),
    fix=_fix_differ,
    done="the proved footer was written over the other",
    todo="write the proved footer over the other",
    turn=8,
    means=(
        "Tools that read one of them see a different disk from tools that read the other: another size, another "
        "parent, visible or hidden."
    ),
    why="A writer was interrupted between the two. Writers write the footer first, then the backup.",
    advice="Compare both (`smfix show --hex`) with XAPI's record of the disk: no fixed rule is right.",
    asks_relatives=True,
    source="vhd_util_check_footer: primary and backup footers do not match",
    rereads=True,
    stays_lost=True,
)

BOTH_LOST = Problem(
    "VHD106",
    "both footers lost",
    "Neither the footer at the end ({end}) nor the backup footer ({backup}) can be used. {state}",
    ERROR,
    REPORT,
    _detect_no_footer,
    also=(CONFIRM,),
    fix=_fix_no_footer,
    done="both footers were rebuilt from header, BAT, batmap and children",
    todo="rebuild both footers from header, BAT, batmap and children",
    turn=8,
    means=(
        "Nothing in the file says any more how large the disk is or what its UUID is. Its header and its blocks may "
        "all be there."
    ),
    why="Both ends of the file were overwritten or never written.",
    advice=(
        "Keep the file as it is. Its size in bytes must come from a child, a backup or XAPI (`xe vdi-param-get "
        "uuid=VDI param-name=virtual-size`). Its footer's UUID is the one that its children name; where it has "
        "none, the VDI's own will do. Then: `smfix repair PATH --size SIZE --uuid UUID --confirm VHD106`."
    ),
    asks_relatives=True,
    source="vhd_read_footer",
    rereads=True,
)
