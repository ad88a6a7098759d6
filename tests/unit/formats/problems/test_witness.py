"""Who else says so: a footer that a guest may have written, a head that is a guest's or another disk's."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from guest import guest_data
from images import (
    CONTEXT,
    DISK_SIZE,
    MIB,
    NOW,
    PARENT_UUID,
    SECTORS,
    UUID,
    applied,
    base,
    base_made,
    codes,
    device,
    fixed_disk,
    footer_of,
    lost_footer,
    planned,
    put,
    refooted,
    reheaded,
    repaired,
    seen,
    small,
    some,
    with_end,
)
from smfix.formats.problem import Context, Sibling
from smfix.formats.vhd.build import ParentRef, sparse
from smfix.formats.vhd.problems import fixed_layout, witness
from smfix.formats.vhd.problems.orphan_blocks import is_padding, written_sector
from smfix.formats.vhd.structs import BLOCK_SIZE, NO_OFFSET, DiskType, Footer, geometry_for
from smfix.values import SECTOR, Disposition, InUse, Reason, Verdict

SIZE = 8 * MIB
OTHER = b"o" * 16
EVERYTHING = tuple(f"VHD{number}" for number in (101, 102, 103, 104, 105, 106, 108, 201, 212, 301, 302, 304, 308, 401))


def fixed_footer(size: int = SIZE, **fields: object) -> Footer:
    made = replace(footer_of(fixed_disk()), current_size=size, original_size=size, geometry=geometry_for(size))
    return replace(made, **fields).sealed()  # type: ignore[arg-type]


def head(size: int = SIZE, *, parent: bool = True) -> bytes:
    """What a guest puts at its sector 0: a VHD but for its last footer, on another tenant's disk."""
    above = ParentRef(PARENT_UUID, "victim.vhd", 900) if parent else None
    return sparse(size, UUID, {1: some(1, range(8))}, parent=above, timestamp=1000).to_bytes()[:-SECTOR]


def hijack(size: int = SIZE, claims: int = SIZE) -> bytes:
    """The guest's disk of `size` bytes, without the footer behind it."""
    return head(claims).ljust(size, b"\0")


def child_of(uuid: bytes, size: int = DISK_SIZE):
    return seen(sparse(size, OTHER, {}, parent=ParentRef(uuid, "disk.vhd", 5)).to_bytes())


def finding(made, code: str):
    return next(each for each in made.diagnosis.findings if each.code == code)


# --------------------------------------------------------------------------- fixed disks are not hijacked


@pytest.mark.parametrize("size", [SIZE, SIZE - 77 * SECTOR])
def test_a_sound_fixed_disk_with_a_vhd_inside_is_valid(size):
    raw = hijack(size) + fixed_footer(size).encode()
    made = planned(raw)
    assert (made.diagnosis.verdict, codes(made)) == (Verdict.VALID, [])


def bent(**fields: object) -> bytes:
    """What is left of the fixed disk's footer: some fields are wrong, the checksum is as it was."""
    return replace(fixed_footer(), **fields).encode()  # type: ignore[arg-type]


LEFT = {
    "gone": b"",
    "zeroed": bytes(SECTOR),
    "garbage": b"\x5a" * SECTOR,
    "tapdisk's mark": b"\xc7" * SECTOR,
    "its first half": fixed_footer().encode()[:256] + b"\x11" * 256,
    "its second half": bytes(48) + fixed_footer().encode()[48:],
    "cut": fixed_footer().encode()[:300],
    "cut in its size": fixed_footer().encode()[:52],
    "511 bytes, one wrong": put(fixed_footer().encode(), 90, b"\1")[:-1],
    "a bit of its UUID": bent(uuid=b"\1" + fixed_footer().uuid[1:]),
    "its type": bent(type=3),
    "its size": bent(current_size=SIZE + 512),
    "its cookie": bent(cookie=bytes(8)),
    "padding behind it": put(fixed_footer().encode(), 90, b"\1") + bytes(4096),
    "one byte behind it": bent(uuid=OTHER) + b"x",
}


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("claims", [SIZE, 4 * MIB, 64 * MIB])
def test_no_fixed_disk_becomes_dynamic_on_the_word_of_its_guest(left, claims):
    made = planned(hijack(claims=claims) + LEFT[left])
    assert made.plan.edits == () or made.plan.needs, "a type changes, a parent appears, and nobody was asked"
    assert made.plan.refusal is not None


