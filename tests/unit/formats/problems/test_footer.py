"""Footers and the tail: what was lost is put back where nothing speaks against it, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest import guest_data
from images import (
    CONTEXT,
    DISK_SIZE,
    MIB,
    NOW,
    PARENT_UUID,
    UUID,
    applied,
    base,
    base_made,
    bat_entry,
    child,
    codes,
    device,
    empty,
    fixed_disk,
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
    small,
    with_backup,
    with_end,
)
from smfix.formats.problem import Context
from smfix.formats.vhd.build import ParentRef, sparse
from smfix.formats.vhd.image import MARK, inspect
from smfix.formats.vhd.problems.footer import append_footer, contradictions, cut_block, same_footer
from smfix.formats.vhd.problems.registry import row
from smfix.formats.vhd.structs import BLOCK_SIZE, POISON_COOKIE, DiskType, Footer, geometry_for, vhd_time
from smfix.values import SECTOR, Damaged, Disposition, InUse, Reason, Refusal, Resize, Sound, Verdict, Write

BUSY = Context(NOW, InUse.READ_WRITE)


def fresh_child() -> bytes:
    return sparse(DISK_SIZE, UUID, {}, parent=ParentRef(PARENT_UUID, "parent.vhd", 900), timestamp=1000).to_bytes()


ALL = {"base": base, "small": small, "empty": empty, "child": child, "fresh child": fresh_child, "qemu": qemu}


# --------------------------------------------------------------------------- what speaks against a footer


def sized(size: int) -> dict[str, int]:
    return {"current_size": size, "geometry": geometry_for(size)}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (lambda: put(lost_footer(base()), 0, bytes(512)), "there is no sound footer"),
        (lambda: refooted(base(), saved=7), "its own fields are not allowed: invalid 'saved' state"),
        (lambda: refooted(base(), hidden=7), "its own fields are not allowed: invalid 'hidden' state"),
        (fixed_disk, "it describes a fixed disk, which has no backup footer"),
        (lambda: put(base(), 600, b"\1"), "the header or the BAT it must agree with is damaged"),
        (lambda: reheaded(base(), max_bat_size=3), "the header or the BAT it must agree with is damaged"),
        (
            lambda: refooted(base(), **sized(2 * BLOCK_SIZE)),
            "block 2 is in use, but the disk it describes ends before block 2",
        ),
        (lambda: rebatted(base(), bits=b"\x84"), "the batmap marks block 5, but the disk it describes has 4"),
        (lambda: refooted(base(), geometry=1), "its geometry is not that of its size"),
        (
            lambda: sparse(DISK_SIZE, UUID, {}, bat_blocks=77).to_bytes(),
            "the BAT was made for 77 blocks, the disk it describes has 4",
        ),
        (
            lambda: rebatted(sparse(8194 * MIB, UUID, {}).to_bytes(), sectors=1),
            "the batmap covers 4096 blocks, the disk it describes has 4097",
        ),
        (lambda: reheaded(base(), parent_uuid=UUID), "header and footer disagree on whether there is a parent"),
        (lambda: refooted(child(), type=DiskType.DYNAMIC), "header and footer disagree on whether there is a parent"),
    ],
)
def test_contradictions(raw, said):
    assert said in contradictions(seen(raw()))


@pytest.mark.parametrize("name", ALL)
def test_nothing_speaks_against_a_sound_image(name):
    assert contradictions(seen(ALL[name]())) == []


def test_what_foreign_makers_do_is_no_contradiction():
    assert contradictions(seen(refooted(qemu(), geometry=1))) == []
    assert contradictions(seen(refooted(qemu(), geometry=0xFFFF10FF))) == []
    large = sparse(DISK_SIZE, UUID, {}, bat_blocks=(2 << 40) // BLOCK_SIZE)
    assert contradictions(seen(large.to_bytes())) == []
    roomy = sparse(DISK_SIZE, UUID, {}, bat_blocks=77).to_bytes()
    assert contradictions(seen(device(roomy), growable=False)) == []


def test_footers_are_the_same_but_for_what_an_old_tap_left():
    old = replace(footer_of(base()), creator_version=0x00010001).sealed()
    assert same_footer(old, old)
    assert same_footer(old, replace(old, hidden=1))
    assert not same_footer(replace(old, hidden=1), old)
    new = footer_of(base())
    assert not same_footer(new, replace(new, hidden=1))
    assert not same_footer(old, replace(old, hidden=1, saved=1))


# --------------------------------------------------------------------------- VHD101, VHD102: lost


@pytest.mark.parametrize("cut", [2, 3, 100, 300, 510, 511, 512])
@pytest.mark.parametrize("name", ALL)
def test_a_footer_cut_off_or_cut_short_is_put_back(name, cut):
    """Also the images without a block: their batmap or their locators end where the footer begins."""
    raw = ALL[name]()
    after = repaired(raw[:-cut])
    # What is cut off the reserved bytes is NUL: padding alone makes the footer whole again.
    assert after == raw if cut <= 426 or cut == 512 else raw[:-cut] + bytes(cut) + raw[-512:]
    assert guest_data(after) == guest_data(raw)


@pytest.mark.parametrize("name", ALL)
def test_a_footer_one_byte_short_is_one(name):
    made = planned(ALL[name]()[:-1])
    assert made.diagnosis.verdict is Verdict.VALID
    assert made.plan.edits == ()
    assert made.plan.refusal is None


@pytest.mark.parametrize("filler", [b"\0", b"0", b"\xff", b"\xc7"])
def test_a_footer_overwritten_is_put_behind(filler):
    raw = put(base(), -512, filler * 512)
    after = repaired(raw)
    assert after == raw + base()[-512:]


@pytest.mark.parametrize("slack", [1, 511, 512, 4096, 2 * MIB + 512, 5 * MIB + 17])
def test_preallocated_space_is_kept(slack):
    raw = lost_footer(base()) + bytes(slack)
    after = repaired(raw)
    assert after.startswith(raw)
    assert after[-512:] == base()[-512:]
    assert len(after) % 512 == 0


def test_every_odd_size_behind_the_end_of_data():
    raw = lost_footer(small())
    for over in (*range(1, 512, 17), 510, 511):
        made = planned(raw + b"x" * over)
        assert made.plan.refusal is None
        assert codes(made)[0] == "VHD102" if over != 511 else codes(made)
        after = applied(raw + b"x" * over, made.plan.edits)
        assert after[:-512].rstrip(b"\0") == raw.rstrip(b"\0") + b"x" * over
        assert after[-512:] == small()[-512:]
        assert len(after) == len(raw) + 1024


@pytest.mark.parametrize(("raw", "step"), [(base, 1), (qemu, 7), (child, 7)])
def test_every_stump_of_up_to_1536_bytes_is_left_alone(raw, step):
    for size in range(0, 1537, step):
        made = planned(raw()[:size], "VHD101", "VHD106", "VHD201", "VHD301")
        assert made.plan.edits == ()
        assert made.plan.refusal is not None
        assert made.plan.refusal.reason in (Reason.NOT_A_VHD, Reason.NO_FIX)


def test_on_a_device_the_last_sector_is_written():
    raw = put(device(base()), -512, bytes(512))
    made = planned(raw, growable=False)
    assert made.plan.edits == (Write(len(raw) - 512, base()[-512:]),)
    assert repaired(raw, growable=False) == device(base())


def test_on_a_device_whose_last_block_reaches_its_end_nothing_is_written():
    made = planned(lost_footer(base()), growable=False)
    assert made.plan.edits == ()
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.NO_FIX


def test_a_stale_backup_is_not_appended():
    stale = replace(footer_of(base()), **sized(2 * BLOCK_SIZE)).sealed()
    made = planned(lost_footer(with_backup(base(), stale)), "VHD101")
    assert made.diagnosis.findings[0].disposition is Disposition.REPORT
    assert "block 2 is in use" in made.diagnosis.findings[0].message
    assert made.plan.edits == ()


def test_nothing_is_appended_while_a_block_ends_behind():
    image = seen(lost_footer(base())[:-4096])
    assert isinstance(cut_block(image), Refusal)
    assert isinstance(append_footer(image, footer_of(base())), Refusal)
    image = seen(put(base(), 600, b"\1"))
    assert isinstance(cut_block(image), Refusal)
    assert cut_block(seen(base())) is None


def test_the_footer_never_goes_below_the_end_of_the_headers():
    raw = empty()[:-1200]
    image = seen(raw)
    made = append_footer(image, footer_of(empty()))
    assert isinstance(made, tuple)
    assert made[0] == Resize(image.end_of_headers)


# --------------------------------------------------------------------------- VHD103: in the tail


@pytest.mark.parametrize("behind", [1, 2, 100, 510, 511, 512, 513, 1024, 1025, 4096, 5 * MIB + 3])
@pytest.mark.parametrize("filler", [b"\0", b"0"])
@pytest.mark.parametrize("name", ["base", "fresh child", "qemu"])
def test_a_footer_with_something_behind_it_is_appended_once(name, behind, filler):
    raw = ALL[name]() + filler * behind
    made = planned(raw)
    assert "VHD103" in codes(made)
    after = repaired(raw)
    assert after.startswith(raw)
    assert after[-512:] == raw[:-behind][-512:]
    assert guest_data(after) == guest_data(raw[:-behind])


@pytest.mark.parametrize("at", range(1, 513, 73))
def test_a_footer_at_odd_places_of_the_tail(at):
    raw = lost_footer(base()) + bytes(at) + base()[-512:] + bytes(700)
    after = repaired(raw)
    assert after[-512:] == base()[-512:]


def test_with_the_backup_gone_the_tails_footer_needs_consent():
    raw = put(base(), 0, bytes(512)) + bytes(4096)
    made = planned(raw)
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.NEEDS_CONFIRM
    assert made.plan.needs == ("VHD103",)
    after = repaired(raw, "VHD103")
    assert after[:512] == after[-512:] == base()[-512:]


def test_two_different_footers_in_the_tail_and_no_backup_take_the_last():
    other = replace(footer_of(base()), timestamp=5).sealed()
    raw = put(base(), 0, bytes(512)) + other.encode() + bytes(512)
    after = repaired(raw, "VHD103")
    assert after[-512:] == other.encode()


def test_a_footer_in_the_tail_unlike_the_backup_decides_nothing():
    other = replace(footer_of(base()), hidden=1).sealed()
    made = planned(lost_footer(base()) + other.encode() + bytes(4096), "VHD101", "VHD103")
    assert codes(made) == ["VHD101"]
    assert "a different sound footer lies at byte" in made.diagnosis.findings[0].message
    assert made.plan.edits == ()


def test_the_one_in_the_tail_that_equals_the_backup_is_found_among_others():
    other = replace(footer_of(base()), timestamp=5).sealed()
    raw = base() + other.encode() + bytes(4096)
    made = planned(raw)
    assert codes(made) == ["VHD103"]
    assert made.plan.needs == ("VHD103",), "two different sound footers are never weighed without consent"
    assert repaired(raw, "VHD103")[-512:] == base()[-512:]


def test_a_contradicted_footer_in_the_tail_is_only_reported():
    raw = refooted(base(), geometry=1) + bytes(4096)
    made = planned(raw, "VHD103")
    assert made.diagnosis.findings[0].disposition is Disposition.REPORT
    assert made.plan.edits == ()
    gone = put(raw, 0, bytes(512))
    assert planned(gone, "VHD103").diagnosis.findings[0].disposition is Disposition.REPORT


# --------------------------------------------------------------------------- VHD108: the mark


def test_the_mark_on_a_written_sector_needs_consent_and_names_the_loss():
    raw = put(lost_footer(base()), -512, MARK)
    made = planned(raw)
    assert codes(made) == ["VHD108", "VHD101"]
    assert made.plan.refusal is not None
    assert made.plan.needs == ("VHD108",)
    assert "1 guest sectors are lost" in made.plan.refusal.message
    agreed = planned(raw, "VHD108")
    assert agreed.plan.lost_sectors == 1
    assert agreed.plan.lost[0].offset == BLOCK_SIZE - 512
    after = repaired(raw, "VHD108")
    assert after == raw + base()[-512:]


def test_the_mark_on_an_unwritten_sector_is_no_loss():
    """Block 1's last sectors are written in `small`; here its bitmap says they are not."""
    raw = lost_footer(small())
    at = len(raw) - BLOCK_SIZE - 512
    bits = raw[at : at + 511] + bytes([raw[at + 511] & 0xFC])
    raw = put(put(put(raw, at, bits), -1024, bytes(512)), -512, MARK)
    made = planned(raw)
    assert codes(made) == ["VHD101"]
    assert repaired(raw).endswith(MARK + small()[-512:])


