"""The header: its fields judged as `vhd-util check` does, restored where the evidence leaves one answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest import guest_data
from images import (
    CONTEXT,
    DISK_SIZE,
    NOW,
    PARENT_UUID,
    PARTIAL,
    UUID,
    base,
    base_made,
    bat_entry,
    batmap_at,
    child,
    codes,
    device,
    empty,
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
    with_entry,
)
from smfix.formats.problem import Context, Parent
from smfix.formats.vhd.build import sparse
from smfix.formats.vhd.problems.header_restore import restored
from smfix.formats.vhd.problems.registry import PROBLEMS, row
from smfix.formats.vhd.structs import BLOCK_SIZE, TAP_VERSION_1_1, DiskType, ParentLocator, geometry_for, vhd_time
from smfix.values import Disposition, Reason, Refusal

FOUND = Context(NOW, parent=Parent("parent.vhd", PARENT_UUID))


def torn(raw: bytes, **changes: object) -> bytes:
    """Fields of the header changed, its checksum left as it was."""
    return put(raw, 512, replace(header_of(raw), **changes).encode())  # type: ignore[arg-type]


def wiped(raw: bytes) -> bytes:
    return put(raw, 512, bytes(1024))


def two_tib() -> bytes:
    return sparse(DISK_SIZE, UUID, {1: some(1, PARTIAL)}, bat_blocks=1 << 20, timestamp=1000).to_bytes()


# --------------------------------------------------------------------------- one field, the checksum decides


@pytest.mark.parametrize(
    "change",
    [
        {"cookie": b"cxsparsX"},
        {"cookie": bytes(8)},
        {"data_offset": 0},
        {"table_offset": 512},
        {"table_offset": 1 << 63},
        {"version": 7},
        {"max_bat_size": 5},
        {"max_bat_size": 0xFFFFFFFF},
        {"block_size": 1 << 20},
        {"block_size": 0},
        {"reserved1": 1},
        {"reserved2": b"\xff" * 256},
    ],
)
@pytest.mark.parametrize("raw", [base, child, qemu, empty, two_tib], ids=lambda made: made.__name__)
def test_a_field_is_restored_by_the_stored_checksum(raw, change):
    broken = torn(raw(), **change)
    made = planned(broken)
    assert "VHD201" in codes(made)
    finding = next(f for f in made.diagnosis.findings if f.code == "VHD201")
    if raw is qemu and change == {"max_bat_size": 5}:
        assert finding.disposition is Disposition.CONFIRM
    assert made.plan.needs == ("VHD201",), made.plan.refusal
    assert finding.facts["restored_by"] == "the header's own checksum"
    assert repaired(broken, "VHD201") == raw()


@pytest.mark.parametrize(
    "change", [{"parent_uuid": UUID}, {"parent_timestamp": 7}, {"parent_name": b"x" * 512}, {"locators": None}]
)
def test_parent_fields_of_a_disk_without_parent_are_emptied(change):
    if "locators" in change:
        change = {"locators": (ParentLocator(77, 1, 2, 3, 4), *header_of(base()).locators[1:])}
    assert repaired(torn(base(), **change), "VHD201") == base()


def test_a_parent_field_of_a_child_is_never_invented():
    for change in ({"parent_uuid": UUID}, {"parent_timestamp": 7}, {"parent_name": bytes(512)}):
        made = planned(torn(child(), **change), "VHD201")
        assert made.diagnosis.findings[0].disposition is Disposition.REPORT
        assert made.plan.edits == ()


def test_a_field_that_was_never_allowed_is_no_answer():
    first = replace(header_of(child()).locators[0], code=77)
    wrong = reheaded(child(), locators=(first, *header_of(child()).locators[1:]))
    assert planned(torn(wrong, version=0), "VHD201").plan.edits == ()
    # Without a parent nothing in the header is beyond doubt but what the layout shows.
    assert repaired(torn(reheaded(base(), reserved1=9), version=0), "VHD201") == base()


def test_on_a_device():
    raw = device(base())
    assert repaired(torn(raw, version=0), "VHD201", growable=False) == raw


# --------------------------------------------------------------------------- more than one field, the layout decides


@pytest.mark.parametrize(
    "raw", [base, empty, two_tib, lambda: device(base())], ids=["base", "empty", "2 TiB", "device"]
)
def test_a_wiped_header_is_rebuilt_from_constants_and_layout(raw):
    growable = len(raw()) != len(device(base()))
    made = planned(wiped(raw()), growable=growable)
    assert made.plan.needs == ("VHD201",)
    assert "the layout of BAT, batmap and blocks" in made.diagnosis.findings[0].message
    assert repaired(wiped(raw()), "VHD201", growable=growable) == raw()


@pytest.mark.parametrize("entries", [0, 5, 0xFFFFFFFF])
def test_two_wrong_fields_are_told_by_the_layout(entries):
    made = planned(torn(base(), version=0, max_bat_size=entries))
    if entries == 5:
        # Five entries would do as well as four.
        assert made.plan.edits == ()
    else:
        assert repaired(torn(base(), version=0, max_bat_size=entries), "VHD201") == base()


def test_a_wrong_checksum_alone():
    assert repaired(torn(base(), checksum=1), "VHD201") == base()


def test_a_child_is_rebuilt_only_with_its_very_parent():
    broken = torn(child(), version=0, reserved1=4)
    assert planned(broken).plan.needs == ()
    other = Context(NOW, parent=Parent("parent.vhd", UUID))
    assert planned(broken, "VHD201", context=other).plan.edits == ()
    nowhere = Context(NOW, parent=Parent(None))
    assert planned(broken, "VHD201", context=nowhere).plan.edits == ()
    after = repaired(broken, "VHD201", context=FOUND)
    assert after == child()


def test_a_wiped_child_stays_wiped():
    made = planned(wiped(child()), "VHD201", context=FOUND)
    assert made.plan.edits == ()
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.NO_FIX


@pytest.mark.parametrize(
    "raw",
    [
        lambda: wiped(put(lost_footer(base()), 0, bytes(512))),
        lambda: wiped(base())[:1000],
        lambda: wiped(put(base(), batmap_at(base()), bytes(8))),
        lambda: wiped(with_entry(base(), 0, 1)),
        lambda: wiped(with_entry(base(), 0, 0x20000000)),
        lambda: wiped(with_entry(base(), 1, bat_entry(base(), 0))),
        lambda: wiped(sparse(DISK_SIZE, UUID, {}, bat_blocks=1000, timestamp=1000).to_bytes()),
        lambda: wiped(refooted(base(), current_size=BLOCK_SIZE)),
    ],
)
def test_where_the_layout_does_not_fit_nothing_is_rebuilt(raw):
    made = planned(raw(), "VHD201", "VHD101", "VHD302")
    assert restored(made.image, CONTEXT) is None
    assert made.plan.edits == ()


def test_a_foreign_empty_disk_tells_nothing():
    """Without a batmap only the blocks show where the BAT is."""
    assert repaired(wiped(qemu()), "VHD201") == qemu()
    bare = put(wiped(qemu()), 1536, b"\xff" * 12)
    assert planned(bare, "VHD201").plan.edits == ()


def test_an_old_tap_disk_may_have_no_batmap():
    raw = refooted(base(), creator_version=TAP_VERSION_1_1)
    assert guest_data(repaired(wiped(raw), "VHD201")) == guest_data(raw)


def test_a_header_behind_the_end_is_not_rebuilt():
    made = planned(refooted(base(), data_offset=len(base())), "VHD201")
    assert codes(made) == ["VHD201"]
    assert made.plan.edits == ()


def test_nothing_is_restored_where_nothing_is_damaged():
    assert restored(seen(base()), CONTEXT) is None


def test_header_and_footer_are_mended_together():
    raw = lost_footer(wiped(base()))
    made = planned(raw, "VHD201")
    assert made.plan.refusal is None
    assert repaired(raw, "VHD201") == base()


def test_header_and_batmap_are_mended_together():
    raw = wiped(rebatted(base(), checksum=1))
    assert guest_data(repaired(raw, "VHD201")) == guest_data(base())


# --------------------------------------------------------------------------- field rows


def test_the_bat_must_lie_inside_the_file():
    for change in ({"table_offset": 1 << 40}, {"table_offset": (1 << 64) - 512}, {"max_bat_size": 0xFFFFFFFF}):
        assert "VHD204" in codes(planned(reheaded(base(), **change)))
    assert "VHD204" in codes(planned(reheaded(base(), table_offset=1537)))
    assert "VHD204" in codes(planned(reheaded(base(), table_offset=0)))
    assert "VHD204" not in codes(planned(lost_footer(base())))


def test_slack_of_half_an_hour_for_the_parents_time():
    now = vhd_time(NOW)
    assert codes(planned(reheaded(child(), parent_timestamp=now + 1800))) == []
    assert codes(planned(reheaded(child(), parent_timestamp=now + 1801))) == ["VHD903"]
    assert codes(planned(reheaded(base(), parent_timestamp=now + 1801))) == ["VHD209"]


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"parent_name": b"x" * 512, "parent_timestamp": 7}, "non-null parent name"),
        ({"locators": (ParentLocator(0, 1, 0, 0, 0),) * 8}, "non-null parent locators"),
        ({"parent_uuid": UUID}, "non-null parent uuid"),
        ({"parent_timestamp": 7}, "non-zero parent timestamp"),
    ],
)
def test_parent_fields_in_a_disk_without_parent(change, first):
    finding = planned(reheaded(base(), **change)).diagnosis.findings[0]
    assert finding.code == "VHD209"
    assert finding.facts["vhd_util"] == f"differencing header is invalid: invalid {first}"


@pytest.mark.parametrize("lost", [40, 512, 1024])
@pytest.mark.parametrize("where", ["end", "backup", "both"])
def test_a_differencing_disk_is_not_made_dynamic_by_the_repair_of_its_header(where, lost):
    """One footer says dynamic, and the header is wiped: what is left of it, or the other footer, still knows better."""
    raw = put(refooted(child(), where=where, type=DiskType.DYNAMIC), 512, bytes(lost))
    made = planned(raw, "VHD105", "VHD201", "VHD212")
    if where == "both" and lost == 1024:
        return  # nothing is left that could know
    assert made.plan.refusal is not None
    assert made.plan.edits == ()


def test_a_fixed_disk_of_the_refused_version_is_no_damage():
    fields = {"type": DiskType.FIXED, "data_offset": (1 << 64) - 1, "current_size": 4096, "geometry": 0}
    disk = refooted(bytes(4096) + base()[-512:], where="end", **fields)
    assert codes(planned(refooted(disk, where="end", creator_version=1))) == codes(planned(disk)) == []


def test_a_differencing_disk_made_dynamic_is_told():
    assert codes(planned(refooted(child(), type=DiskType.DYNAMIC))) == ["VHD209"]


def test_what_has_no_header_is_not_judged():
    assert codes(planned(put(lost_footer(base()), 0, bytes(512)))) == ["VHD106"]


@pytest.mark.parametrize("change", [{"block_size": 1 << 20}, {"block_size": 4 << 20}, {"table_offset": 2048}])
def test_a_sealed_header_that_no_layout_fits_is_put_right_after_consent(change):
    raw = reheaded(base(), **change)
    made = planned(raw)
    assert "VHD212" in codes(made)
    assert "VHD212" in made.plan.needs
    assert repaired(raw, *made.plan.needs) == base()


@pytest.mark.parametrize("entries", [2, 200, 1 << 10, 1 << 21])
def test_a_sealed_header_whose_bat_does_not_end_at_the_batmap(entries):
    raw = reheaded(base()[:-512] + bytes(16 << 20) + base()[-512:], max_bat_size=entries)
    made = planned(raw)
    assert "VHD212" in codes(made)
    after = repaired(raw, *made.plan.needs)
    assert header_of(after) == header_of(base())
    assert after == base()[:-512] + bytes(16 << 20) + base()[-512:]


def test_footers_that_promise_more_blocks_than_the_bat_has_are_no_reason_to_count_more():
    size = 6 * BLOCK_SIZE
    raw = refooted(base(), current_size=size, geometry=geometry_for(size))
    made = planned(raw)
    assert codes(made) == ["VHD305"]
    assert made.plan.edits == ()


def test_a_batmap_that_a_repair_has_put_there_proves_nothing():
    raw = put(reheaded(base(), max_bat_size=200), header_of(base()).bat_extent.end, bytes(512))
    made = planned(raw, *(problem.code for problem in PROBLEMS))
    assert not {"VHD212", "VHD307"} & {finding.code for finding in made.plan.fixes}
    assert made.plan.edits == ()


def test_a_foreign_header_is_believed_where_it_leaves_no_block_over():
    moved = reheaded(qemu(), block_size=1 << 20, max_bat_size=9)
    bare = put(moved, 1536, b"\xff" * 12)[:2048] + qemu()[-512:]
    assert "VHD212" not in codes(planned(bare))
    moved = qemu()[:1536] + b"\xff" * 512 + qemu()[1536:]
    moved = reheaded(moved, table_offset=2048)
    for block in (0, 2):
        moved = with_entry(moved, block, bat_entry(qemu(), block) + 1)
    assert codes(planned(moved)) == []
    assert guest_data(moved) == guest_data(qemu())


@pytest.mark.parametrize(("code", "other"), [("VHD212", base), ("VHD212", lambda: wiped(base()))])
def test_the_usual_layout_is_refused_where_it_is_there(code, other):
    finding = next(f for f in planned(reheaded(base(), block_size=1 << 20)).diagnosis.findings if f.code == code)
    problem = row(code)
    assert problem is not None
    assert problem.fix is not None
    assert isinstance(problem.fix(seen(other()), finding, CONTEXT), Refusal)


def test_a_fix_refuses_an_image_it_is_not_for():
    finding = planned(wiped(base())).diagnosis.findings[0]
    problem = row("VHD201")
    assert problem is not None
    assert problem.fix is not None
    assert isinstance(problem.fix(seen(base()), finding, CONTEXT), Refusal)
    assert base_made().header == header_of(base())