@pytest.mark.parametrize("left", ["gone", "zeroed", "padding behind it", "a bit of its UUID"])
def test_the_evidence_is_named_where_consent_is_asked_for(left):
    refusal = planned(hijack() + LEFT[left]).plan.refusal
    assert refusal.reason is Reason.NEEDS_CONFIRM
    assert "fixed disk" in refusal.message
    assert (
        "differencing disk of 8,388,608 bytes, with the parent 10111213-1415-1617-1819-1a1b1c1d1e1f" in refusal.message
    )


def test_a_fixed_disk_of_any_size_is_told_by_what_is_left_of_its_footer():
    size = SIZE - 77 * SECTOR
    raw = hijack(size) + replace(fixed_footer(size), uuid=OTHER).encode()
    assert planned(raw).plan.needs == ("VHD101",)
    assert planned(raw, "VHD101").plan.refusal is None, "consent decides"


@pytest.mark.parametrize("left", ["its type", "its size", "its cookie", "cut"])
def test_the_footer_that_its_checksum_proves_is_put_back(left):
    raw = hijack() + LEFT[left]
    made = planned(raw)
    assert made.plan.needs == ("VHD120",)
    assert "a VHD that the disk's guest has written" in finding(made, "VHD120").message
    after = repaired(raw, "VHD120")
    assert after == hijack() + fixed_footer().encode()


def test_a_child_says_that_it_is_dynamic():
    raw = put(hijack() + LEFT["its cookie"], 0, b"c")
    context = Context(NOW, children=(child_of(UUID, SIZE),))
    assert fixed_layout.proved_fixed(seen(raw), context) is None
    assert finding(planned(raw, context=context), "VHD101").disposition is Disposition.SAFE


def test_a_footer_inside_that_equals_the_guests_backup_needs_consent_too():
    raw = (head() + head()[:SECTOR]).ljust(SIZE, b"\0") + bytes(SECTOR)
    made = planned(raw)
    assert codes(made)[0] == "VHD103"
    assert made.plan.needs == ("VHD103",)


def test_the_length_of_a_volume_says_nothing():
    raw = put(device(base(), 16 * MIB - len(base())), -SECTOR, bytes(SECTOR))
    assert len(raw) % MIB == 0
    assert planned(raw, growable=False).plan.refusal is None


def test_a_dynamic_disk_whose_length_is_whole_mib_waits_for_consent():
    raw = lost_footer(base()).ljust(5 * MIB, b"\0")
    assert planned(raw).plan.needs == ("VHD101",)
    assert repaired(raw, "VHD101").startswith(raw)
    child = Context(NOW, children=(child_of(UUID),))
    assert planned(raw, context=child).plan.refusal is None


def test_consent_is_needed_whatever_a_first_repair_does_to_the_length():
    """Extended to a block's end, the file is no whole MiB any more; it was when somebody cut it."""
    raw = lost_footer(small())[: 2 * MIB]
    made = planned(raw)
    assert "VHD101" in made.plan.needs


def test_a_running_disk_is_not_called_fixed():
    raw = hijack() + LEFT["its type"]
    assert codes(planned(raw, context=Context(NOW, InUse.READ_WRITE))) == ["VHD901"]


def test_what_does_not_hold_a_vhd():
    assert not fixed_layout.holds_a_vhd(seen(base()))
    assert not fixed_layout.holds_a_vhd(seen(lost_footer(base())))
    assert not fixed_layout.holds_a_vhd(seen(hijack() + fixed_footer(SIZE * 2).encode()))
    odd = SIZE - 77 * SECTOR
    assert not fixed_layout.holds_a_vhd(seen(put(hijack(odd), 0, b"x") + fixed_footer(odd).encode()))
    assert not fixed_layout.holds_a_vhd(seen(put(hijack(odd), 600, b"x") + fixed_footer(odd).encode()))
    sound = seen(fixed_disk())
    assert fixed_layout.fixed_signs(sound) == []
    assert fixed_layout.proved_fixed(sound, CONTEXT) is None
    assert fixed_layout.proved_fixed(seen(lost_footer(base())), CONTEXT) is None


