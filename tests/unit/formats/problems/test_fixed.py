"""Fixed disks: nothing but the footer tells of them, and nothing but its place of their length."""

from __future__ import annotations

from dataclasses import replace

import pytest

from images import (
    CONTEXT,
    UUID,
    Buffer,
    applied,
    base,
    codes,
    fixed_disk,
    footer_of,
    planned,
    put,
    refooted,
    repaired,
    seen,
)
from smfix.formats.problem import Context
from smfix.formats.vhd.problems.fixed import ROWS
from smfix.formats.vhd.problems.registry import row
from smfix.formats.vhd.proof import violations
from smfix.formats.vhd.structs import NO_OFFSET, geometry_for
from smfix.values import SECTOR, Disposition, Extent, Reason, Resize, Verdict, Write

SIZE = 65536
OTHER = bytes(range(32, 48))


def data() -> bytes:
    return bytes(range(256)) * (SIZE // 256)


def disk() -> bytes:
    """A fixed disk of 64 KiB, written to its last byte."""
    return data() + fixed_disk()[-SECTOR:]


def cut(left: int) -> bytes:
    """The disk cut to `left` bytes of data, its footer put behind them."""
    return data()[:left] + fixed_disk()[-SECTOR:]


def with_footer(**changes: object) -> bytes:
    """The disk with fields of its footer changed, under the old checksum."""
    return disk()[:SIZE] + replace(footer_of(disk()), **changes).encode()


def disposition(raw: bytes, code: str, **options: object) -> Disposition:
    return next(f.disposition for f in planned(raw, **options).diagnosis.findings if f.code == code)  # type: ignore[arg-type]


def test_a_sound_fixed_disk_has_no_finding():
    for growable in (True, False):
        assert planned(disk(), growable=growable).diagnosis.findings == ()
    assert planned(disk()[:SIZE] + bytes(3 << 20) + disk()[SIZE:], growable=False).diagnosis.findings == ()


# --------------------------------------------------------------------------- VHD308


@pytest.mark.parametrize("left", [0, SECTOR, SIZE // 2, SIZE - SECTOR])
def test_a_fixed_disk_cut_short_is_an_error_that_names_every_lost_sector(left):
    made = planned(cut(left), "VHD308")
    (finding,) = made.diagnosis.findings
    assert (finding.code, finding.disposition, finding.lossy) == ("VHD308", Disposition.CONFIRM, True)
    first = left // SECTOR
    assert (finding.facts["first"], finding.facts["sectors"]) == (first, SIZE // SECTOR - first)
    assert made.plan.lost == (Extent(first * SECTOR, SIZE - first * SECTOR),)
    assert repaired(cut(left), "VHD308") == data()[:left] + bytes(SIZE - left) + disk()[SIZE:]


def test_without_consent_nothing_is_written():
    made = planned(cut(SECTOR))
    assert (made.plan.refusal.reason, made.plan.needs) == (Reason.NEEDS_CONFIRM, ("VHD308",))


def test_a_size_that_the_geometry_does_not_know_is_not_believed():
    footer = replace(footer_of(disk()), current_size=1 << 40).sealed()
    raw = data() + footer.encode()
    made = planned(raw, "VHD308")
    assert made.diagnosis.verdict is Verdict.INVALID
    assert (made.plan.refusal.reason, made.plan.edits) == (Reason.NO_FIX, ())
    sealed = replace(footer, current_size=SIZE + 100, geometry=geometry_for(SIZE + 100)).sealed()
    assert disposition(data() + sealed.encode(), "VHD308") is Disposition.REPORT


def test_a_device_is_not_extended():
    assert disposition(cut(SECTOR), "VHD308", growable=False) is Disposition.REPORT
    problem = row("VHD308")
    assert problem.fix(seen(cut(SECTOR), growable=False), None, CONTEXT).reason is Reason.NO_FIX
    assert problem.fix(seen(data()), None, CONTEXT).reason is Reason.NO_FIX


def test_no_write_may_touch_the_data_of_a_fixed_disk():
    before, whole = seen(disk()), planned(disk()).diagnosis
    edits = (Resize(len(disk()) + SECTOR), Write(SIZE - 1, b"x"), Write(SIZE, b"y"))
    said = violations(before, before, edits, whole, whole)
    assert said == [f"a write at byte {SIZE - 1} would touch the data of a fixed disk"]


# --------------------------------------------------------------------------- VHD309


@pytest.mark.parametrize("at", [SECTOR, 1 << 20, (3 << 20) - 1])
def test_data_behind_the_disk_is_told(at):
    slack = put(bytes(3 << 20), at, b"x")
    raw = data() + slack + disk()[SIZE:]
    made = planned(raw)
    assert (codes(made), made.diagnosis.verdict) == (["VHD309"], Verdict.VALID)
    assert planned(raw, growable=False).diagnosis.findings == ()


@pytest.mark.parametrize("slack", [b"0" * 65536, bytes(3 << 20), fixed_disk()[-SECTOR:] + bytes(3 << 20)])
def test_padding_and_an_earlier_footer_behind_the_disk_are_not(slack):
    assert planned(data() + slack + disk()[SIZE:]).diagnosis.findings == ()


# --------------------------------------------------------------------------- VHD103


@pytest.mark.parametrize("behind", [b"\0", b"0" * 300, bytes(SECTOR), bytes(70000), b"x" * 511])
def test_a_footer_right_behind_its_disk_is_appended_at_the_end(behind):
    made = planned(disk() + behind, "VHD103")
    assert set(codes(made)) <= {"VHD102", "VHD103"}
    assert disposition(disk() + behind, "VHD103") is Disposition.CONFIRM
    after = repaired(disk() + behind, "VHD103")
    assert after.startswith(disk() + behind)
    assert after.endswith(disk()[SIZE:])


def test_a_footer_that_is_not_behind_its_disk_proves_nothing():
    for raw in (cut(SECTOR) + bytes(SECTOR), cut(SIZE - 100)):
        made = planned(raw, "VHD103")
        assert made.diagnosis.verdict in (Verdict.INVALID, Verdict.NOT_A_VHD)
        assert made.plan.refusal is not None
        assert made.plan.edits == ()


def test_a_footer_in_the_tail_with_a_field_not_allowed_is_not_copied():
    raw = refooted(disk(), where="end", saved=7) + bytes(SECTOR)
    assert disposition(raw, "VHD103") is Disposition.REPORT


# --------------------------------------------------------------------------- VHD120


@pytest.mark.parametrize(
    "changes",
    [
        {"cookie": b"conecti\0"},
        {"features": 0},
        {"version": 0},
        {"data_offset": 0},
        {"type": 0},
        {"current_size": 3},
        {"original_size": 3},
        {"geometry": 1},
        {"saved": 9},
        {"hidden": 9},
        {"reserved": b"x" * 426},
        {"cookie": bytes(8), "features": 0, "version": 0, "data_offset": 0},
    ],
)
def test_a_field_that_only_one_value_fits_is_restored(changes):
    made = planned(with_footer(**changes))
    assert codes(made) == ["VHD120"]
    assert made.plan.needs == ("VHD120",)
    assert repaired(with_footer(**changes), "VHD120") == disk()


@pytest.mark.parametrize("changes", [{"uuid": OTHER}, {"checksum": 1}, {"timestamp": 1}])
def test_what_nothing_proves_is_not_restored(changes):
    made = planned(with_footer(**changes), "VHD120")
    assert codes(made) == ["VHD120"]
    assert (made.plan.refusal.reason, made.plan.edits) == (Reason.NO_FIX, ())


def test_the_operator_may_know_the_uuid():
    given = Context(CONTEXT.now, given_uuid=UUID)
    assert repaired(with_footer(uuid=OTHER), "VHD120", context=given) == disk()
    assert footer_of(disk()).uuid == UUID


@pytest.mark.parametrize(
    "changes", [{"type": 0, "data_offset": 0}, {"data_offset": 0, "current_size": 1}, {"type": 9, "current_size": 1}]
)
def test_what_is_left_must_say_twice_that_the_disk_was_fixed(changes):
    assert codes(planned(with_footer(cookie=b"conecti\0", **changes))) != ["VHD120"]


def test_it_says_no_fix_of_anything_else():
    problem = row("VHD120")
    assert problem.fix(seen(disk()), None, CONTEXT).reason is Reason.NO_FIX
    assert footer_of(disk()).data_offset == NO_OFFSET


def test_a_file_that_only_has_the_length_of_a_footer_is_none():
    assert seen(bytes(100)).was_fixed is False
    assert [problem.code for problem in ROWS] == ["VHD120", "VHD308", "VHD309"]
    assert applied(disk(), ()) == Buffer(disk()).data


# --------------------------------------------------------------------------- odd lengths


@pytest.mark.parametrize("padding", [b"0" * 100, bytes(300), b"0" * SECTOR])
def test_a_footer_behind_padding_is_a_fixed_disks(padding):
    """What somebody appended to reach a sector boundary, and missed it: no header is looked for."""
    raw = disk()[:SIZE] + padding + disk()[SIZE:]
    if len(padding) % SECTOR == 0:
        raw += b"0" * 7
    made = planned(raw, "VHD103")
    assert codes(made) == ["VHD102", "VHD103"]
    assert seen(raw).end_of_data == SIZE
    after = applied(raw, made.plan.edits)
    assert after[:SIZE] == data()
    assert after[-SECTOR:] == disk()[SIZE:]
    assert planned(after).diagnosis.verdict is Verdict.VALID


@pytest.mark.parametrize("left", [84, 212, 510])
def test_a_footer_that_was_cut_short_is_made_whole(left):
    """What is missing are reserved bytes: its checksum says that they were zero."""
    raw = disk()[: SIZE + left]
    made = planned(raw, "VHD120")
    assert codes(made) == ["VHD102", "VHD120"]
    assert applied(raw, made.plan.edits) == disk()
    assert not made.plan.lost


def test_a_footer_of_which_too_much_is_gone_is_none():
    raw = disk()[: SIZE + 70]
    assert planned(raw, "VHD120").diagnosis.verdict is Verdict.NOT_A_VHD
    half = disk()[: SIZE + 212]
    other = half[: SIZE + 40] + b"\x07" + half[SIZE + 41 :]
    assert planned(other, "VHD120").diagnosis.verdict is Verdict.NOT_A_VHD, "its checksum is another"


# --------------------------------------------------------------------------- planted


def planted(size: int | None = None, header: bytes = b"\x55") -> bytes:
    """A dynamic disk without its end footer, as after a crash; its guest wrote a fixed disk's into its last sector."""
    raw = base()
    raw = raw[: seen(raw).end_of_data]
    size = len(raw) - SECTOR if size is None else size
    footer = replace(footer_of(fixed_disk()), current_size=size, original_size=size, geometry=geometry_for(size))
    return put(put(raw, -SECTOR, footer.sealed().encode()), 512 + 30, header)


@pytest.mark.parametrize("size", [None, 1 << 25])
@pytest.mark.parametrize("header", [b"\x55", bytes(1024)])
def test_a_footer_that_a_guest_wrote_is_not_believed_over_a_sound_backup(size, header):
    """Whatever the header's state: a dynamic disk's footer at 0 speaks against a fixed disk's at the end."""
    made = planned(planted(size, header), *(f"VHD{n}" for n in (103, 105, 120, 201, 308)))
    assert made.plan.refusal is not None
    assert not made.plan.edits
    found = {finding.code: finding.disposition for finding in made.diagnosis.findings}
    assert found["VHD105"] is Disposition.REPORT
    assert found.get("VHD308", Disposition.REPORT) is Disposition.REPORT
    assert made.diagnosis.verdict is Verdict.INVALID


def test_a_disk_larger_than_any_geometry_is_not_believed():
    """Above 127 GiB all geometries are the same, and prove no size."""
    size = 1 << 42
    footer = replace(footer_of(disk()), current_size=size, original_size=size, geometry=geometry_for(size)).sealed()
    assert disposition(disk()[:SIZE] + footer.encode(), "VHD308") is Disposition.REPORT
