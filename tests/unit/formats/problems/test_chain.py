"""The chain: what a child says of its parent, and what is there. No damage of the child itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corpus import FOUND, first_locator, locators, moved_data
from images import (
    NOW,
    PARENT_UUID,
    UUID,
    base,
    child,
    codes,
    header_of,
    lost_footer,
    planned,
    put,
    reheaded,
    repaired,
)
from smfix.formats.problem import Context, Parent
from smfix.formats.vhd.structs import ParentLocator, PlatformCode
from smfix.values import Finding, Reason, Verdict

EMPTY = ParentLocator(0, 0, 0, 0, 0)


def found(raw: bytes, code: str, context: Context = FOUND) -> Finding:
    return next(f for f in planned(raw, context=context).diagnosis.findings if f.code == code)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"data_offset": 0}, "invalid data offset"),
        ({"data_space": 0}, "invalid data space"),
        ({"data_length": 0}, "invalid data length"),
        ({"data_offset": 1 << 62}, "invalid size"),
        ({"data_offset": (1 << 64) - 512}, "invalid size"),
        ({"data_space": 0xFFFFFE00}, "invalid size"),
        ({"reserved": 1}, "invalid reserved bits"),
        ({"code": 0}, "non-zero locator"),
    ],
)
def test_a_locator_that_cannot_be(change, why):
    finding = found(first_locator(**change), "VHD502")
    assert finding.facts["why"] == why
    assert finding.facts["vhd_util"] == f"invalid parent locator 0: {why}"


def test_an_unused_locator_must_be_empty():
    old = header_of(child()).locators
    raw = reheaded(child(), locators=(*old[:3], ParentLocator(0, 0, 0, 0, 9), *old[4:]))
    assert found(raw, "VHD502").facts["index"] == 3


@pytest.mark.parametrize("code", [PlatformCode.MACX, PlatformCode.W2KU, PlatformCode.W2RU])
def test_a_code_twice(code):
    old = next(loc for loc in header_of(child()).locators if loc.code == code)
    finding = found(locators(old, old, EMPTY), "VHD503")
    assert finding.facts["index"] == 1
    assert finding.facts["vhd_util"] == f"duplicate platform code in locator 1: 0x{code:x}"


@pytest.mark.parametrize("data", [b"http://parent.vhd", b"\xff\xff\xff", "file://ü".encode()])
def test_a_path_that_cannot_be_read(data):
    raw = moved_data(child(), 0, data)
    assert "VHD504" in codes(planned(raw, context=FOUND))


def test_a_foreign_locator_needs_no_path():
    old = header_of(child()).locators
    raw = locators(old[0], replace(old[1], code=PlatformCode.MAC), old[2])
    assert codes(planned(raw, context=FOUND)) == []


def test_names_that_disagree():
    finding = found(moved_data(child(), 1, "./other_.vhd".replace("/", "\\").encode("utf-16-le")), "VHD505")
    assert finding.facts["base"] == "other_.vhd"
    assert finding.facts["name"] == "parent.vhd"
    raw = reheaded(child(), parent_name=b"\xd8\x00" + bytes(510))
    assert "VHD505" not in codes(planned(raw, context=FOUND))


@pytest.mark.parametrize(
    ("path", "base"), [(b"file://./", "."), (b"file:///", "/"), (b"file://", "."), (b"file://./x/", "x")]
)
def test_a_locator_without_a_file_name_disagrees_in_the_words_of_basename(path, base):
    finding = found(moved_data(child(), 0, path + b"\0"), "VHD505")
    assert finding.facts["vhd_util"] == f"parent locator 0 name ({base}) does not match header name (parent.vhd)"


def test_names_from_the_disk_are_shown_quoted():
    raw = moved_data(child(), 0, b"file://./\x1b[2Jx.vhd")
    assert "\x1b" not in found(raw, "VHD505").message


def test_without_any_locator_the_parent_cannot_be_found():
    raw = reheaded(child(), locators=(EMPTY,) * 8)
    finding = found(raw, "VHD501")
    assert "no parent locator names it" in finding.message
    assert finding.facts["vhd_util"] == "could not find parent parent.vhd"


def test_a_parent_that_nobody_looked_for_is_not_missing():
    assert codes(planned(child())) == []


def test_a_parent_that_is_not_there():
    finding = found(child(), "VHD501", Context(NOW, parent=Parent("/sr/parent.vhd")))
    assert "nothing readable is at /sr/parent.vhd" in finding.message
    finding = found(child(), "VHD501", Context(NOW, parent=Parent(None)))
    assert "any place its locators name" in finding.message
    nothing_readable = moved_data(moved_data(moved_data(child(), 0, b"x" * 8), 1, b"\0\xd8"), 2, b"\0\xd8")
    assert (
        found(nothing_readable, "VHD501", Context(NOW, parent=Parent(None))).facts["vhd_util"] == "error resolving : -2"
    )


def test_a_raw_parent_has_no_uuid():
    raw = reheaded(child(), parent_uuid=bytes(16))
    assert codes(planned(raw, context=Context(NOW, parent=Parent("/dev/lv")))) == []
    assert codes(planned(raw, context=Context(NOW, parent=Parent("/dev/lv", UUID)))) == []


def test_another_disk_in_the_parents_place():
    finding = found(child(), "VHD506", Context(NOW, parent=Parent("/sr/parent.vhd", UUID)))
    assert "10111213-1415-1617-1819-1a1b1c1d1e1f" in finding.message
    assert "00010203-0405-0607-0809-0a0b0c0d0e0f" in finding.message
    assert codes(planned(child(), context=Context(NOW, parent=Parent("/sr/parent.vhd", PARENT_UUID)))) == []


def test_a_disk_without_parent_has_no_chain():
    assert codes(planned(base(), context=Context(NOW, parent=Parent(None)))) == []
    assert codes(planned(base(), context=Context(NOW, parent=Parent("x", UUID)))) == []


def test_a_chain_problem_alone_is_not_mended_here():
    made = planned(child(), "VHD501", context=Context(NOW, parent=Parent(None)))
    assert made.diagnosis.verdict is Verdict.INVALID
    assert made.plan.edits == ()
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.NO_FIX


def test_it_does_not_keep_the_disk_from_being_mended():
    context = Context(NOW, parent=Parent(None))
    made = planned(lost_footer(child()), context=context)
    assert codes(made) == ["VHD101", "VHD501"]
    assert made.plan.refusal is None
    assert [f.code for f in made.plan.remaining] == ["VHD501"]


def test_locators_are_judged_by_the_room_there_is():
    """A snapshot without a block: its last locator ends where the footer was."""
    assert "VHD502" not in codes(planned(lost_footer(child()), context=FOUND))
    assert repaired(lost_footer(child()), context=FOUND) == child()


def test_what_cannot_be_read_is_not_judged():
    raw = put(put(child(), 600, b"\1"), 0, bytes(512))
    assert not [code for code in codes(planned(raw, context=FOUND)) if code.startswith("VHD5")]


def test_a_locator_that_leads_nowhere_beside_one_that_leads_to_the_parent():
    raw = moved_data(child(), 0, b"file://x/parent.vhd")
    finding = found(raw, "VHD507", Context(NOW, parent=Parent("parent.vhd", PARENT_UUID, ("x/parent.vhd",))))
    assert finding.facts["index"] == 0
    assert finding.facts["vhd_util"] == "error resolving x/parent.vhd: -2"
    assert codes(planned(raw, context=FOUND)) == []
    assert codes(planned(raw)) == []