# --------------------------------------------------------------------------- all metadata lost, footers planted


def gutted(sectors: dict[int, bytes]) -> bytes:
    """A dynamic disk without head and footer; its guest's only block holds `sectors`."""
    raw = sparse(SIZE, UUID, {0: {**some(0, range(1000, 1100)), **sectors}}, timestamp=1000).to_bytes()
    return put(raw, 0, bytes(4096))[:-SECTOR]


def test_a_fixed_footer_with_data_behind_it_makes_no_fixed_disk():
    start = sparse(SIZE, UUID, {0: some(0, range(1))}).places[0] + SECTOR
    raw = gutted({64: fixed_footer(start + 64 * SECTOR).encode()})
    made = planned(raw, *EVERYTHING)
    assert finding(made, "VHD103").disposition is Disposition.REPORT
    assert "data is behind it" in made.plan.refusal.message
    assert made.plan.edits == ()


def test_of_two_fixed_footers_none_is_the_disks():
    first = fixed_footer(SECTOR * 8, uuid=OTHER)
    raw = bytes(SECTOR * 8) + first.encode() + fixed_footer(SECTOR * 9).encode() + bytes(SECTOR * 3)
    raw += b"" if len(raw) % SECTOR else b"\0"
    made = planned(raw, *EVERYTHING)
    assert made.plan.edits == ()


def test_padding():
    image = seen(base() + b"0" * 600 + bytes(600))
    assert is_padding(image, len(base()))
    assert not is_padding(image, len(base()) - 450)
    assert is_padding(image, image.size)


def test_more_than_is_searched_is_no_padding(monkeypatch):
    monkeypatch.setattr("smfix.formats.vhd.problems.orphan_blocks.WEIGHED", 4)
    assert not is_padding(seen(base() + bytes(5)), len(base()))


# --------------------------------------------------------------------------- a guest's footer in a crash tail


def crashed(footer: Footer) -> bytes:
    """tapdisk died after it wrote a new block and before its BAT entry; the guest had filled the block."""
    raw = lost_footer(base())
    return raw + b"\xff" * SECTOR + footer.encode() * SECTORS


PLANTED = {
    "another UUID": {"uuid": OTHER},
    "hidden": {"hidden": 1},
    "another size": {"current_size": 2 * DISK_SIZE, "geometry": geometry_for(2 * DISK_SIZE)},
    "its own": {},
}


@pytest.mark.parametrize("fields", PLANTED)
def test_a_footer_that_a_guest_may_have_written_is_not_copied_to_the_head(fields):
    raw = put(crashed(replace(footer_of(base()), **PLANTED[fields]).sealed()), 0, bytes(SECTOR))
    made = planned(raw)
    assert finding(made, "VHD104").disposition is not Disposition.SAFE
    assert made.plan.refusal is not None


def test_it_is_said_what_consent_would_make_of_the_disk():
    planted = replace(footer_of(base()), uuid=OTHER, hidden=1).sealed()
    made = planned(put(crashed(planted), 0, bytes(SECTOR)))
    assert re.fullmatch(r".* is sound\. But a guest may have written it: .*\.", finding(made, "VHD104").message)
    refusal = made.plan.refusal
    assert refusal.reason is Reason.NEEDS_CONFIRM
    assert "a guest may have written it" in refusal.message
    assert "hidden, UUID 6f6f6f6f" in refusal.message


def test_a_child_that_names_another_uuid_denies_it():
    raw = put(crashed(replace(footer_of(base()), uuid=OTHER).sealed()), 0, bytes(SECTOR))
    context = Context(NOW, children=(child_of(UUID),), child_names=("kid.vhd",))
    made = planned(raw, "VHD104", context=context)
    assert made.plan.edits == ()
    assert "its child kid.vhd names the parent's UUID 00010203" in made.plan.refusal.message