def test_the_mark_behind_the_guests_end_is_no_loss():
    # The partial last block of a foreign disk: its bitmap may mark what the guest does not have.
    raw = lost_footer(qemu())
    swapped = put(put(raw, 1536 + 8, raw[1536:1540]), 1536, raw[1536 + 8 : 1536 + 12])
    made = planned(put(swapped, -512, MARK))
    assert codes(made) == ["VHD101"]


def test_the_mark_in_a_bitmap_is_not_the_guests():
    # The last block's bitmap is the last sector: the block itself is missing.
    raw = base()[: base_made().places[0] + 512]
    assert "VHD108" not in codes(planned(put(raw, -512, MARK)))


def test_the_mark_behind_the_blocks_is_no_loss():
    assert codes(planned(put(base(), -512, MARK))) == ["VHD101"]
    assert codes(planned(put(put(base(), 600, b"\1"), -512, MARK))) == ["VHD101", "VHD201"]
    assert "VHD108" not in codes(planned(put(reheaded(base(), max_bat_size=3), -512, MARK)))


def test_the_mark_on_a_device_inside_a_block_is_not_written_over():
    raw = put(lost_footer(base()), -512, MARK)
    made = planned(raw, "VHD108", "VHD301", growable=False)
    assert made.plan.edits == ()
    assert made.plan.refusal is not None


