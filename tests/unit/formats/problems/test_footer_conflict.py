"""Two footers that disagree, or none at all: decided by evidence and consent, or not decided."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from guest import guest_data
from images import (
    CONTEXT,
    DISK_SIZE,
    MIB,
    NOW,
    PARENT_UUID,
    PARTIAL,
    UUID,
    base,
    child,
    codes,
    device,
    empty,
    footer_of,
    header_of,
    lost_footer,
    planned,
    put,
    qemu,
    rebatted,
    refooted,
    reheaded,
    repaired,
    seen,
    some,
    with_backup,
    with_end,
)
from smfix.formats.problem import Context
from smfix.formats.vhd.build import ParentRef, sparse
from smfix.formats.vhd.problems import footer_conflict
from smfix.formats.vhd.problems.footer import BLOCKS_OF_2_TIB
from smfix.formats.vhd.problems.registry import row
from smfix.formats.vhd.structs import BLOCK_SIZE, DiskType, Footer, geometry_for, vhd_time
from smfix.values import Disposition, Reason, Refusal

SPACE = BLOCK_SIZE + 512
CHILD_UUID = bytes(range(32, 48))
OTHER_UUID = bytes(range(48, 64))


def child_of(uuid: bytes, size: int = DISK_SIZE, timestamp: int = 555):
    parent = ParentRef(uuid, "disk.vhd", timestamp)
    return seen(sparse(size, CHILD_UUID, {1: some(1, PARTIAL)}, parent=parent).to_bytes())


WITH_CHILD = Context(NOW, children=(child_of(UUID),))


def changed(**change: object) -> Footer:
    return replace(footer_of(base()), **change).sealed()  # type: ignore[arg-type]


SMALLER = changed(current_size=2 * BLOCK_SIZE, geometry=geometry_for(2 * BLOCK_SIZE))
LARGER = changed(current_size=5 * BLOCK_SIZE, geometry=geometry_for(5 * BLOCK_SIZE))


# --------------------------------------------------------------------------- VHD105


@pytest.mark.parametrize("wrong", [SMALLER, LARGER, changed(geometry=1), changed(type=4), changed(saved=4)])
@pytest.mark.parametrize("where", ["end", "backup"])
def test_the_footer_that_the_image_contradicts_loses_after_consent(wrong, where):
    raw = with_end(base(), wrong) if where == "end" else with_backup(base(), wrong)
    made = planned(raw)
    finding = next(f for f in made.diagnosis.findings if f.code == "VHD105")
    assert finding.disposition is Disposition.CONFIRM
    assert finding.facts["chosen"] == ("backup" if where == "end" else "end")
    assert f"gainst the {where} footer: " in finding.message
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.NEEDS_CONFIRM
    assert "VHD105" in made.plan.needs
    assert repaired(raw, *made.plan.needs) == base()


def test_both_contradicted_is_not_decided():
    raw = with_backup(with_end(base(), SMALLER), LARGER)
    made = planned(raw, "VHD105")
    finding = next(f for f in made.diagnosis.findings if f.code == "VHD105")
    assert finding.disposition is Disposition.REPORT
    assert finding.facts["chosen"] is None
    assert finding.message.count("footer: ") == 2
    assert made.plan.edits == ()
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.NO_FIX


@pytest.mark.parametrize("field", ["uuid", "creator_app"])
def test_what_nothing_speaks_against_is_not_decided(field):
    other = changed(**{field: {"uuid": OTHER_UUID, "creator_app": b"tapX"}[field]})
    made = planned(with_backup(base(), other), "VHD105")
    assert made.diagnosis.findings[0].disposition is Disposition.REPORT
    assert "Nothing in the image contradicts either." in made.diagnosis.findings[0].message
    assert made.plan.edits == ()


@pytest.mark.parametrize("field", ["timestamp", "original_size", "creator_os"])
def test_where_nothing_hangs_on_it_the_end_footer_counts(field):
    raw = with_backup(base(), changed(**{field: 4096}))
    assert planned(raw).plan.needs == ("VHD105",)
    assert repaired(raw, "VHD105") == base()


@pytest.mark.parametrize("where", ["end", "backup"])
def test_hidden_is_never_chosen_without_a_child(where):
    raw = refooted(base(), where=where, hidden=1)
    made = planned(raw)
    assert made.diagnosis.findings[0].facts["chosen"] == ("backup" if where == "end" else "end")
    assert "no live child" in made.diagnosis.findings[0].message
    assert footer_of(repaired(raw, "VHD105")).hidden == 0


@pytest.mark.parametrize("where", ["end", "backup"])
def test_with_a_child_hidden_is_right(where):
    raw = refooted(base(), where=where, hidden=1)
    made = planned(raw, context=WITH_CHILD)
    assert made.diagnosis.findings[0].facts["chosen"] == where
    assert "it is not hidden, yet the disk has a child" in made.diagnosis.findings[0].message
    assert footer_of(repaired(raw, "VHD105", context=WITH_CHILD)).hidden == 1


@pytest.mark.parametrize("where", ["end", "backup"])
def test_the_uuid_that_the_child_names_is_right(where):
    raw = refooted(base(), where=where, uuid=OTHER_UUID)
    made = planned(raw, context=WITH_CHILD)
    assert "not the one that its children name" in made.diagnosis.findings[0].message
    assert repaired(raw, "VHD105", context=WITH_CHILD) == base()


def test_a_child_that_cannot_be_read_names_nothing():
    context = Context(NOW, children=(seen(put(child(), 600, b"\1")),))
    made = planned(refooted(base(), where="backup", uuid=OTHER_UUID), context=context)
    assert made.diagnosis.findings[0].facts["chosen"] is None


def test_a_stale_end_footer_on_a_device():
    raw = device(base())
    assert repaired(with_end(raw, SMALLER), "VHD105", growable=False) == raw


def test_a_short_end_footer_is_overwritten_where_it_stands():
    raw = with_end(base(), changed(geometry=1))[:-1]
    assert codes(planned(raw))[0] == "VHD105"
    after = repaired(raw, "VHD105")
    assert after == base()


def test_checksums_alone_can_differ():
    # Old tap: `hidden` set in the end footer, its checksum not.
    old = changed(creator_version=0x00010001)
    raw = with_end(with_backup(base(), old), replace(old, hidden=1))
    assert "hidden" in planned(raw).diagnosis.findings[0].facts["names"]
    summed = replace(old, hidden=1)
    raw = with_end(with_backup(base(), summed), summed.sealed())
    assert planned(raw).diagnosis.findings[0].facts["names"] == "checksum"


# --------------------------------------------------------------------------- VHD106


def bare(raw: bytes) -> bytes:
    """Without either footer."""
    return put(lost_footer(raw), 0, bytes(512))


def test_with_a_child_that_names_it_both_footers_are_rebuilt_after_consent():
    raw = bare(base())
    made = planned(raw, context=WITH_CHILD)
    assert codes(made) == ["VHD106"]
    assert made.plan.needs == ("VHD106",)
    assert made.diagnosis.findings[0].disposition is Disposition.CONFIRM
    after = repaired(raw, "VHD106", context=WITH_CHILD)
    footer = footer_of(after)
    assert footer.encode() == after[:512]
    assert (footer.uuid, footer.current_size, footer.hidden, footer.type) == (UUID, DISK_SIZE, 1, DiskType.DYNAMIC)
    assert footer.timestamp == 555
    assert guest_data(after) == guest_data(base())


def test_a_child_of_the_future_does_not_date_it():
    context = Context(NOW, children=(child_of(UUID, timestamp=0xFFFFFFFF),))
    assert footer_of(repaired(bare(base()), "VHD106", context=context)).timestamp == vhd_time(NOW)


def test_what_the_operator_knows_serves_as_well():
    context = Context(NOW, given_size=DISK_SIZE, given_uuid=UUID)
    after = repaired(bare(base()), "VHD106", context=context)
    footer = footer_of(after)
    assert (footer.uuid, footer.current_size, footer.hidden, footer.timestamp) == (UUID, DISK_SIZE, 0, 0)
    assert replace(footer, timestamp=1000).sealed() == footer_of(base())


def test_a_differencing_disk_stays_one():
    context = Context(NOW, given_size=DISK_SIZE, given_uuid=UUID)
    after = repaired(bare(child()), "VHD106", context=context)
    assert footer_of(after).type == DiskType.DIFFERENCING
    assert after[512:1536] == child()[512:1536]


@pytest.mark.parametrize(
    ("raw", "context", "missing"),
    [
        (base, CONTEXT, "the UUID (give it with --uuid); the size (give it with --size; the BAT allows up to 8"),
        (base, Context(NOW, given_uuid=UUID), "evidence: the size (give it with --size"),
        (base, Context(NOW, given_size=DISK_SIZE), "evidence: the UUID (give it with --uuid)"),
        (
            base,
            Context(NOW, given_uuid=UUID, given_size=DISK_SIZE + 1),
            "the size given does not fit a BAT for 8,388,608",
        ),
        (base, Context(NOW, given_uuid=UUID, given_size=0), "the size given does not fit"),
        (base, Context(NOW, given_uuid=UUID, given_size=BLOCK_SIZE), "ends before block 1"),
        (qemu, Context(NOW, given_uuid=UUID, given_size=4 * MIB), "the creator (there is no batmap)"),
        (
            base,
            Context(NOW, given_uuid=OTHER_UUID, children=(child_of(UUID),)),
            "the UUID given is not the one that its children name",
        ),
        (
            base,
            Context(NOW, children=(child_of(UUID), child_of(OTHER_UUID))),
            "its children name several UUIDs",
        ),
        (base, Context(NOW, children=(child_of(UUID, size=2 * BLOCK_SIZE),)), "the size (give it"),
        (lambda: put(base(), 600, b"\1"), Context(NOW, given_uuid=UUID), "header and BAT are not both sound"),
    ],
)
def test_what_nothing_fixes_is_asked_for(raw, context, missing):
    made = planned(bare(raw()), "VHD106", "VHD201", context=context)
    finding = made.diagnosis.findings[0]
    assert finding.code == "VHD106"
    assert missing in finding.message
    lacking = finding.facts["missing"]
    assert finding.facts["options"] == [
        option for lack in lacking for option in ("--uuid", "--size") if f"(give it with {option}" in lack
    ] * all("give it with" in lack for lack in lacking)
    assert finding.disposition is Disposition.REPORT
    assert made.plan.edits == ()


def test_a_damaged_batmap_is_cleared_before_the_footers_are_rebuilt():
    context = Context(NOW, given_size=DISK_SIZE, given_uuid=UUID)
    raw = bare(rebatted(base(), checksum=0))
    assert "the batmap does not fit that size" in planned(raw, context=context).diagnosis.findings[0].message
    after = repaired(raw, "VHD106", context=context)
    assert guest_data(after) == guest_data(base())


def test_a_given_size_may_be_smaller_than_the_bat():
    raw = sparse(DISK_SIZE, UUID, {1: some(1, PARTIAL)}, bat_blocks=9000).to_bytes()
    context = Context(NOW, given_size=DISK_SIZE, given_uuid=UUID)
    after = repaired(bare(raw), "VHD106", context=context)
    assert footer_of(after).current_size == DISK_SIZE


def test_no_footer_is_rebuilt_where_a_block_is_cut():
    context = Context(NOW, given_size=DISK_SIZE, given_uuid=UUID)
    made = planned(bare(base())[:-4096], "VHD106", context=context)
    assert made.plan.edits == ()
    assert made.plan.refusal is not None


def flipped(raw: bytes, *spots: int) -> bytes:
    """One bit of each byte at `spots` (negative: from the end) turned over."""
    for spot in spots:
        at = spot % len(raw)
        raw = put(raw, at, bytes([raw[at] ^ 4]))
    return raw


@pytest.mark.parametrize(
    "spots",
    [
        (0, -512),  # both cookies
        (50, -512 + 50),  # both sizes
        (24, -512),  # the backup's time, the footer's cookie
        (70, -512 + 26),  # the backup's UUID, the footer's time
        (64, -512 + 50),  # the backup's checksum, the footer's size
        (65, -512 + 65),  # only the checksums
        (85, -512 + 85),  # both hidden
    ],
)
def test_two_copies_damaged_differently_make_one(spots):
    raw = flipped(base(), *spots)
    made = planned(raw)
    assert codes(made) == ["VHD106"]
    assert made.plan.needs == ("VHD106",)
    after = repaired(raw, "VHD106")
    assert after[:512] == after[-512:] == base()[:512]
    assert guest_data(after) == guest_data(base())


def test_two_copies_of_which_neither_has_the_field_make_none():
    raw = flipped(base(), 70, -512 + 71)  # both UUIDs, differently
    made = planned(raw, "VHD106")
    assert made.plan.edits == ()


def test_a_patched_child_keeps_its_type():
    raw = flipped(child(), 60 + 3, -512)
    assert footer_of(repaired(raw, "VHD106")) == footer_of(child())


@pytest.mark.parametrize("entries", [64, BLOCKS_OF_2_TIB])
def test_a_copy_that_is_noise_is_no_witness(entries):
    """Its values are any, and a checksum that adds up bytes soon fits one of them to a size that is wrong too."""
    rng = random.Random(entries)
    sound = sparse(DISK_SIZE, UUID, {1: some(1, PARTIAL)}, bat_blocks=entries, timestamp=1000).to_bytes()
    header = header_of(sound)
    for _ in range(60):
        footer = replace(footer_of(sound), uuid=rng.randbytes(16), timestamp=rng.getrandbits(31)).sealed()
        end = bytearray(footer.encode())
        end[48 + rng.randrange(8)] ^= 1 << rng.randrange(8)
        raw = rng.randbytes(512) + sound[512:-512] + bytes(end)
        made = footer_conflict._patched(seen(raw), header, CONTEXT)
        assert made is None or made.current_size == DISK_SIZE


# --------------------------------------------------------------------------- VHD106: a footer left between blocks


def gapped(*left: bytes) -> bytes:
    """Both footers lost; in the gap before the first block, and before the second, what an earlier writer left."""
    raw = base()
    ends = [header_of(raw).bat_extent.end + 1024, next(seen(raw).blocks())[0] + SPACE]
    for at, footer in zip(ends, left, strict=False):
        raw = put(raw, at, footer)
    return put(lost_footer(raw), 0, bytes(512))


def test_a_footer_left_between_blocks_is_the_lost_one():
    raw = gapped(base()[-512:], base()[-512:])
    made = planned(raw)
    assert made.plan.needs == ("VHD106",)
    after = repaired(raw, "VHD106")
    assert after[:512] == after[-512:] == base()[-512:]


@pytest.mark.parametrize(
    "other",
    [{"uuid": OTHER_UUID}, {"features": 3}],
)
def test_two_that_differ_are_not_chosen_between(other):
    first, second = base()[-512:], replace(footer_of(base()), **other).sealed().encode()
    assert planned(gapped(first, second), "VHD106").plan.edits == ()


@pytest.mark.parametrize("blocks", [1, 2])
def test_one_of_before_a_resize_is_left_where_it_is(blocks):
    size = blocks * BLOCK_SIZE
    old = replace(footer_of(base()), current_size=size, geometry=geometry_for(size)).sealed().encode()
    assert planned(gapped(old), "VHD106").plan.edits == ()
    assert footer_of(repaired(gapped(old, base()[-512:]), "VHD106")) == footer_of(base())


def test_what_is_given_must_be_what_it_says():
    raw = gapped(base()[-512:])
    footer = footer_of(base())
    right = replace(CONTEXT, given_uuid=footer.uuid, given_size=footer.current_size)
    assert footer_of(repaired(raw, "VHD106", context=right)) == footer
    made = planned(raw, "VHD106", context=replace(CONTEXT, given_uuid=bytes(range(1, 17))))
    assert footer.uuid.hex() not in str(made.plan.edits)


def test_the_children_say_whether_it_is_hidden():
    ref = ParentRef(UUID, "disk.vhd", 900)
    child_of_it = seen(sparse(DISK_SIZE, CHILD_UUID, {1: some(1, PARTIAL)}, parent=ref).to_bytes())
    context = replace(CONTEXT, children=(child_of_it,))
    assert footer_of(repaired(gapped(base()[-512:]), "VHD106", context=context)).hidden == 1


# --------------------------------------------------------------------------- VHD307


def set_back(size: int) -> bytes:
    return refooted(base(), current_size=size, geometry=geometry_for(size))


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_size_that_was_set_back_is_the_bats_again_after_consent(blocks):
    raw = set_back(blocks * BLOCK_SIZE)
    made = planned(raw)
    assert "VHD307" in codes(made)
    assert made.plan.needs == ("VHD307",)
    assert repaired(raw, "VHD307") == base()


def test_a_size_that_leaves_no_block_outside_is_believed():
    assert codes(planned(set_back(3 * BLOCK_SIZE))) == []


def test_with_a_bat_for_sms_largest_disk_no_size_is_proved():
    blocks = {0: some(0, PARTIAL), 3: some(3, PARTIAL)}
    raw = sparse(DISK_SIZE, UUID, blocks, bat_blocks=1 << 20, timestamp=1000).to_bytes()
    small = refooted(raw, current_size=2 * BLOCK_SIZE, geometry=geometry_for(2 * BLOCK_SIZE))
    made = planned(small, "VHD307")
    assert "VHD307" in codes(made)
    assert made.plan.edits == ()


def test_a_bat_that_ends_at_no_batmap_was_made_for_no_size():
    raw = reheaded(base()[:-512] + bytes(2 << 20) + base()[-512:], max_bat_size=1 << 18)
    made = planned(raw, "VHD307")
    assert "VHD307" in codes(made)
    assert not any("The BAT was made for" in finding.message for finding in made.diagnosis.findings)
    assert made.plan.needs == ("VHD212",)


def test_a_disk_of_tap_before_batmaps_gets_its_size_back():
    old = refooted(
        sparse(DISK_SIZE, UUID, {3: some(3, PARTIAL)}, timestamp=1000).to_bytes(), creator_version=0x00010001
    )
    raw = put(old, header_of(old).bat_extent.end, bytes(512))
    small = refooted(raw, current_size=BLOCK_SIZE, geometry=geometry_for(BLOCK_SIZE))
    assert repaired(small, "VHD307") == raw


def test_in_a_foreign_image_no_size_is_proved():
    made = planned(refooted(qemu(), current_size=BLOCK_SIZE, geometry=1), "VHD307")
    assert "VHD307" in codes(made)
    assert made.plan.edits == ()


def test_the_backup_and_the_end_must_agree_on_it():
    raw = refooted(base(), where="end", current_size=2 * BLOCK_SIZE, geometry=geometry_for(2 * BLOCK_SIZE))
    assert "VHD307" not in codes(planned(raw))
    assert "VHD307" not in codes(planned(lost_footer(set_back(2 * BLOCK_SIZE))))


def test_with_a_footer_in_the_tail_it_is_not_lost():
    assert "VHD106" not in codes(planned(put(base(), 0, bytes(512)) + bytes(512)))


# --------------------------------------------------------------------------- fixes alone


@pytest.mark.parametrize("code", ["VHD105", "VHD106", "VHD307"])
def test_a_fix_refuses_an_image_it_is_not_for(code):
    raw = bare(base()) if code == "VHD106" else refooted(base(), where="backup", hidden=1)
    raw = set_back(BLOCK_SIZE) if code == "VHD307" else raw
    finding = next(f for f in planned(raw, context=WITH_CHILD).diagnosis.findings if f.code == code)
    problem = row(code)
    assert problem is not None
    assert problem.fix is not None
    assert isinstance(problem.fix(seen(put(bare(empty()), 600, b"\1")), finding, CONTEXT), Refusal)
    if code == "VHD106":
        assert isinstance(problem.fix(seen(base()), finding, CONTEXT), Refusal)


def test_the_parents_name_is_no_part_of_it():
    assert codes(planned(reheaded(base(), parent_uuid=PARENT_UUID))) == ["VHD209"]