@pytest.mark.parametrize("hidden", [0, 1])
def test_a_footer_exactly_at_the_end_of_data_is_beyond_a_guests_reach(hidden):
    """A base copy stays what it is: `hidden` is not new where no guest can have written it."""
    raw = refooted(base(), hidden=hidden)
    assert planned(put(raw, 0, bytes(SECTOR))).plan.refusal is None
    assert repaired(put(raw, 0, bytes(SECTOR))) == raw


def test_with_slack_before_it_somebody_must_confirm_it():
    raw = lost_footer(base()) + bytes(3 * MIB) + base()[-SECTOR:]
    assert planned(put(raw, 0, bytes(SECTOR))).plan.needs == ("VHD104",)
    assert planned(put(raw, 64, bytes(4))).plan.refusal is None, "what is left of the backup footer confirms it"
    hidden = refooted(raw, hidden=1)
    child = Context(NOW, children=(child_of(UUID),))
    assert planned(put(hidden, 0, bytes(SECTOR)), context=child).plan.refusal is None, "a child confirms it"
    assert planned(put(raw, 0, bytes(SECTOR)), context=child).plan.refusal is not None, "a parent is hidden"
    larger = Context(NOW, children=(child_of(UUID, 2 * DISK_SIZE),))
    assert planned(put(hidden, 0, bytes(SECTOR)), context=larger).plan.refusal is not None
    nameless = Context(NOW, children=(seen(put(lost_footer(base()), 600, b"x")),))
    assert planned(put(raw, 0, bytes(SECTOR)), context=nameless).plan.needs == ("VHD104",)


@pytest.mark.parametrize(("slack", "needs"), [(0, ()), (MIB, ("VHD104",)), (3 * MIB, ())])
def test_on_a_volume_the_footer_is_beyond_the_block_that_could_follow(slack, needs):
    raw = put(device(base(), slack), 0, bytes(SECTOR))
    assert planned(raw, growable=False).plan.needs == needs


def test_a_full_volume_has_no_block_that_could_follow():
    whole = sparse(2 * BLOCK_SIZE, UUID, {0: some(0, range(9)), 1: some(1, range(9))}).to_bytes()
    assert planned(put(device(whole, MIB), 0, bytes(SECTOR)), growable=False).plan.needs == ()


def test_where_a_guest_reaches():
    image = seen(base())
    assert witness.guest_may_have_written(image, image.end_of_data) is None
    assert witness.guest_may_have_written(image, image.end_of_data - SECTOR) is not None
    assert witness.guest_may_have_written(seen(fixed_disk()), SIZE) is not None
    assert not witness.is_confirmed(seen(b"x" * 100), footer_of(base()), CONTEXT)


@pytest.mark.parametrize("fields", ["another UUID", "hidden", "another size"])
def test_two_different_sound_footers_are_never_safe(fields):
    planted = replace(footer_of(base()), **PLANTED[fields]).sealed()
    made = planned(lost_footer(base()) + planted.encode() + bytes(4096))
    assert made.plan.refusal is not None
    assert "a different sound footer" in made.plan.refusal.message


@pytest.mark.parametrize("uuid", [UUID, OTHER])
def test_the_operator_may_know_the_uuid(uuid):
    planted = replace(footer_of(base()), uuid=OTHER).sealed()
    raw = lost_footer(base()) + planted.encode() + bytes(4096)
    made = planned(raw, context=Context(NOW, given_uuid=uuid))
    assert made.plan.needs == (("VHD101",) if uuid == UUID else ())


# --------------------------------------------------------------------------- a sector that the bitmap marks


def own_footer_inside() -> bytes:
    """The guest holds a copy of its own VHD: the last sector of the last block is the disk's footer."""
    blocks = {0: some(0, range(40)), 1: {**some(1, range(SECTORS - 1)), SECTORS - 1: footer_of(small()).encode()}}
    raw = sparse(2 * BLOCK_SIZE, UUID, blocks, timestamp=1000).to_bytes()
    assert raw[-SECTOR:] == raw[-2 * SECTOR : -SECTOR] == raw[:SECTOR]
    return raw


