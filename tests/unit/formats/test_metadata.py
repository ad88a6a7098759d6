from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from datetime import UTC

import pytest

from memory_image import MemoryImage
from schemas import valid
from smfix.formats.vhd import build, structs
from smfix.formats.vhd import metadata as report
from smfix.formats.vhd.format import VHD
from smfix.formats.vhd.image import inspect
from smfix.formats.vhd.libvhd import opened
from smfix.formats.vhd.metadata import footers
from smfix.report.jsondoc import show

UUID = bytes(range(16))
MIB = 1 << 20


def image(raw: bytes):
    return inspect(MemoryImage(raw))


def metadata(image, path, zone=None):
    return report.metadata(opened(image.view), path, zone)


def notes(image):
    return report.notes(image, opened(image.view))


def dynamic(**options) -> bytes:
    block = {n: bytes([n % 251]) * 512 for n in range(4096)}
    return build.sparse(8 * MIB, UUID, {1: block, 0: {5: b"x" * 512}}, **options).to_bytes()


def differencing() -> bytes:
    return build.sparse(8 * MIB, UUID, {}, parent=build.ParentRef(UUID[::-1], "parent.vhd")).to_bytes()


def document_of(path: str, raw: bytes) -> dict:
    """The document of `smfix show --json`."""
    view = MemoryImage(raw)
    return show(path, VHD.show(VHD.inspect(view), view, path))


def test_the_dump_of_a_dynamic_disk():
    assert metadata(image(dynamic(timestamp=331551901, hidden=1)), "/x.vhd", UTC).startswith("""\
VHD Footer Summary:
-------------------
Cookie              : conectix
Features            : (0x00000002) <RESV>
File format version : Major: 1, Minor: 0
Data offset         : 512
Timestamp           : Sun Jul  4 09:45:01 2010
Creator Application : 'tap'
Creator version     : Major: 1, Minor: 3
Creator OS          : Unknown!
Original disk size  : 8 MB (8388608 Bytes)
Current disk size   : 8 MB (8388608 Bytes)
Geometry            : Cyl: 240, Hds: 4, Sctrs: 17
                    : = 7 MB (8355840 Bytes)
Disk type           : Dynamic hard disk
""")


CASES = {
    "dynamic": dynamic(),
    "large BAT": dynamic(bat_blocks=4096),
    "hidden": dynamic(hidden=1),
    "differencing": differencing(),
    "footer lost": dynamic()[:-512] + bytes(512),
    "footer cut off": dynamic()[:-512],
    "batmap checksum": dynamic().replace(b"tdbatmap", b"tdbatmax"),
}


@pytest.mark.vhdutil
@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_what_vhd_util_prints(name, zone, tmp_path, vhd_util):
    path = tmp_path / "disk.vhd"
    path.write_bytes(CASES[name])
    environment = {**os.environ, "TZ": zone}
    real = subprocess.run(
        [vhd_util, "read", "-p", "-n", str(path)], capture_output=True, env=environment, timeout=60, check=False
    )
    program = (
        "import sys; from memory_image import MemoryImage; from smfix.formats.vhd.libvhd import opened\n"
        "from smfix.formats.vhd.metadata import metadata\n"
        "sys.stdout.write(metadata(opened(MemoryImage(open(sys.argv[1], 'rb').read())), sys.argv[1]))"
    )
    ours = subprocess.run(
        [os.sys.executable, "-c", program, str(path)],
        capture_output=True,
        env={**environment, "PYTHONPATH": os.pathsep.join(os.sys.path)},
        check=True,
    )
    assert ours.stdout.decode() == real.stdout.decode()


def test_a_fixed_disk_has_a_footer_only():
    dump = metadata(image(build.fixed(MIB, UUID).to_bytes()), "/x.vhd", UTC)
    assert "Disk type           : Fixed hard disk\n" in dump
    assert "Header" not in dump


def test_a_damaged_header_is_dumped_all_the_same():
    raw = bytearray(dynamic())
    raw[512:520] = b"\x1b[2Jxxx\0"
    dump = metadata(image(bytes(raw)), "/a\x1bb", UTC)
    assert dump.startswith("Failed to open /a\\x1bb: -22\n\n/a\\x1bb appears invalid; dumping headers\n\n")
    assert "VHD Header Summary" in dump
    assert "(Bad!)" in dump
    assert "\x1b" not in dump


def test_nothing_sound_prints_what_is_there():
    raw = bytearray(dynamic())
    raw[0:8] = raw[-512:-504] = b"xxxxxxxx"
    dump = metadata(image(bytes(raw)), "/x", UTC)
    assert "Cookie              : xxxxxxxx" in dump
    assert "Cookie              : cxsparse" in dump
    empty = metadata(image(b""), "/x", UTC)
    assert empty.startswith("Failed to open /x: -32")  # as the tool says it of a read behind the end


def test_a_damaged_bat_is_said_first():
    raw = bytearray(dynamic())
    header = structs.parse_header(bytes(raw[512:1536]))
    raw[512:1536] = replace(header, max_bat_size=1).sealed().encode()
    dump = metadata(image(bytes(raw)), "/x", UTC)
    assert dump.startswith("Failed to get bat for /x: -22\nVHD Footer Summary:")


