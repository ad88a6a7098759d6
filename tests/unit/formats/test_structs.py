"""The structures on disk: every field at its documented offset, every rule in vhd-util's words and order."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from images import UUID, base, child, footer_of, header_of
from smfix.formats.vhd import structs
from smfix.formats.vhd.structs import (
    BatmapHeader,
    DiskType,
    Footer,
    Header,
    ParentLocator,
    PlatformCode,
    batmap_checksum,
    batmap_summed_size,
    bit,
    checksum,
    decode_footer,
    decode_header,
    from_vhd_time,
    geometry_for,
    parse_batmap_header,
    parse_footer,
    parse_header,
    round_up,
    vhd_time,
)
from smfix.values import Damaged, Extent, Sound, uuid_text

GOOD = footer_of(base())
HEADER = header_of(base())


# --------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("size", "unit", "wanted"), [(0, 512, 0), (1, 512, 512), (512, 512, 512), (513, 512, 1024), (5, 4, 8)]
)
def test_round_up(size, unit, wanted):
    assert round_up(size, unit) == wanted


def test_the_checksum_leaves_its_own_field_out():
    raw = bytes(range(200))
    assert checksum(raw, 64) == ~(sum(raw) - sum(raw[64:68])) & 0xFFFFFFFF
    assert checksum(raw, 64) == checksum(raw[:64] + b"\xff" * 4 + raw[68:], 64)
    assert checksum(bytes(512), 64) == 0xFFFFFFFF


def test_vhd_times_count_from_2000():
    assert vhd_time(datetime(2000, 1, 1, tzinfo=UTC)) == 0
    assert vhd_time(datetime(2000, 1, 2, 0, 0, 1, tzinfo=UTC)) == 86401
    assert from_vhd_time(86401) == datetime(2000, 1, 2, 0, 0, 1, tzinfo=UTC)
    assert from_vhd_time(0xFFFFFFFF).year == 2136


# Recorded from `vhd-util create` and `vhd-util read` (libvhd's vhd_chs), and from the specification's text.
@pytest.mark.parametrize(
    ("size", "chs"),
    [
        (0, (0, 4, 17)),
        (1, (0, 4, 17)),
        (2 << 20, (60, 4, 17)),
        (34 << 20, (140, 16, 31)),
        (100 << 20, (1003, 12, 17)),
        (504 << 20, (1024, 16, 63)),
        (1 << 30, (2080, 16, 63)),
        (8 << 30, (16644, 16, 63)),
        (127 << 30, (65278, 16, 255)),
        (128 << 30, (65535, 16, 255)),
        (2 << 40, (0, 4, 17)),  # the sector count is 32 bits wide and wraps to nothing
    ],
)
def test_geometry(size, chs):
    cylinders, heads, sectors = chs
    got = geometry_for(size)
    assert (got >> 16, got >> 8 & 255, got & 255) == chs, (got >> 16, got >> 8 & 255, got & 255)
    assert got == cylinders << 16 | heads << 8 | sectors


@pytest.mark.vhdutil
@pytest.mark.parametrize("mib", [2, 32, 34, 36, 256, 504, 506, 1024, 32100, 32130, 130558, 500000, 2093050])
def test_geometry_as_vhd_util_makes_it(tmp_path, vhd_util, mib):
    path = tmp_path / "a.vhd"
    subprocess.run([vhd_util, "create", "-n", path, "-s", str(mib)], check=True, capture_output=True)
    with path.open("rb") as file:
        made = parse_footer(file.read(512))
    assert made.current_size == mib << 20
    assert made.geometry == geometry_for(mib << 20)


def test_uuid_text():
    assert uuid_text(UUID) == "00010203-0405-0607-0809-0a0b0c0d0e0f"


@pytest.mark.parametrize("bits", [b"", b"\0", b"\x01", b"\x80\0\x40", b"\0\0\x05\xff", b"\xff\xff"])
def test_the_first_set_bit_is_found_wherever_one_begins_to_look(bits):
    for start in range(len(bits) * 8 + 9):
        want = next((n for n in range(start, len(bits) * 8) if structs.bit(bits, n)), None)
        assert structs.first_bit(bits, start) == want


def test_bits_are_counted_from_the_most_significant_and_end_with_the_bytes():
    assert [n for n in range(24) if bit(b"\x80\x01", n)] == [0, 15]
    assert not bit(b"", 0)


# --------------------------------------------------------------------------- footer


def test_every_footer_field_stands_at_its_documented_offset():
    raw = bytearray(512)
    struct.pack_into(">8s", raw, 0, b"conectix")
    struct.pack_into(">IIQI4sIIQQIII16sBB", raw, 8, 1, 2, 3, 4, b"appl", 5, 6, 7, 8, 9, 10, 11, UUID, 12, 13)
    raw[86:] = b"\x11" * 426
    wanted = Footer(b"conectix", 1, 2, 3, 4, b"appl", 5, 6, 7, 8, 9, 10, 11, UUID, 12, 13, b"\x11" * 426)
    assert parse_footer(bytes(raw)) == wanted
    assert wanted.encode() == bytes(raw)


def test_a_sound_footer_knows_what_it_is():
    assert GOOD.by_tap
    assert GOOD.is_sparse
    assert not GOOD.is_differencing
    assert not GOOD.is_poisoned
    assert not replace(GOOD, creator_app=b"qemu").by_tap
    assert replace(GOOD, type=DiskType.DIFFERENCING).is_differencing
    assert replace(GOOD, type=DiskType.DIFFERENCING).is_sparse
    assert not replace(GOOD, type=DiskType.FIXED).is_sparse


def test_a_footer_is_decoded_with_its_place():
    assert decode_footer(GOOD.encode(), 4096) == Sound(GOOD, Extent(4096, 512))


def test_a_footer_of_511_bytes_is_whole():
    assert decode_footer(GOOD.encode()[:511], 1) == Sound(GOOD, Extent(1, 511))


@pytest.mark.parametrize("length", [0, 1, 8, 64, 510])
def test_a_shorter_footer_is_damaged(length):
    raw = GOOD.encode()[:length]
    assert decode_footer(raw, 7) == Damaged(raw, ("file too short for a footer",), Extent(7, length))


BROKEN = [
    ({"features": 0}, "invalid 'reserved' feature"),
    ({"features": 6}, "invalid extra features"),
    ({"features": 0x80000002}, "invalid extra features"),
    ({"version": 0x00020000}, "invalid file format version"),
    ({"type": DiskType.FIXED}, "invalid data offset"),
    ({"creator_version": 0x00010004}, "unsupported tap creator version"),
    ({"geometry": 0xFFFF10FF}, "geometry too large"),
    ({"type": 0, "data_offset": structs.NO_OFFSET}, "invalid type"),
    ({"type": 5, "data_offset": structs.NO_OFFSET}, "invalid type"),
    ({"saved": 2}, "invalid 'saved' state"),
    ({"hidden": 255}, "invalid 'hidden' state"),
    ({"reserved": bytes(425) + b"\1"}, "invalid 'reserved' bits"),
    ({"uuid": bytes(16)}, "invalid (NULL) uuid"),
]


@pytest.mark.parametrize(("change", "why"), BROKEN)
def test_a_field_that_is_not_allowed_leaves_the_footer_sound_and_breaks_its_rule(change, why):
    footer = replace(GOOD, **change).sealed()
    assert [rule.why for rule in structs.FOOTER_RULES if rule.broken(footer)] == [why]
    assert decode_footer(footer.encode(), 0) == Sound(footer, Extent(0, 512))


@pytest.mark.parametrize(("change", "why"), BROKEN)
def test_with_a_bad_checksum_it_is_damaged_for_all_its_reasons(change, why):
    footer = replace(GOOD, **change)
    got = decode_footer(footer.encode(), 0)
    assert isinstance(got, Damaged)
    assert got.reasons == ("invalid checksum", why)
    assert got.raw == footer.encode()


def test_a_sound_footer_breaks_no_rule():
    assert not [rule.key for rule in structs.FOOTER_RULES if rule.broken(GOOD)]
    assert [rule.key for rule in structs.FOOTER_RULES][:2] == ["cookie", "checksum"]


def test_all_reasons_are_kept_never_just_the_first():
    got = decode_footer(b"\xc7" * 512, 0)
    assert isinstance(got, Damaged)
    assert got.reasons[:2] == ("invalid cookie", "invalid checksum")
    assert "invalid type" in got.reasons
    assert len(got.reasons) > 6


def test_the_poison_cookie_is_sound_only_with_its_checksum():
    poisoned = replace(GOOD, cookie=structs.POISON_COOKIE).sealed()
    got = decode_footer(poisoned.encode(), 0)
    assert isinstance(got, Sound)
    assert got.value.is_poisoned
    assert isinstance(decode_footer(replace(poisoned, checksum=0).encode(), 0), Damaged)


@pytest.mark.parametrize("version", [0x00000001, 0x00010001])
def test_old_tap_set_hidden_without_the_checksum(version):
    was = replace(GOOD, creator_version=version).sealed()
    hidden = replace(was, hidden=1)
    assert hidden.hidden_unsummed
    assert isinstance(decode_footer(hidden.encode(), 0), Sound)
    assert isinstance(decode_footer(replace(hidden, checksum=5).encode(), 0), Damaged)


@pytest.mark.parametrize("change", [{"creator_version": 0x00010002}, {"creator_app": b"qem2"}, {"hidden": 0}])
def test_nobody_else_may_leave_the_checksum_stale(change):
    stale = replace(replace(GOOD, creator_version=0x00010001).sealed(), hidden=1)
    stale = replace(stale, **change)
    assert not stale.hidden_unsummed
    assert isinstance(decode_footer(replace(stale, saved=1).encode(), 0), Damaged)


# --------------------------------------------------------------------------- header


def test_every_header_field_stands_at_its_documented_offset():
    raw = bytearray(1024)
    struct.pack_into(">8sQQIIII16sII", raw, 0, b"cxsparse", 1, 2, 3, 4, 5, 6, UUID, 7, 8)
    raw[64:576] = b"\x22" * 512
    for index in range(8):
        struct.pack_into(">IIIIQ", raw, 576 + 24 * index, index, 10 + index, 20 + index, 30 + index, 40 + index)
    raw[768:] = b"\x33" * 256
    got = parse_header(bytes(raw))
    assert got == Header(
        b"cxsparse",
        1,
        2,
        3,
        4,
        5,
        6,
        UUID,
        7,
        8,
        b"\x22" * 512,
        tuple(ParentLocator(i, 10 + i, 20 + i, 30 + i, 40 + i) for i in range(8)),
        b"\x33" * 256,
    )
    assert got.encode() == bytes(raw)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": 1}, "invalid header version"),
        ({"data_offset": 0}, "invalid data offset"),
        ({"table_offset": 0}, "invalid table offset"),
        ({"table_offset": 1537}, "invalid table offset"),
        ({"block_size": 0}, "invalid block size"),
        ({"block_size": 3 << 19}, "invalid block size"),
        ({"block_size": 4 << 20}, "block size too large"),
        ({"reserved1": 1}, "invalid reserved bits"),
        ({"reserved2": bytes(255) + b"\1"}, "invalid reserved bits"),
        ({"locators": (ParentLocator(1, 0, 0, 0, 0), *HEADER.locators[1:])}, "invalid platform code"),
    ],
)
def test_a_header_field_that_is_not_allowed(change, why):
    header = replace(HEADER, **change).sealed()
    assert [rule.why for rule in structs.HEADER_RULES if rule.broken(header)] == [why]
    assert decode_header(header.encode(), 512) == Sound(header, Extent(512, 1024))
    torn = replace(header, checksum=header.checksum ^ 1)
    assert decode_header(torn.encode(), 512) == Damaged(torn.encode(), ("invalid checksum", why), Extent(512, 1024))


def test_a_header_without_its_cookie_or_cut_short_is_damaged():
    raw = HEADER.encode()
    got = decode_header(b"X" + raw[1:], 512)
    assert isinstance(got, Damaged)
    assert got.reasons == ("invalid cookie", "invalid checksum")
    other = replace(HEADER, cookie=b"cxsparsf").sealed()
    assert isinstance(decode_header(other.encode(), 512), Damaged)
    assert decode_header(raw[:1023], 9) == Damaged(raw[:1023], ("file too short for a header",), Extent(9, 1023))


@pytest.mark.parametrize(
    ("block_size", "bitmap", "space"),
    [
        (2 << 20, 512, (2 << 20) + 512),
        (4 << 20, 1024, (4 << 20) + 1024),
        (1 << 20, 512, (1 << 20) + 512),
        (512, 512, 1024),
        (0, 512, 512),
    ],
)
def test_block_sizes(block_size, bitmap, space):
    header = replace(HEADER, block_size=block_size)
    assert header.bitmap_size == bitmap
    assert header.block_space == space


@pytest.mark.parametrize(("size", "blocks"), [(0, 0), (1, 1), (2 << 20, 1), ((2 << 20) + 512, 2), (63 << 20, 32)])
def test_a_partial_last_block_counts(size, blocks):
    assert HEADER.blocks_of(size) == blocks
    assert replace(HEADER, block_size=0).blocks_of(size) == 0


@pytest.mark.parametrize(("entries", "length"), [(0, 512), (1, 512), (128, 512), (129, 1024), (1 << 20, 4 << 20)])
def test_the_bat_is_padded_to_sectors(entries, length):
    assert replace(HEADER, max_bat_size=entries).bat_extent == Extent(1536, length)


# --------------------------------------------------------------------------- parents


@pytest.mark.parametrize(("space", "size"), [(0, 0), (1, 512), (511, 511 * 512), (512, 512), (1024, 1024), (1025, 0)])
def test_a_locators_space_is_in_sectors_below_512_else_in_bytes(space, size):
    locator = ParentLocator(PlatformCode.MACX, space, 10, 0, 4096)
    assert locator.space == size
    assert locator.extent == Extent(4096, size)


@pytest.mark.parametrize(
    ("code", "data", "path"),
    [
        (PlatformCode.MACX, b"file://./a.vhd", "./a.vhd"),
        (PlatformCode.MACX, b"file:///run/sr/a.vhd\0junk", "/run/sr/a.vhd"),
        (PlatformCode.MACX, b"http://a", None),
        (PlatformCode.MACX, b"\xff\xfe", None),
        (PlatformCode.MACX, "file://ä".encode(), None),
        (PlatformCode.MACX, b"", None),
        (PlatformCode.W2KU, ".\\a.vhd".encode("utf-16-le"), "./a.vhd"),
        (PlatformCode.W2RU, "C:\\x\\a.vhd".encode("utf-16-le"), "/x/a.vhd"),
        (PlatformCode.W2RU, "c:a.vhd".encode("utf-16-le"), "a.vhd"),
        (PlatformCode.W2RU, "ä".encode("utf-16-le"), None),
        (PlatformCode.W2RU, b"\0\xd8", None),
        (PlatformCode.W2RU, b"odd", None),
    ],
)
def test_a_locators_path(code, data, path):
    locator = ParentLocator(code, 512, len(data), 0, 4096)
    assert locator.decode_path(data + b"\0\0rest of the sector") == path


def test_the_parents_name():
    assert header_of(child()).parent_name_text() == "parent.vhd"
    assert HEADER.parent_name_text() == ""
    bad = replace(HEADER, parent_name=b"\xd8\x00" + bytes(510))
    assert bad.parent_name_text() is None


# --------------------------------------------------------------------------- batmap


def test_every_batmap_field_stands_at_its_documented_offset():
    raw = bytearray(512)
    struct.pack_into(">8sQIIIB65s", raw, 0, b"tdbatmap", 4096, 3, 0x00010002, 9, 1, b"\x44" * 65)
    raw[94:] = b"\x55" * 418
    got = parse_batmap_header(bytes(raw))
    assert got == BatmapHeader(b"tdbatmap", 4096, 1536, 0x00010002, 9, 1, b"\x44" * 65, b"\x55" * 418)
    assert got.encode() == bytes(raw)
    assert got.map_extent == Extent(4096, 1536)


def test_version_1_1_sums_signed_bytes():
    bits = b"\xff\x80\x7f" + bytes(509)
    assert batmap_checksum(bits, 0x00010002) == ~(255 + 128 + 127) & 0xFFFFFFFF
    assert batmap_checksum(bits, 0x00010001) == ~(-1 - 128 + 127) & 0xFFFFFFFF
    assert batmap_checksum(bytes(512), 0x00010001) == 0xFFFFFFFF


@pytest.mark.parametrize(
    ("size", "summed"), [(0, 512), (1, 512), (8 << 30, 512), ((8 << 30) + (16 << 20), 1024), (2 << 40, 131072)]
)
def test_how_much_of_the_map_is_summed(size, summed):
    assert batmap_summed_size(size) == summed
