"""The proof: every plan that would change what the guest reads is turned down, with a sentence that says why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from images import (
    CONTEXT,
    PARTIAL,
    SECTORS,
    Buffer,
    base,
    base_made,
    bat_entry,
    batmap_at,
    child,
    device,
    footer_of,
    header_of,
    lost_footer,
    put,
    rebatted,
    reheaded,
    seen,
    small,
)
from smfix.formats.vhd.image import inspect
from smfix.formats.vhd.problems.registry import diagnose, row
from smfix.formats.vhd.proof import mapped, violations
from smfix.repair.overlay import Overlay
from smfix.values import Diagnosis, Edit, Extent, Finding, Resize, Severity, Verdict, Write

CLEAN = Diagnosis(Verdict.VALID, ())
AT = base_made().places


def against(raw: bytes, *edits: Edit, agreed: tuple[int, ...] = (), reread: bool = False, growable: bool = True):
    view = Buffer(raw, growable)
    before, after = inspect(view), inspect(Overlay(view, edits))
    return violations(before, after, edits, CLEAN, CLEAN, frozenset(agreed), reread=reread)


# --------------------------------------------------------------------------- sizes


def test_nothing_to_do_is_proved():
    assert against(base()) == []


def test_an_image_never_shrinks():
    assert against(base(), Resize(len(base()) - 512)) == [
        f"the image would shrink from {len(base())} to {len(base()) - 512} bytes"
    ]
    assert against(base(), Resize(len(base()) + 1024), Resize(len(base()) + 512))


def test_no_write_leaves_a_hole():
    at = len(base()) + 512
    assert against(base(), Write(at, b"x")) == [f"a write at byte {at} would begin behind the end ({len(base())})"]
    assert against(base(), Resize(at), Write(at, b"x")) == []
    assert against(base(), Write(len(base()), b"x")) == []


def test_a_device_does_not_grow():
    raw = device(base())
    assert against(raw, Write(len(raw), b"x"), growable=False) == ["a device cannot grow"]
    assert against(raw, Resize(len(raw) + 512), growable=False) == ["a device cannot grow"]
    assert against(raw, Write(len(raw) - 512, raw[-512:]), growable=False) == []


# --------------------------------------------------------------------------- what is touched


@pytest.mark.parametrize(
    ("offset", "length", "touches"),
    [
        (AT[2] - 512, 512, False),
        (AT[2], 1, True),
        (AT[2] + 511, 1, True),
        (AT[2] + 512 + 2 * 512, 512, True),
        (AT[2] + 512 + 3 * 512, 1024, False),
        (AT[2] + 512 + 3 * 512, 1025, True),
        (AT[2] + 512 + 101 * 512, 3993 * 512, False),
        (AT[2] + 512 + 4095 * 512 + 511, 1, True),
        (AT[2] + 512 + 4096 * 512, 100, False),
        (AT[0] + 512 + 50 * 512, 1, True),
    ],
)
def test_a_written_sector_and_a_bitmap_are_living(offset, length, touches):
    said = against(base(), Write(offset, bytes(length)))
    assert any("would touch live data of block" in line for line in said) == touches


def test_the_same_bytes_written_again_touch_them_too():
    """The proof is on extents: a write there could be torn."""
    at = AT[0] + 4096
    assert against(base(), Write(at, base()[at : at + 512])) == [
        f"a write at byte {at} would touch live data of block 0"
    ]


def test_a_full_block_is_living_whatever_its_bitmap_says():
    raw = rebatted(base(), bits=b"\xa0")
    assert against(raw, Write(AT[2] + 512 + 3 * 512, b"x"))


def test_what_is_not_in_the_file_cannot_be_touched():
    at = seen(small()).bat.value.offset(1)  # type: ignore[union-attr]
    cut = small()[: at + 512 + 50 * 512]
    end = len(cut)
    assert against(cut, Resize(len(small()) - 512), Write(len(small()) - 512, small()[-512:])) == []
    glued = cut + small()[-512:]
    assert against(glued, Write(end, bytes(512)), Resize(len(small()) - 512)) == []
    assert against(small()[: at + 100], Write(at + 50, b"x")) == []


def test_the_bytes_of_a_block():
    image = seen(base())
    header = image.geometry
    assert header is not None
    spots = list(mapped(image, header, AT[2], 2))
    data = AT[2] + 512
    assert spots == [Extent(AT[2], 512), *(Extent(data + n * 512, 512) for n in PARTIAL)]
    assert len(list(mapped(image, header, AT[0], 0))) == SECTORS + 1
    assert list(mapped(image, header, len(base()) - 600, 1)) == []


def test_the_path_to_the_parent_is_living():
    at = header_of(child()).locators[1].data_offset
    said = against(child(), Write(at + 5, b"x"))
    assert said[0] == f"a write at byte {at + 5} would touch the path to the parent"


def test_a_block_that_the_operator_agreed_on_may_be_placed_anew():
    at = header_of(base()).table_offset + 8
    entry = (bat_entry(base(), 2) + 3).to_bytes(4, "big")
    assert "the header or the BAT would change what the guest reads" in against(base(), Write(at, entry))
    assert against(base(), Write(at, entry), agreed=(2,)) == []
    assert against(base(), Write(at, entry), agreed=(0,))
    assert against(base(), Write(AT[2], b"x"), agreed=(2,)) == []


# --------------------------------------------------------------------------- what the guest reads


def test_header_and_bat_stay():
    for offset in (512, 540, 1536, 1540):
        assert against(base(), Write(offset, b"\1"))
    other = replace(header_of(base()), reserved1=1).sealed()
    assert against(base(), Write(512, other.encode())) == ["the header or the BAT would change what the guest reads"]


def test_a_bat_that_can_be_read_only_before_or_only_after():
    said = "the BAT could be read only before or only after"
    assert against(base(), Write(600, b"\1")) == [said]
    assert against(put(base(), 600, b"\1"), Write(600, base()[600:601])) == [said]
    assert against(put(base(), 600, b"\1"), Write(0, b"x")) == []
    assert against(reheaded(base(), max_bat_size=3), Write(0, b"x")) == []


@pytest.mark.parametrize("change", [{"current_size": 4096}, {"type": 4}, {"uuid": b"u" * 16}])
def test_the_footer_that_is_read_by_keeps_what_matters(change):
    other = replace(footer_of(base()), **change).sealed()
    said = against(base(), Write(len(base()) - 512, other.encode()))
    assert any(line == f"the footer's {next(iter(change))} would change" for line in said) or (
        "the header or the BAT would change what the guest reads" in said
    )


def test_without_a_footer_before_there_is_nothing_to_keep():
    raw = put(lost_footer(base()), 0, bytes(512))
    assert against(raw, Write(len(raw), footer_of(base()).encode())) == []


def test_the_batmap_of_placed_blocks_stays():
    at = batmap_at(base())
    lower = rebatted(base(), bits=b"\x00")
    assert against(base(), Write(at, lower[at : at + 1024])) == ["the batmap would change for a block that has a place"]
    free = rebatted(base(), bits=b"\x90")
    assert against(free, Write(at, base()[at : at + 1024])) == []


def test_a_sector_bitmap_that_appears_stays_as_it_was():
    at = seen(small()).bat.value.offset(1)  # type: ignore[union-attr]
    assert "the sector bitmap of block 1 would change" in against(small(), Write(at, b"\xff"))


def test_after_consent_to_another_footer_the_result_is_what_must_not_be_touched():
    wrong = put(base(), 600, b"\1")
    assert against(wrong, Write(600, base()[600:601]), reread=True) == []
    said = against(wrong, Write(600, base()[600:601]), Write(AT[0], b"x"), reread=True)
    assert said == [f"a write at byte {AT[0]} would touch live data of block 0"]


# --------------------------------------------------------------------------- the diagnoses


def finding(code: str, severity: Severity = Severity.ERROR) -> Finding:
    problem = row(code)
    assert problem is not None
    return Finding(code, problem.title, "said.", severity, problem.disposition)


def test_the_result_shows_nothing_new():
    image = seen(base())
    first = Diagnosis(Verdict.INVALID, (finding("VHD101"),))
    worse = Diagnosis(Verdict.INVALID, (finding("VHD303"), finding("VHD101"), finding("VHD302")))
    assert violations(image, image, (), first, worse) == [
        "the result would show VHD302, which was not there before",
        "the result would show VHD303, which was not there before",
    ]
    warned = Diagnosis(Verdict.VALID, (finding("VHD304", Severity.WARNING),))
    assert violations(image, image, (), first, warned) == []
    assert violations(image, image, (), first, diagnose(image, CONTEXT)) == []
