"""One image, read whole: what is sound, what is damaged and why, and the places that follow from it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from images import (
    CONTEXT,
    DISK_SIZE,
    MIB,
    PARENT_UUID,
    UUID,
    Buffer,
    Holes,
    base,
    base_made,
    batmap_at,
    child,
    device,
    empty,
    fixed_disk,
    footer_of,
    header_of,
    lost_footer,
    put,
    rebatted,
    refooted,
    reheaded,
    seen,
    small,
    with_backup,
    with_end,
    with_entry,
)
from smfix.formats.vhd.build import sparse
from smfix.formats.vhd.image import MARK, TAIL_SCAN, inspect
from smfix.formats.vhd.problems.registry import diagnose
from smfix.formats.vhd.structs import BLOCK_SIZE, POISON_COOKIE, DiskType, ParentLocator, PlatformCode
from smfix.values import SECTOR, Damaged, Extent, Sound, Verdict

SPACE = BLOCK_SIZE + SECTOR


# --------------------------------------------------------------------------- sound images


def test_a_sound_dynamic_disk():
    image, made = seen(base()), base_made()
    assert image.end == Sound(made.footer, Extent(len(base()) - 512, 512))
    assert image.backup == Sound(made.footer, Extent(0, 512))
    assert image.footer == made.footer
    assert image.header == Sound(made.header, Extent(512, 1024))
    assert isinstance(image.bat, Sound)
    assert isinstance(image.batmap, Sound)
    assert image.tail == ()
    assert image.locators == ()
    assert list(image.blocks()) == sorted((at, block) for block, at in made.places.items())
    assert image.full(0)
    assert not image.full(2)
    assert not image.full(4711)
    assert image.end_of_headers == batmap_at(base()) + 1024
    assert image.end_of_data == len(base()) - 512 == made.places[0] + SPACE
    assert image.footer_home == len(base())
    assert image.size == len(base())
    assert image.looks_like_vhd
    assert image.geometry == made.header


def test_the_bitmap_of_a_block():
    image, made = seen(base()), base_made()
    assert image.bitmap(made.header, made.places[0]) == b"\xff" * 512
    assert image.bitmap(made.header, made.places[2])[:2] == b"\xe5\x80"
    assert image.bitmap(made.header, len(base())) == b""
    tiny = replace(made.header, block_size=SECTOR)
    assert len(image.bitmap(tiny, made.places[0])) == 1


def test_a_sound_fixed_disk():
    image = seen(fixed_disk())
    assert isinstance(image.end, Sound)
    assert (image.header, image.bat, image.batmap, image.geometry) == (None, None, None, None)
    assert (image.end_of_headers, image.end_of_data) == (0, 65536)
    assert list(image.blocks()) == []
    assert not image.full(0)
    assert image.looks_like_vhd


def test_a_sound_child():
    image = seen(child())
    assert [(loc.index, loc.entry.code, loc.path) for loc in image.locators] == [
        (0, PlatformCode.MACX, "./parent.vhd"),
        (1, PlatformCode.W2KU, "./parent.vhd"),
        (2, PlatformCode.W2RU, "./parent.vhd"),
    ]
    assert image.end_of_headers == batmap_at(child()) + 1024 + 3 * 512


def test_a_device_keeps_its_footer_in_the_last_sector():
    raw = device(base())
    image = seen(raw, growable=False)
    assert image.footer_home == len(raw) - 512
    assert image.end_of_data == len(base()) - 512
    assert isinstance(image.end, Sound)


def test_a_disk_with_a_bat_for_more_blocks():
    raw = sparse(DISK_SIZE, UUID, {0: {0: b"x" * 512}}, bat_blocks=1 << 20).to_bytes()
    image = seen(raw)
    assert isinstance(image.bat, Sound)
    assert len(image.bat.value) == 4
    assert isinstance(image.batmap, Sound)
    assert image.batmap.value.header.map_size == 128 * 1024
    assert image.end_of_headers == 1536 + (4 << 20) + 512 + 128 * 1024


# --------------------------------------------------------------------------- footers


def test_without_the_end_footer_the_backup_is_read_by():
    image = seen(lost_footer(base()))
    assert isinstance(image.end, Damaged)
    assert image.footer == footer_of(base())
    assert image.end_of_data == image.footer_home == len(base()) - 512


def test_without_the_backup_the_end_footer_is_read_by():
    image = seen(put(base(), 0, bytes(512)))
    assert isinstance(image.backup, Damaged)
    assert image.footer == footer_of(base())


def test_a_511_byte_footer_is_found():
    image = seen(base()[:-1])
    assert image.end == Sound(footer_of(base()), Extent(len(base()) - 512, 511))
    assert image.footer_home == len(base())


@pytest.mark.parametrize("over", [1, 2, 100, 510])
def test_any_other_odd_size_has_no_footer(over):
    image = seen(base() + bytes(over))
    assert isinstance(image.end, Damaged)
    assert image.end.reasons == ("error reading primary footer: -22",)
    assert image.footer_home == len(base()) + 512


@pytest.mark.parametrize("size", [0, 1, 8, 510, 511, 512, 513, 1023, 1024, 1025, 1535, 1536, 1537, 2048])
def test_stumps_of_an_image_are_read(size):
    image = seen(base()[:size])
    assert image.size == size
    assert isinstance(image.header, Damaged) == (size < 1536)
    assert image.footer_home >= size
    assert image.footer_home % 512 == 0
    assert image.looks_like_vhd == (size >= 8)
    assert seen(base()[:size], growable=False).size == size


def test_a_poisoned_footer_is_one():
    poisoned = refooted(base(), cookie=POISON_COOKIE)
    image = seen(poisoned)
    assert isinstance(image.end, Sound)
    assert image.footer is not None
    assert image.footer.is_poisoned
    assert seen(put(put(base(), 0, POISON_COOKIE), -512, bytes(512))).looks_like_vhd


def test_the_image_can_be_read_by_another_footer():
    other = replace(footer_of(base()), current_size=BLOCK_SIZE).sealed()
    image = inspect(Buffer(base()), by=other)
    assert image.footer == other
    assert isinstance(image.bat, Sound)
    assert len(image.bat.value) == 1
    assert image.bat.value.beyond == (2,)


@pytest.mark.parametrize("raw", [b"", bytes(4096), b"\xff" * 70000, b"conectiX" + bytes(4096)])
def test_what_is_no_vhd(raw):
    image = seen(raw)
    assert not image.looks_like_vhd
    assert image.footer is None
    assert image.tail == ()


# --------------------------------------------------------------------------- the tail


@pytest.mark.parametrize("behind", [*range(1, 14), 510, 511, 512, 513, 1024, 4097, 70000, 3 * MIB + 7])
@pytest.mark.parametrize("filler", [b"\0", b"0"])
def test_a_footer_before_the_end_is_found_wherever_it_is(behind, filler):
    image = seen(base() + filler * behind)
    if behind % 512 == 511:
        # The last 511 bytes are looked at as a short footer: they are not one.
        assert isinstance(image.end, Damaged)
    assert [footer.where.offset for footer in image.tail] == [len(base()) - 512]
    assert image.tail[0].value == footer_of(base())


@pytest.mark.parametrize("gap", [1, 511, 512, 513, 1 << 20, (1 << 20) - 5, (1 << 20) + 3, 2 * MIB - 4])
def test_a_footer_at_any_offset_of_the_tail(gap):
    raw = lost_footer(base()) + bytes(gap) + footer_of(base()).encode() + bytes(600)
    assert [footer.where.offset for footer in seen(raw).tail] == [len(base()) - 512 + gap]


def test_several_footers_in_the_tail_stand_in_order():
    other = replace(footer_of(base()), hidden=1).sealed()
    raw = base() + other.encode() + bytes(512)
    assert [footer.value.hidden for footer in seen(raw).tail] == [0, 1]


def test_a_torn_footer_in_the_tail_is_none():
    assert seen(put(base(), -450, b"\1") + bytes(512)).tail == ()
    assert seen(lost_footer(base()) + bytes(700) + base()[-512:-100]).tail == ()


def test_a_file_that_shrinks_while_it_is_read_is_no_endless_search():
    class Shrunk(Buffer):
        @property
        def size(self) -> int:
            return len(self.data) + 10 * MIB

    image = inspect(Shrunk(lost_footer(base())))
    assert image.tail == ()
    assert isinstance(image.end, Damaged)


def test_footers_inside_blocks_are_not_looked_for():
    made = base_made()
    raw = put(lost_footer(base()), made.places[0] + 4096, made.footer.encode())
    assert seen(raw).tail == ()


def test_a_tail_without_any_sound_footer_elsewhere_is_read_by():
    raw = put(base(), 0, bytes(512)) + bytes(4096)
    image = seen(raw)
    assert image.footer == footer_of(base())
    assert isinstance(image.bat, Sound)
    assert len(image.bat.value) == 4
    assert isinstance(image.batmap, Sound)


def test_without_header_the_tail_is_still_searched():
    raw = put(put(base(), 0, bytes(512)), 512, bytes(1024)) + bytes(4096)
    image = seen(raw)
    assert isinstance(image.header, Damaged)
    assert image.footer == footer_of(base())
    assert seen(put(raw, len(base()) - 512, bytes(512))).footer is None
    assert seen(put(base(), 512, bytes(1024))).tail == ()


def test_a_long_tail_is_searched_at_both_its_ends_only():
    made = base_made()
    pieces = {write.offset: write.data for write in made.writes}
    end = made.size - 512
    size = end + (1 << 40)
    footer = pieces.pop(end)
    for at in (end + TAIL_SCAN - 512, end + TAIL_SCAN + 4096, size - TAIL_SCAN - 4096, size - TAIL_SCAN + 3):
        view = Holes(size, {**pieces, at: footer})
        found = [spot.where.offset for spot in inspect(view).tail]
        near = at < end + TAIL_SCAN or at >= size - TAIL_SCAN
        assert found == ([at] if near else [])
        assert view.asked < 3 * TAIL_SCAN


def test_cookies_without_number_are_bounded():
    raw = lost_footer(empty()) + b"conectix" * 20000
    assert seen(raw).tail == ()


def test_the_mark_of_a_resumed_disk():
    image = seen(put(base(), -512, MARK))
    assert isinstance(image.end, Damaged)
    assert image.end.raw == MARK


def test_a_header_alone_makes_it_a_vhd():
    raw = put(lost_footer(base()), 0, bytes(512))
    assert seen(raw).looks_like_vhd
    assert seen(put(raw, 530, b"\1")).looks_like_vhd
    assert not seen(put(raw, 512, b"X")).looks_like_vhd


# --------------------------------------------------------------------------- header, BAT


@pytest.mark.parametrize("at", [1 << 63, (1 << 64) - 1, 1 << 40, 100 * MIB])
def test_a_header_outside_the_file(at):
    image = seen(refooted(base(), data_offset=at))
    assert isinstance(image.header, Damaged)
    assert image.bat is None
    assert image.geometry is None
    assert image.looks_like_vhd


def test_a_header_elsewhere_is_followed():
    raw = refooted(base() + bytes(0), data_offset=512)
    assert isinstance(seen(raw).header, Sound)
    moved = refooted(base(), data_offset=1024)
    assert isinstance(seen(moved).header, Damaged)


def test_a_damaged_header_leaves_nothing_behind_it():
    image = seen(put(base(), 600, b"\xff"))
    assert isinstance(image.header, Damaged)
    assert (image.bat, image.batmap, image.locators, image.geometry) == (None, None, (), None)
    assert list(image.blocks()) == []
    assert image.end_of_data == image.end_of_headers == 1536


@pytest.mark.parametrize("block_size", [0, 1, 256, 511, 4 << 20, 1 << 31])
def test_a_header_whose_block_size_nothing_can_be_done_with(block_size):
    image = seen(reheaded(base(), block_size=block_size))
    assert isinstance(image.header, Sound)
    assert image.geometry is None


@pytest.mark.parametrize(
    "change",
    [{"max_bat_size": 3}, {"table_offset": 1 << 63}, {"table_offset": (1 << 64) - 512}, {"table_offset": 8 * MIB}],
)
def test_a_bat_that_cannot_be(change):
    image = seen(reheaded(base(), **change))
    assert isinstance(image.bat, Damaged)
    assert image.end_of_data == image.end_of_headers


def test_the_largest_fields_are_only_numbers():
    raw = reheaded(base(), max_bat_size=0xFFFFFFFF, table_offset=(1 << 64) - 512, block_size=1 << 31)
    raw = refooted(raw, current_size=(1 << 64) - 1)
    assert isinstance(seen(raw).bat, Damaged)
    assert diagnose(seen(raw), CONTEXT).findings


def test_a_partial_last_block_is_read():
    raw = refooted(base(), current_size=3 * BLOCK_SIZE + SECTOR)
    image = seen(raw)
    assert isinstance(image.bat, Sound)
    assert len(image.bat.value) == 4


def test_the_highest_entry_makes_the_end_of_data():
    image = seen(with_entry(base(), 3, 0xFFFFFFFE))
    assert image.end_of_data == 0xFFFFFFFE * 512 + SPACE
    assert image.footer_home == image.end_of_data
    assert seen(with_entry(base(), 3, 0xFFFFFFFE), growable=False).footer_home == len(base()) - 512


# --------------------------------------------------------------------------- batmap


@pytest.mark.parametrize(
    ("app", "version", "there"),
    [
        (b"tap\0", 0x00010003, True),
        (b"tap\0", 0x00010002, True),
        (b"tap\0", 0x00010001, True),
        (b"tap\0", 0x00000001, False),
        (b"qem2", 0x00010003, False),
    ],
)
def test_who_has_a_batmap(app, version, there):
    raw = refooted(base(), creator_app=app, creator_version=version)
    assert (seen(raw).batmap is not None) == there
    bare = put(raw, batmap_at(raw), bytes(512))
    if version == 0x00010001:
        assert seen(bare).batmap is None
    elif there:
        assert isinstance(seen(bare).batmap, Damaged)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cookie": b"tdbatmaP"}, "invalid cookie"),
        ({"version": 0x00010003}, "unsupported batmap version"),
        ({"sectors": 0}, "invalid size zero"),
        ({"checksum": 1}, "invalid checksum"),
        ({"offset": 1 << 63}, "the batmap reaches past the end of the file"),
        ({"offset": (1 << 64) - 512}, "the batmap reaches past the end of the file"),
        ({"offset": 3073}, "invalid batmap offset"),
    ],
)
def test_a_damaged_batmap(change, why):
    image = seen(rebatted(base(), reseal=False, **change))
    assert isinstance(image.batmap, Damaged)
    assert image.batmap.reasons == (why,)
    assert image.batmap.where == Extent(batmap_at(base()), 512)
    assert not image.full(0)
    assert image.end_of_headers == batmap_at(base()) + 1024


def test_a_batmap_too_small_for_the_disk():
    raw = refooted(rebatted(base(), sectors=1), current_size=16 << 30)
    raw = reheaded(raw, max_bat_size=8192, table_offset=1536)
    image = inspect(Buffer(raw))
    assert isinstance(image.batmap, Damaged)


def test_every_reason_against_a_batmap_is_kept():
    image = seen(put(base(), batmap_at(base()), b"\xff" * 28 + bytes(484)))
    assert isinstance(image.batmap, Damaged)
    assert image.batmap.reasons[:2] == ("invalid cookie", "unsupported batmap version")


def test_a_batmap_behind_the_end_of_the_file():
    raw = base()[: batmap_at(base()) + 100]
    image = seen(raw)
    assert isinstance(image.batmap, Damaged)
    assert image.batmap.reasons[0] == "error reading batmap"


def test_a_disk_of_exabytes_does_not_make_the_batmap_be_read():
    made = base_made()
    pieces = {write.offset: write.data for write in made.writes}
    end = replace(made.footer, current_size=(1 << 64) - 1).sealed().encode()
    raw = rebatted(base(), reseal=False, sectors=0xFFFFFFFF)
    pieces[batmap_at(base())] = raw[batmap_at(base()) :][:1024]
    view = Holes(1 << 43, {**pieces, 0: end, (1 << 43) - 512: end})
    image = inspect(view)
    assert isinstance(image.batmap, Damaged)
    assert image.batmap.reasons == ("it is for more blocks than smfix reads (16777216)",)
    assert diagnose(image, CONTEXT).verdict is Verdict.INVALID


def test_a_signed_batmap_is_sound():
    assert isinstance(seen(rebatted(base(), version=0x00010001)).batmap, Sound)
    assert isinstance(seen(rebatted(base(), version=0x00010001, bits=b"\xff" * 4)).batmap, Sound)


def test_a_batmap_without_any_footer_is_known_by_its_cookie():
    raw = put(lost_footer(base()), 0, bytes(512))
    image = seen(raw)
    assert image.footer is None
    assert isinstance(image.batmap, Sound)
    assert seen(put(raw, batmap_at(raw), bytes(8))).batmap is None


# --------------------------------------------------------------------------- locators


def with_locator(**changes: int) -> bytes:
    header = header_of(child())
    first = replace(header.locators[0], **changes)
    return reheaded(child(), locators=(first, *header.locators[1:]))


@pytest.mark.parametrize(
    "changes",
    [
        {"data_offset": (1 << 64) - 512},
        {"data_offset": 1 << 63},
        {"data_space": 0xFFFFFE00},
        {"data_offset": len(child())},
    ],
)
def test_a_locator_that_wraps_or_leaves_the_file_is_not_read_and_moves_nothing(changes):
    image = seen(with_locator(**changes))
    assert image.locators[0].path is None
    assert image.end_of_headers == seen(child()).end_of_headers
    assert image.locators[1].path == "./parent.vhd"


@pytest.mark.parametrize("length", [513, 0xFFFFFFFF])
def test_a_locator_with_a_length_beyond_its_space_holds_no_path(length):
    image = seen(with_locator(data_length=length))
    assert [locator.path for locator in image.locators] == [None, "./parent.vhd", "./parent.vhd"]


def test_locators_of_foreign_codes_are_kept_without_a_path():
    header = header_of(child())
    mac = ParentLocator(PlatformCode.MAC, 512, 10, 0, header.locators[0].data_offset)
    image = seen(reheaded(child(), locators=(mac, *header.locators[1:])))
    assert image.locators[0].path is None


def test_without_a_footer_the_locators_are_read_too():
    raw = put(lost_footer(child()), 0, bytes(512))
    assert [loc.path for loc in seen(raw).locators] == ["./parent.vhd"] * 3


def test_who_the_parent_is():
    assert header_of(child()).parent_uuid == PARENT_UUID
    assert seen(refooted(child(), type=DiskType.DYNAMIC)).locators == ()


def test_the_backup_and_the_end_may_differ():
    other = replace(footer_of(small()), hidden=1).sealed()
    assert seen(with_backup(small(), other)).footer == footer_of(small())
    assert seen(with_end(small(), other)).footer == other
