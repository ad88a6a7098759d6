"""The file as a picture: every byte is shown once, trouble is never hidden, any image can be drawn."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import corpus
import images
from damage import damages
from images import MIB, base, child, device, empty, fixed_disk, lost_footer, put, seen, with_entry
from smfix.formats.diagram import LEGEND, Diagram, Part, Piece
from smfix.formats.vhd import build
from smfix.formats.vhd.diagram import diagram
from smfix.formats.vhd.structs import PAGE
from smfix.report.diagram import ROWS, Bar, bars, strip, text
from smfix.values import Extent, Sound


def drawn(raw: bytes, **options: bool) -> Diagram:
    return diagram(seen(raw, **options))


def parts(raw: bytes) -> list[Part]:
    return [piece.part for piece in drawn(raw).pieces]


def words(shown: Diagram, part: Part) -> list[str]:
    return [piece.words for piece in shown.pieces if piece.part is part]


def letters(shown: Diagram, cells: int = 80) -> str:
    return "".join(part.value for part in strip(shown, cells))


def test_a_sound_image_piece_by_piece():
    raw = base()
    shown = drawn(raw)
    assert [(piece.part, piece.where.offset, piece.where.length) for piece in shown.pieces] == [
        (Part.BACKUP, 0, 512),
        (Part.HEADER, 512, 1024),
        (Part.BAT, 1536, 16),
        (Part.GAP, 1552, 496),
        (Part.BATMAP, 2048, 512),
        (Part.BATMAP, 2560, 512),
        (Part.GAP, 3072, 512),
        (Part.BLOCKS, 3584, len(raw) - 512 - 3584),
        (Part.FOOTER, len(raw) - 512, 512),
    ]
    assert words(shown, Part.BLOCKS) == ["2 blocks, not in order: 2, 0"]
    assert shown.home is None
    assert letters(shown)[-2:] == "#F"


def test_blocks_that_follow_on_each_other_are_one_piece():
    data = {number: {0: b"x" * 512} for number in range(3)}
    raw = build.sparse(8 * MIB, images.UUID, data).to_bytes()
    assert words(drawn(raw), Part.BLOCKS) == ["blocks 0 to 2"]


def test_more_blocks_than_are_named():
    data = {number: {0: b"x" * 512} for number in reversed(range(12))}
    raw = build.sparse(24 * MIB, images.UUID, data).to_bytes()
    (told,) = words(drawn(raw), Part.BLOCKS)
    assert told == "12 blocks, not in order: 11, 10, 9, 8, 7, 6, 5, 4 and 4 more"


def test_a_lost_footer_shows_where_one_belongs():
    raw = lost_footer(base())
    shown = drawn(raw)
    assert shown.home == len(raw)
    (none,) = (piece for piece in shown.pieces if piece.part is Part.DAMAGED)
    assert none == Piece(Part.DAMAGED, Extent(len(raw), 512), "no footer: the file ends before its place")
    report = text(shown, "/sr/x.vhd")
    assert report.startswith("/sr/x.vhd\n4,202,496 bytes; headers end at 3,072, data ends at 4,202,496\n")
    assert letters(shown)[-1] == "x"
    assert f"a footer belongs at byte {len(raw):,} ^" in report
    assert max(map(len, report.splitlines())) == 80


def test_a_footer_that_was_overwritten_is_damaged_where_it_stands():
    raw = base()[:-512] + b"x" * 512
    assert words(drawn(raw), Part.DAMAGED)[0].startswith("no footer: invalid cookie")
    assert words(drawn(base()[:-512] + b"\xc7" * 512), Part.DAMAGED)


def test_what_is_not_in_the_file_is_shown_behind_its_end():
    raw = base()[: -512 - 300_000]
    shown = drawn(raw)
    assert Piece(Part.MISSING, Extent(len(raw), 300_000), "block 0: what is not in the file") in shown.pieces
    assert shown.extent == shown.home + 512
    assert letters(shown).endswith("#!!!!x")
    # the footer belongs behind all of it
    assert next(line for line in text(shown, "x").splitlines() if "^" in line).endswith("^")


def test_a_place_beyond_all_reason_does_not_shrink_the_rest():
    shown = drawn(with_entry(base(), 0, 0x7FFFFFF0))
    assert shown.extent <= 2 * shown.size + 512
    assert letters(shown).count("#") > 10
    assert letters(shown)[-1] == "!"


def test_blocks_that_share_bytes_are_trouble():
    raw = with_entry(base(), 0, images.bat_entry(base(), 2) + 8)
    (told,) = words(drawn(raw), Part.MISSING)
    assert told == "block 0, sharing bytes with another block"


def test_a_fixed_disk_is_data_and_a_footer():
    assert parts(fixed_disk()) == [Part.DATA, Part.FOOTER]
    assert letters(drawn(fixed_disk()), 20) == "=" * 19 + "F"


def test_a_fresh_image_is_all_front():
    shown = drawn(empty())
    assert {Part.BACKUP, Part.HEADER, Part.BAT, Part.BATMAP, Part.FOOTER} <= set(strip(shown, 80))
    assert Part.BLOCKS not in strip(shown, 80)


def test_a_childs_locators_are_named_and_made_printable():
    shown = drawn(child())
    assert words(shown, Part.LOCATOR) == [f"parent locator {n}: ./parent.vhd" for n in range(3)]
    hostile = Diagram(10, 0, 0, None, (Piece(Part.LOCATOR, Extent(0, 10), "parent locator 0: \x1b[2J\u202egpj"),))
    report = text(hostile, "a\x1b]0;x\x07")
    assert "\x1b" not in report
    assert "\u202e" not in report


def test_a_device_has_a_tail_and_its_footer_belongs_where_it_was():
    raw = device(base())
    shown = drawn(raw, growable=False)
    assert [piece.where for piece in shown.pieces if piece.part is Part.TAIL] == [Extent(len(base()) - 512, 3 * MIB)]
    broken = drawn(put(raw, len(raw) - 512, b"\xc7" * 512), growable=False)
    assert broken.home == len(raw) - 512
    report = text(broken, "/dev/x").splitlines()
    assert report[4].index("^") == report[3].rindex("x")


def test_without_a_header_nobody_knows_where_blocks_lie():
    raw = put(base(), 600, b"xxx")
    assert parts(raw) == [Part.BACKUP, Part.DAMAGED, Part.UNKNOWN, Part.FOOTER]
    assert words(drawn(raw), Part.UNKNOWN) == ["not known: the structures that locate the blocks are damaged"]


def test_a_damaged_bat_and_batmap_are_pieces():
    assert words(drawn(images.reheaded(base(), max_bat_size=1)), Part.DAMAGED)[0].startswith("BAT, damaged: ")
    assert words(drawn(put(base(), images.batmap_at(base()), b"\0")), Part.DAMAGED) == [
        "batmap, damaged: invalid cookie"
    ]


def test_a_stray_footer_is_found_and_both_are_told():
    raw = base() + bytes(3000)
    shown = drawn(raw)
    assert words(shown, Part.STRAY) == ["a sound footer, not at the end of the file"]
    assert "f" in letters(shown)
    assert Part.TAIL in [piece.part for piece in shown.pieces]


def test_a_hole_in_the_middle_is_a_gap():
    raw = images.rebatted(corpus.without_block(base(), 2), bits=bytes(512))
    told = words(drawn(raw), Part.GAP)
    assert told.count("gap: nothing claims it") == 1


def test_a_long_list_is_cut_in_the_middle():
    pieces = tuple(Piece(Part.BLOCKS, Extent(n * 2 * PAGE, PAGE), f"block {n}") for n in range(100))
    report = text(Diagram(200 * PAGE, 0, 200 * PAGE, None, pieces), "x")
    assert f"{100 - ROWS} more pieces" in report
    assert "block 0\n" in report
    assert report.endswith("block 99")
    assert "block 50\n" not in report


@pytest.mark.parametrize("cells", [1, 2, 5, 20, 80, 200])
def test_a_strip_has_the_cells_that_were_asked_for(cells):
    for raw in (base(), empty(), fixed_disk(), child(), lost_footer(base())[:-1_000_000]):
        assert len(strip(drawn(raw), cells)) <= cells
        if cells >= 20:
            assert len(strip(drawn(raw), cells)) >= cells - 5


def test_a_picture_of_nothing():
    nothing = Diagram(0, 0, 0, None, ())
    assert strip(nothing, 10) == ()
    assert nothing.extent == 0


def test_neighbours_of_one_kind_are_one_bar():
    assert bars((Part.BLOCKS, Part.BLOCKS, Part.FOOTER)) == (Bar(Part.BLOCKS, 0, 2), Bar(Part.FOOTER, 2, 1))
    assert bars(()) == ()


def test_every_part_has_a_letter_of_its_own_and_a_legend():
    assert len({part.value for part in Part}) == len(Part)
    assert set(LEGEND) == set(Part)


@settings(max_examples=40)
@given(damages(most=1))
def test_every_byte_of_the_file_is_in_some_piece_and_nothing_raises(done):
    raw = images.base()
    for damage in done:
        raw = damage(raw)
    shown = drawn(raw)
    at = 0
    for piece in shown.pieces:
        assert piece.where.offset <= at or at >= shown.size
        at = max(at, piece.where.end)
    assert at >= shown.size
    assert text(shown, "x")


@settings(max_examples=60)
@given(st.binary(max_size=4096), st.integers(1, 120))
def test_any_bytes_can_be_drawn(raw, cells):
    shown = drawn(raw)
    assert len(strip(shown, cells)) <= cells
    assert (shown.home is None) == isinstance(seen(raw).end, Sound)
    assert text(shown, "x")
