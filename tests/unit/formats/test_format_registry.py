"""The registry of formats, and the few answers of VHD that need no whole image."""

from __future__ import annotations

from dataclasses import replace

from images import CONTEXT, base, child, lost_footer, put, seen
from memory_image import MemoryImage
from smfix.formats import registry
from smfix.formats.base import Change
from smfix.formats.vhd import structs
from smfix.formats.vhd.format import VHD
from smfix.formats.vhd.image import VhdImage
from smfix.values import Verdict


class Other(VhdImage):
    """A VHD that calls itself another format."""

    @property
    def format(self) -> str:
        return "other"


def other(image: VhdImage) -> Other:
    return Other(*(getattr(image, name) for name in VhdImage.__slots__))


def test_an_image_that_no_format_recognises_is_read_by_the_first():
    image = registry.inspect(MemoryImage(b"neither"))
    assert image.format == "vhd"
    assert registry.diagnose(image, CONTEXT).verdict is Verdict.NOT_A_VHD


def test_edits_that_change_the_format_are_never_proved():
    before = seen(base())
    seen_now = VHD.diagnose(before, CONTEXT)
    (why,) = registry.prove(Change(before, other(before), (), seen_now, seen_now))
    assert why == "the image would be read as other, not as vhd"
    assert registry.prove(Change(before, before, (), seen_now, seen_now)) == []
    assert registry.reachable(before, other(before), ()) == ()
    assert registry.reachable(before, before, ()) == ()


def test_a_row_is_found_by_its_code_in_any_case():
    row = registry.row("vhd101")
    assert row is not None
    assert row.code == "VHD101"
    assert registry.row("TOY101") is None


def test_the_uuid_is_that_of_the_footer_that_the_image_is_read_by():
    raw = base()
    assert VHD.identity(MemoryImage(raw)) == seen(raw).uuid
    assert VHD.identity(MemoryImage(lost_footer(raw))) == seen(raw).uuid
    assert VHD.identity(MemoryImage(put(lost_footer(raw), 0, bytes(512)))) is None


def test_the_parent_is_read_from_a_sound_header_only():
    link = VHD.parent_link(MemoryImage(child()))
    assert link is not None
    assert (link.uuid, link.name, link.has_paths) == (seen(child()).parent_uuid, "parent.vhd", True)
    assert VHD.parent_link(MemoryImage(put(child(), 512, b"x"))) is None
    astray = replace(structs.parse_footer(child()[:512]), data_offset=1 << 40).sealed().encode()
    assert VHD.parent_link(MemoryImage(put(child(), 0, astray))) is None


def test_a_disk_with_other_blocks_is_a_rival_and_a_copy_is_none():
    assert VHD.is_rival(seen(base()), seen(child()))
    assert not VHD.is_rival(seen(base()), seen(base()))


def test_the_footers_and_the_layout():
    image = seen(base())
    assert [one.is_sound for one in VHD.structures(image)] == [True, True]
    assert VHD.diagram(image).size == image.size