def test_a_marked_sector_that_is_in_the_file_is_never_zeroed():
    whole = own_footer_inside()
    made = planned(whole[:-SECTOR], *EVERYTHING)
    after = applied(whole[:-SECTOR], made.plan.edits)
    assert after == whole
    assert guest_data(after) == guest_data(whole)
    assert "they may be the guest's own" in finding(made, "VHD301").message


@pytest.mark.parametrize("cut", [1, SECTOR - 1])
def test_nor_where_the_file_is_cut_inside_it(cut):
    whole = own_footer_inside()
    raw = whole[: -SECTOR - cut]
    after = applied(raw, planned(raw, *EVERYTHING).plan.edits)
    assert after.startswith(raw)


@pytest.mark.parametrize("stale", [{"uuid": OTHER, "geometry": 1}, {"current_size": 64 * MIB, "geometry": 1}])
def test_nor_by_the_footer_that_wins_over_it(stale):
    """A footer that differs from the backup footer, in the guest's last sector: the sector is kept and named."""
    raw = with_end(lost_footer(base()), replace(footer_of(base()), **stale).sealed())
    made = planned(raw, *EVERYTHING)
    assert made.plan.refusal is None
    assert made.plan.lost_sectors == 1
    after = applied(raw, made.plan.edits)
    assert after.startswith(raw)
    assert after[-SECTOR:] == base()[-SECTOR:]


def test_a_block_that_is_cut_besides_is_extended_and_named():
    raw = lost_footer(base())[:-MIB]
    raw = with_end(raw, replace(footer_of(base()), uuid=OTHER, geometry=1).sealed())
    made = planned(raw, *EVERYTHING)
    assert made.plan.refusal is None
    assert applied(raw, made.plan.edits).startswith(raw)
    assert made.plan.lost_sectors >= MIB // SECTOR


def test_nor_in_the_middle_of_a_block_that_is_cut():
    raw = with_end(lost_footer(base())[:-MIB], footer_of(base()))
    made = planned(raw, "VHD301")
    assert made.plan.lost_sectors == MIB // SECTOR + 1
    assert applied(raw, made.plan.edits).startswith(raw)


def test_a_volume_has_no_room_behind_it():
    raw = with_end(lost_footer(base()), replace(footer_of(base()), uuid=OTHER, geometry=1).sealed())
    assert planned(raw, *EVERYTHING, growable=False).plan.edits == ()


def test_which_sectors_are_written():
    image = seen(base())
    start = base_made().places[2]
    assert written_sector(image, start) is None
    assert written_sector(image, start + SECTOR) == (2, 2 * BLOCK_SIZE)
    assert written_sector(image, start + 5 * SECTOR) is None
    assert written_sector(image, image.size - SECTOR) is None
    assert written_sector(seen(fixed_disk()), 0) is None


# --------------------------------------------------------------------------- a guest's fixed footer in a dynamic disk


def disguised() -> bytes:
    raw = lost_footer(base())
    size = len(raw) - SECTOR
    return with_end(raw, fixed_footer(size))


def test_a_child_or_the_operator_says_that_it_is_no_fixed_disk():
    raw = disguised()
    assert planned(raw, *EVERYTHING).plan.edits == ()
    for context in (Context(NOW, children=(child_of(UUID),)), Context(NOW, given_uuid=UUID)):
        made = planned(raw, context=context)
        assert made.plan.needs == ("VHD105",)
        after = applied(raw, planned(raw, "VHD105", context=context).plan.edits)
        assert after == raw + base()[-SECTOR:]


# --------------------------------------------------------------------------- heads that are a stranger's


@pytest.mark.parametrize("raw", [lost_footer(base()), base() + bytes(4096), put(base(), 0, bytes(SECTOR))])
def test_a_child_with_another_parent_uuid_contradicts_the_head(raw):
    context = Context(NOW, children=(child_of(OTHER),))
    made = planned(raw, *EVERYTHING, context=context)
    assert made.plan.edits == ()
    assert "its child names the parent's UUID 6f6f6f6f" in made.plan.refusal.message


