"""The VHD format, as :class:`smfix.formats.base.ImageFormat` asks for it. Pure.

Modules that only a few commands need are imported when they are called: a run that finds no damage starts sooner.
"""

from __future__ import annotations

from collections.abc import Sequence

from smfix.formats.base import Change, ExternalCheck, NewImage, ParentLink, RawStructure, Shown
from smfix.formats.diagram import Diagram
from smfix.formats.problem import Context, Problem
from smfix.formats.vhd import structs
from smfix.formats.vhd.image import VhdImage, inspect
from smfix.formats.vhd.problems import registry
from smfix.formats.vhd.structs import FOOTER_SIZE, HEADER_SIZE
from smfix.values import SECTOR, ByteView, Diagnosis, Edit, Extent, Placed, Sound


class VhdFormat:
    """See :class:`smfix.formats.base.ImageFormat`."""

    name = "vhd"
    suffixes = (".vhd",)
    lv_prefix = "VHD-"

    @property
    def rows(self) -> tuple[Problem, ...]:
        """The problem table."""
        return registry.PROBLEMS

    def inspect(self, view: ByteView) -> VhdImage:
        """Read every structure of `view`."""
        return inspect(view)

    def is_recognised(self, image: VhdImage) -> bool:
        """Some structure carries its cookie."""
        return image.looks_like_vhd

    def diagnose(self, image: VhdImage, context: Context) -> Diagnosis:
        """Return every finding and the verdict."""
        return registry.diagnose(image, context)

    def prove(self, change: Change[VhdImage]) -> list[str]:
        """Return the reasons against the edits."""
        from smfix.formats.vhd.proof import violations

        return violations(
            change.before, change.after, change.edits, change.first, change.second, change.agreed, reread=change.reread
        )

    def reachable(self, before: VhdImage, after: VhdImage, edits: Sequence[Edit]) -> tuple[Placed, ...]:
        """Return the places that `edits` give the guest."""
        from smfix.formats.vhd.reachable import reachable

        return reachable(before, after, edits)

    def identity(self, view: ByteView) -> bytes | None:
        """Read the UUID of the footer that ``vhd_open`` would choose."""
        for at in (view.size - FOOTER_SIZE, 0):
            footer = structs.decode_footer(view.read(Extent(max(0, at), FOOTER_SIZE)), at)
            if isinstance(footer, Sound):
                return footer.value.uuid
        return None

    def parent_link(self, view: ByteView) -> ParentLink | None:
        """Read the header at the place that the backup footer names, or at its usual place."""
        backup = structs.decode_footer(view.read(Extent(0, FOOTER_SIZE)), 0)
        at = backup.value.data_offset if isinstance(backup, Sound) else FOOTER_SIZE
        if at > view.size:
            return None
        header = structs.decode_header(view.read(Extent(at, HEADER_SIZE)), at)
        if not isinstance(header, Sound):
            return None
        has_paths = any(locator.code for locator in header.value.locators)
        return ParentLink(header.value.parent_uuid, header.value.parent_name_text(), has_paths)

    def is_rival(self, image: VhdImage, other: VhdImage) -> bool:
        """`other` is another disk and no copy."""
        from smfix.formats.vhd.problems.witness import is_rival

        return is_rival(image, other)

    def external_check(self, path: str) -> ExternalCheck:
        """Return the call of ``vhd-util check``."""
        from smfix.formats.vhd.external_check import check

        return check(path)

    def show(self, image: VhdImage, view: ByteView, path: str) -> Shown:
        """Return the dump of ``vhd-util read -p``, and every field."""
        from smfix.formats.vhd import libvhd, metadata

        seen = libvhd.opened(view)
        return Shown(metadata.metadata(seen, path), metadata.notes(image, seen), metadata.fields(image))

    def structures(self, image: VhdImage) -> tuple[RawStructure, ...]:
        """Return both footers."""
        from smfix.formats.vhd.metadata import footers

        return footers(image)

    def read_guest(self, image: VhdImage, extent: Extent) -> dict[int, bytes]:
        """Return the sectors that the image holds."""
        from smfix.formats.vhd.guest import read_guest

        return read_guest(image, extent)

    def build(self, new: NewImage) -> bytes:
        """Make a dynamic or differencing disk, as libvhd and tapdisk lay it out."""
        from smfix.formats.vhd import build

        blocks: dict[int, dict[int, bytes]] = {}
        for number, data in new.sectors.items():
            block, index = divmod(number, structs.BLOCK_SIZE // SECTOR)
            blocks.setdefault(block, {})[index] = data
        above = None if new.parent is None else build.ParentRef(new.parent.uuid, new.parent.name or "", new.timestamp)
        made = build.sparse(new.size, new.uuid, blocks, parent=above, timestamp=new.timestamp, hidden=int(new.hidden))
        return made.to_bytes()

    def diagram(self, image: VhdImage) -> Diagram:
        """Return the layout of the file."""
        from smfix.formats.vhd.diagram import diagram

        return diagram(image)


VHD = VhdFormat()