# --------------------------------------------------------------------------- VHD104


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("junk", [bytes(512), b"\xff" * 512, MARK])
def test_a_lost_backup_is_copied_from_the_footer(name, junk):
    raw = ALL[name]()
    assert repaired(put(raw, 0, junk)) == raw


def test_a_lost_backup_of_a_footer_that_something_contradicts():
    raw = put(refooted(base(), geometry=1), 0, bytes(512))
    made = planned(raw, "VHD104")
    assert made.diagnosis.findings[0].disposition is Disposition.REPORT
    assert made.plan.edits == ()


def test_a_fixed_disk_has_no_backup():
    assert codes(planned(fixed_disk())) == []
    raw = fixed_disk()
    assert codes(planned(raw[:-512])) == []
    assert planned(raw[:-512]).diagnosis.verdict is Verdict.NOT_A_VHD


def test_a_short_footer_is_copied_whole():
    raw = put(base(), 0, bytes(512))[:-1]
    made = planned(raw)
    assert codes(made) == ["VHD104"]
    assert applied(raw, made.plan.edits)[:512] == base()[:512]


# --------------------------------------------------------------------------- VHD107: poison


@pytest.mark.parametrize("where", ["end", "backup", "both"])
def test_a_journaled_resize_is_the_storage_managers_to_revert(where):
    made = planned(refooted(base(), where=where, cookie=POISON_COOKIE), "VHD105", "VHD101")
    assert "VHD107" in codes(made)
    assert made.plan.edits == ()
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.SM_PENDING


