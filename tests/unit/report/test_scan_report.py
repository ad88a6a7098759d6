"""What a scan found, as text: a line for each image, what is wrong below it, and a sum."""

from __future__ import annotations

import pytest

from report_values import CLOCK, LOST_FOOTER
from smfix.report import scan_report
from smfix.values import CheckedImage, InUse, Names, ScannedImage, Verdict

MIB = 1 << 20


def image(verdict: Verdict = Verdict.VALID, *, note: str | None = None, findings=(), **placed) -> ScannedImage:
    return ScannedImage(CheckedImage("/sr/a.vhd", verdict, 3 * MIB, findings=findings, note=note), **placed)


def lines(*images: ScannedImage) -> list[str]:
    return scan_report.text(images).splitlines()


def test_one_sound_image():
    assert lines(image(virtual_size=16 * MIB, aligned=True)) == [
        "/sr: 1 image",
        "  a  valid, 16 MiB disk, 3 MiB file",
        "",
        "1 image: 1 valid; 0 with a size that is not a multiple of 512; the longest chain",
        "has 1 image.",
    ]


@pytest.mark.parametrize(
    ("placed", "said"),
    [
        ({"hidden": True}, "hidden"),
        ({"in_use": InUse.READ_WRITE}, "open read-write"),
        ({"in_use": InUse.READ_ONLY}, "open read-only"),
        ({"aligned": False}, "size not a multiple of 512"),
        ({"standing": "parent-missing"}, "parent not here"),
        ({"standing": "ring"}, "its chain is a ring"),
    ],
)
def test_what_is_said_of_an_image(placed, said):
    assert f", {said}" in lines(image(**placed))[1]


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1,023 bytes"),
        (5120, "5 KiB"),
        (5632, "5.5 KiB"),
        (MIB, "1 MiB"),
        (MIB + 512, "1.0 MiB"),
        (5 * MIB // 2, "2.5 MiB"),
        (40 << 30, "40960 MiB"),
    ],
)
def test_sizes_do_not_mislead(size, said):
    assert scan_report.amount(size) == said


def test_no_child_stands_where_its_parents_finding_does():
    told = lines(image(Verdict.INVALID, findings=(LOST_FOOTER,)), *(image(depth=depth) for depth in (1, 2, 3)))
    indents = [len(line) - len(line.lstrip()) for line in told[1:6]]
    assert indents[1] not in (indents[0], *indents[2:])


def test_what_is_wrong_stands_below_and_infos_do_not():
    told = lines(image(Verdict.INVALID, findings=(LOST_FOOTER, CLOCK), depth=1))
    assert told[1:3] == ["    a  INVALID, 3 MiB file", "         VHD101 footer lost"]
    assert len(told) == 6


@pytest.mark.parametrize("verdict", [Verdict.UNREADABLE, Verdict.NOT_A_VHD])
def test_the_note_of_what_is_no_image(verdict):
    assert lines(image(verdict, note="a FIFO\x1b"))[2] == "       a FIFO\\x1b"
    assert lines(image(verdict))[2] == ""


def test_a_deep_chain_stays_on_the_screen_and_a_missing_size_is_not_said():
    unread = ScannedImage(CheckedImage("/sr/b.vhd", Verdict.UNREADABLE), depth=99)
    assert lines(unread)[1] == " " * 42 + "b  UNREADABLE"


def test_what_the_pool_calls_it():
    told = image(names=Names(vdi="data \x1b"))
    assert lines(told)[1].startswith("  a (data \\x1b)  valid")


def test_no_image():
    assert (
        scan_report.sum_up(())
        == "0 images: ; 0 with a size that is not a multiple of 512; the longest chain has 0 images."
    )
    assert max(map(len, lines())) <= 80


def test_what_is_long_is_folded_under_itself():
    name = "5b0c1a7e-3a52-4a05-9f0e-6d1f6e0b7c11"
    long = CheckedImage(f"/sr/{name}.vhd", Verdict.INVALID, 5 * MIB)
    told = lines(ScannedImage(long, depth=1, virtual_size=16 * MIB, aligned=False))
    assert told[1] == f"    {name}  INVALID, 16 MiB disk, 5 MiB file,"
    assert told[2] == " " * 42 + "size not a multiple of 512"