def test_odd_fields_are_shown_as_the_tool_shows_them():
    raw = dynamic()
    changes = {"features": 3, "creator_app": b"vpc\0", "creator_os": 0x5769326B, "saved": 1, "hidden": 255, "type": 9}
    footer = replace(structs.parse_footer(raw[:512]), **changes).sealed().encode()
    dump = metadata(image(footer + raw[512:-512] + footer), "/x", UTC)
    assert "(0x00000003) <TEMP><RESV>" in dump
    assert "Creator OS          : Windows\n" in dump
    assert "Disk type           : Unknown type!\n\n" in dump
    assert "Saved state         : Yes\nHidden              : -1\n" in dump


def test_locators_that_cannot_be_read():
    raw = differencing()
    header = structs.parse_header(raw[512:1536])
    odd = replace(header.locators[0], data_length=3)
    header = replace(header, locators=(odd, *header.locators[1:])).sealed()
    dump = metadata(image(raw[:512] + header.encode() + raw[1536:]), "/x", UTC)
    assert "       data_length  : 3\n" in dump
    assert "failed to read parent name\n\n" in dump
    assert "       decoded name : ./parent.vhd\n" in dump


def test_an_unreadable_parent_name():
    raw = bytearray(differencing())
    header = structs.parse_header(bytes(raw[512:1536]))
    raw[512:1536] = replace(header, parent_name=b"\xd8\x00" * 256).sealed().encode()
    assert "Parent name         : failed to read name\n" in metadata(image(bytes(raw)), "/x", UTC)


def test_an_encrypted_image_shows_nonce_and_hash():
    raw = bytearray(dynamic())
    at = raw.index(b"tdbatmap")
    raw[at + 29] = 1
    raw[at + 30 : at + 94] = bytes(range(64))
    dump = metadata(image(bytes(raw)), "/x", UTC)
    assert f"Batmap keyhash nonce: {bytes(range(32)).hex()}\n" in dump
    assert f"Batmap keyhash hash : {bytes(range(32, 64)).hex()}\n" in dump


def test_both_footers_as_they_stand():
    raw = dynamic()
    backup, end = footers(image(raw))
    assert (backup.title, backup.offset) == ("Backup footer at byte 0 (sound)", 0)
    assert end.title == f"Footer at byte {len(raw) - 512} (sound)"
    assert (end.offset, end.raw) == (len(raw) - 512, raw[-512:])
    assert backup.raw == raw[:512]
    lost = footers(image(raw[:-512] + b"\xc7" * 512))[1]
    assert lost.title.endswith("(damaged: " + "; ".join(image(raw[:-512] + b"\xc7" * 512).end.reasons) + ")")
    assert lost.raw == b"\xc7" * 512


@pytest.mark.parametrize(
    ("there", "is_sound", "is_metadata"),
    [(None, True, True), (b"\xc7" * 512, False, True), (b"a guest's text".ljust(512, b"x"), False, False)],
)
def test_a_footers_place_may_hold_guest_data_unless_it_is_a_footer_or_tapdisks_mark(there, is_sound, is_metadata):
    raw = dynamic()
    _, end = footers(image(raw[:-512] + (there or raw[-512:])))
    assert (end.is_sound, end.is_metadata, end.is_of_guest) == (is_sound, is_metadata, False)
    assert end.like == raw[-512:]


def test_the_beginning_of_a_fixed_disk_is_the_guests():
    backup, end = footers(image(build.fixed(MIB, UUID).to_bytes()))
    assert (backup.is_of_guest, end.is_of_guest) == (True, False)


def test_notes():
    raw = dynamic()
    assert notes(image(raw)) == ()
    assert notes(image(raw[:-512]))[0].endswith("what is shown is the backup footer")
    both = b"x" * 512 + raw[512:-512]
    assert notes(image(both))[0].endswith("and so is the backup footer")
    assert notes(image(b"x" * 512 + raw[512:] + bytes(512)))[0].endswith(
        f"so is the backup footer; a sound one is at byte {len(raw) - 512:,}, see --layout"
    )
    assert notes(image(b""))[0].endswith(
        "the fields that are shown as 0 are nowhere in the image; --layout shows what is there"
    )
    astray = replace(structs.parse_footer(raw[:512]), data_offset=1 << 40).sealed().encode()
    (note,) = notes(image(astray + raw[512:-512] + astray))
    assert note.startswith("there is no header at byte 1,099,511,627,776")
    typeless = replace(structs.parse_footer(raw[:512]), type=0).encode()
    assert "not one that has a header" in notes(image(typeless + raw[512:-512] + typeless))[1]


@pytest.mark.parametrize("raw", [*CASES.values(), b"", build.fixed(MIB, UUID).to_bytes()])
def test_the_document(raw):
    document = valid(document_of("/x.vhd", raw))
    assert document["size"] == len(raw)
    if document["bat"]:
        assert document["header"]["fields"]["cookie"] == "cxsparse"


def test_damage_in_the_document():
    document = valid(document_of("/x", dynamic()[:-512]))
    assert document["footer"]["sound"] is False
    assert document["footer"]["reasons"]
    assert document["footer"]["fields"] is None
    assert document["backup_footer"]["fields"]["uuid"] == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert document["bat"]["fields"] == {"entries": 4, "allocated": 2}
    child = valid(document_of("/x", differencing()))
    assert [locator["path"] for locator in child["parent_locators"]] == ["./parent.vhd"] * 3


def test_a_batmap_that_is_damaged_or_foreign():
    assert metadata(image(CASES["batmap checksum"]), "/x", UTC).endswith("failed to get batmap header\n")
    raw = dynamic()
    foreign = replace(structs.parse_footer(raw[:512]), creator_app=b"vpc ").sealed().encode()
    assert "Batmap" not in metadata(image(foreign + raw[512:-512] + foreign), "/x", UTC)