def test_a_poisoned_backup_is_never_appended():
    made = planned(lost_footer(refooted(base(), cookie=POISON_COOKIE)), "VHD101")
    assert codes(made) == ["VHD107"]
    assert made.plan.edits == ()
    gone = put(refooted(base(), cookie=POISON_COOKIE), 0, bytes(512))
    assert codes(planned(gone)) == ["VHD107"]
    assert planned(gone).plan.edits == ()


# --------------------------------------------------------------------------- in use


@pytest.mark.parametrize(
    "raw",
    [
        lambda: lost_footer(base()),
        lambda: put(base(), -512, MARK),
        lambda: put(lost_footer(base()), -512, MARK),
        lambda: base() + bytes(4096),
        lambda: base() + b"x",
    ],
)
def test_a_running_disk_has_no_footer_by_design(raw):
    made = planned(raw(), "VHD108", context=BUSY)
    assert codes(made) == ["VHD901"]
    assert made.diagnosis.verdict is Verdict.IN_USE
    assert made.plan.edits == ()
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.IN_USE


@pytest.mark.parametrize("state", [InUse.NONE, InUse.READ_ONLY, InUse.UNKNOWN])
def test_only_a_writer_makes_it_normal(state):
    assert codes(planned(lost_footer(base()), context=Context(NOW, state))) == ["VHD101"]