@pytest.mark.parametrize("raw", [lost_footer(base()), base() + bytes(4096), put(base(), 0, bytes(SECTOR))])
def test_a_disk_that_owns_the_uuid_contradicts_the_head(raw):
    rival = Context(NOW, siblings=(Sibling("owner.vhd", UUID, True), Sibling("x.vhd.bak", UUID, False)))
    made = planned(raw, *EVERYTHING, context=rival)
    assert made.plan.edits == ()
    assert "owner.vhd is the disk with its UUID 00010203" in made.plan.refusal.message
    assert made.diagnosis.findings[0].message.endswith("It shares its UUID with x.vhd.bak: a copy.")
    known = planned(raw, *EVERYTHING, context=replace(rival, given_uuid=UUID))
    assert known.plan.edits, "the operator knows better"


def test_a_copy_is_noted_and_no_contradiction():
    copy = Context(NOW, siblings=(Sibling("x.vhd.bak", UUID, False), Sibling("y.vhd", OTHER, True)))
    made = planned(lost_footer(base()), context=copy)
    assert made.plan.refusal is None
    assert finding(made, "VHD101").message.endswith("It shares its UUID with x.vhd.bak: a copy.")


def test_an_owner_or_the_operator_decides_between_two_footers():
    other = replace(footer_of(base()), uuid=OTHER).sealed()
    raw = with_end(base(), other)
    rival = Context(NOW, siblings=(Sibling("owner.vhd", OTHER, True),))
    for context in (rival, Context(NOW, given_uuid=UUID)):
        assert finding(planned(raw, context=context), "VHD105").facts["chosen"] == "backup"
    assert finding(planned(raw), "VHD105").disposition is Disposition.REPORT


def test_what_a_copy_is():
    image = seen(base())
    assert witness.is_copy(image, seen(base()))
    assert witness.is_copy(image, seen(lost_footer(base())))
    assert not witness.is_rival(image, seen(base()))
    other = sparse(DISK_SIZE, UUID, {2: some(3, range(5)), 0: some(0, range(SECTORS))}, timestamp=1000).to_bytes()
    assert witness.is_rival(image, seen(other)), "equal header and BAT, other blocks: a head in the wrong file"
    assert witness.is_rival(image, seen(small()))
    moved = sparse(DISK_SIZE, UUID, {1: some(1, range(5))}, timestamp=1000).to_bytes()
    assert witness.is_rival(image, seen(moved))
    unsound = seen(put(base(), 600, b"x"))
    assert not witness.is_rival(image, unsound)
    assert not witness.is_copy(unsound, image)
    no_bat = seen(reheaded(base(), max_bat_size=3))
    assert not witness.is_rival(image, no_bat)
    assert not witness.is_copy(no_bat, no_bat)


def test_a_cookie_alone_is_no_fixed_footer():
    assert NO_OFFSET > SIZE
    assert DiskType.FIXED == 2
    assert not fixed_layout.is_left_of_fixed(seen(lost_footer(base()) + footer_of(base()).encode()[:100]))
    assert not fixed_layout.is_left_of_fixed(seen(lost_footer(base()) + b"\xff" * SECTOR))


@pytest.mark.parametrize(
    ("whole", "spot"), [(witness.WHOLE, SECTORS - 8), (witness.WHOLE, 9), (0, SECTORS // 2), (0, 0)]
)
def test_disks_made_from_one_template_are_no_copies(monkeypatch, whole, spot):
    """Header, BAT, bitmaps and the first sectors of each block are equal; what was written later is not."""
    monkeypatch.setattr(witness, "WHOLE", whole)
    full = {n: bytes([n % 251]) * SECTOR for n in range(SECTORS)}
    one = sparse(DISK_SIZE, UUID, {0: full, 1: full}, timestamp=1000).to_bytes()
    changed = full | dict.fromkeys(range(spot, spot + 8), b"x" * SECTOR)
    two = sparse(DISK_SIZE, UUID, {0: full, 1: changed}, timestamp=1000).to_bytes()
    assert witness.is_copy(seen(one), seen(one))
    assert witness.is_rival(seen(one), seen(two))


def test_empty_disks_show_no_copy():
    empty = sparse(DISK_SIZE, UUID, {}, timestamp=1000).to_bytes()
    assert witness.is_rival(seen(empty), seen(empty))