def test_the_mark_is_named():
    made = planned(put(base(), -512, MARK), context=BUSY)
    assert "0xC7 mark" in made.diagnosis.findings[0].message


@pytest.mark.parametrize("raw", [lambda: put(base(), 0, bytes(512)), lambda: rebatted(base(), checksum=1)])
def test_a_running_disk_is_never_written_whatever_is_wrong(raw):
    made = planned(raw(), context=BUSY)
    assert made.plan.edits == ()
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.IN_USE


# --------------------------------------------------------------------------- field rows


def test_the_backup_is_judged_where_it_differs():
    made = planned(refooted(base(), where="backup", saved=9))
    assert codes(made) == ["VHD116", "VHD105"]
    assert "The backup footer" in made.diagnosis.findings[0].message
    assert "0x9" in made.diagnosis.findings[0].message


def test_what_fields_hold_is_shown():
    def message(**change: object) -> str:
        return planned(refooted(base(), **change)).diagnosis.findings[0].message

    assert "it holds 00000000000000000000000000000000" in message(uuid=bytes(16))
    assert "it holds not all NUL" in message(reserved=bytes(425) + b"\1")
    assert "it holds 0x12" in message(features=0x12)
    assert "it holds 0x10009" in message(creator_version=0x00010009)


def test_a_clock_is_no_damage():
    late = refooted(base(), timestamp=0xFFFFFFFF)
    assert codes(planned(late)) == ["VHD902"]
    made = planned(lost_footer(late))
    assert codes(made) == ["VHD101", "VHD902"]
    assert made.plan.refusal is None
    assert [finding.code for finding in made.plan.remaining] == ["VHD902"]


def test_slack_of_half_an_hour():
    now = vhd_time(NOW)
    assert codes(planned(refooted(base(), timestamp=now + 1800))) == []
    assert codes(planned(refooted(base(), timestamp=now + 1801))) == ["VHD902"]


# --------------------------------------------------------------------------- fixes alone


@pytest.mark.parametrize("code", ["VHD101", "VHD103", "VHD104"])
def test_a_fix_refuses_an_image_it_is_not_for(code):
    finding = planned(
        {"VHD101": lost_footer(base()), "VHD103": base() + bytes(512), "VHD104": put(base(), 0, b"X")}[code]
    )
    problem = row(code)
    assert problem is not None
    assert problem.fix is not None
    other = seen(put(lost_footer(base()), 0, bytes(512)))
    assert isinstance(other.end, Damaged)
    assert isinstance(problem.fix(other, finding.diagnosis.findings[0], CONTEXT), Refusal)


def test_the_image_can_be_asked_what_another_footer_would_mean():
    footer: Footer = replace(footer_of(base()), type=DiskType.DIFFERENCING).sealed()
    assert contradictions(inspect(seen(base()).view, by=footer)) == [
        "header and footer disagree on whether there is a parent"
    ]
    assert isinstance(seen(with_end(base(), footer)).end, Sound)
    assert bat_entry(base(), 1) == 0xFFFFFFFF
    assert header_of(base()).max_bat_size * SECTOR
