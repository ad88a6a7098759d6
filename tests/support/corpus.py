"""One image for every row of the problem table, and what comes with it.

A new row needs a recipe here: `test_problems_table.py` fails until it has one, and holds the recipe against
the real `vhd-util check` where that is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from images import (
    DISK_SIZE,
    MIB,
    NOW,
    PARENT_UUID,
    PARTIAL,
    SECTORS,
    UUID,
    base,
    base_made,
    bat_entry,
    child,
    empty,
    fixed_disk,
    header_of,
    lost_footer,
    put,
    qemu,
    rebatted,
    refooted,
    reheaded,
    small,
    some,
    with_entry,
)
from smfix.formats.problem import Context, Parent
from smfix.formats.vhd.build import sparse
from smfix.formats.vhd.image import MARK
from smfix.formats.vhd.structs import BLOCK_SIZE, POISON_COOKIE, UNUSED, ParentLocator, geometry_for, vhd_time
from smfix.values import SECTOR, InUse

FUTURE = vhd_time(NOW + timedelta(days=3650))
FOUND = Context(NOW, parent=Parent("parent.vhd", PARENT_UUID))
OTHER = Context(NOW, parent=Parent("parent.vhd", UUID))


@dataclass(frozen=True)
class Case:
    """An image, and the codes of all its findings in order.

    `line`: compare the first finding that has one with the first line of ``vhd-util check`` (False: it needs
    what only a context can say). `agrees`: so does the verdict.
    `parent`: the bytes of ``parent.vhd`` beside it (None: a sound one; empty: there is none).
    """

    raw: bytes
    codes: tuple[str, ...]
    context: Context = FOUND
    growable: bool = True
    line: bool = True
    agrees: bool = True
    parent: bytes | None = None


def unshaped() -> bytes:
    """The last block's entry lost, its bitmap overwritten: data lies where it marks nothing."""
    block = max((0, 2), key=lambda number: bat_entry(base(), number))
    lost = put(base(), bat_entry(base(), block) * 512, b"\xa5" * 512)
    return rebatted(with_entry(lost, block, UNUSED), bits=b"\0")


def fixed_behind() -> bytes:
    """A fixed disk with data between its end and the footer."""
    return fixed_disk()[:-512] + b"x" * 131072 + fixed_disk()[-512:]


def locators(*changed: ParentLocator) -> bytes:
    """The child with its first locators replaced."""
    old = header_of(child()).locators
    return reheaded(child(), locators=(*changed, *old[len(changed) :]))


def first_locator(**changes: int) -> bytes:
    """The child with fields of its first locator changed."""
    return locators(replace(header_of(child()).locators[0], **changes))


def moved_data(raw: bytes, index: int, data: bytes) -> bytes:
    """The child with `data` where locator `index` has its own."""
    return put(raw, header_of(raw).locators[index].data_offset, data)


def without_block(raw: bytes, block: int) -> bytes:
    """`raw` with an empty BAT entry for `block`."""
    return with_entry(raw, block, UNUSED)


def unsealed_header(**changes: object) -> bytes:
    """The base disk with a header whose checksum is that of before."""
    return put(base(), 512, replace(header_of(base()), **changes).encode())  # type: ignore[arg-type]


def end_in_block() -> bytes:
    """Cut in the middle of the last block, behind its first ten sectors of data: full, so the rest is lost."""
    return base()[: base_made().places[0] + SECTOR + 10 * SECTOR]


def marked_block() -> bytes:
    """The footer is gone and the mark lies on the last sector of the last block, which is written."""
    return put(lost_footer(base()), -SECTOR, MARK)


def fresh_8194() -> bytes:
    """As ``vhd-util create -s 8194`` leaves it: the batmap's last sector is under the footer."""
    raw = sparse(8194 * MIB, UUID, {}, timestamp=1000).to_bytes()
    return raw[: -2 * SECTOR] + raw[-SECTOR:]


def batmap_too_small() -> bytes:
    """The batmap has bits for the disk, not for every BAT entry."""
    raw = sparse(DISK_SIZE, UUID, {1: some(1, PARTIAL)}, bat_blocks=9000, timestamp=1000).to_bytes()
    return rebatted(raw, sectors=2)


def set_back() -> bytes:
    """Both footers give the disk half its size."""
    return refooted(base(), current_size=2 * BLOCK_SIZE, geometry=geometry_for(2 * BLOCK_SIZE))


def one_free_block() -> bytes:
    """A disk of two blocks, both written, the second one's entry lost."""
    blocks = {0: some(0, PARTIAL), 1: some(1, range(SECTORS))}
    return without_block(sparse(2 * BLOCK_SIZE, UUID, blocks, timestamp=1000).to_bytes(), 1)


CASES: dict[str, Callable[[], Case]] = {
    "VHD901": lambda: Case(lost_footer(base()), ("VHD901",), Context(NOW, InUse.READ_WRITE), line=False, agrees=False),
    "VHD102": lambda: Case(base() + b"\0" * 100, ("VHD102", "VHD103")),
    "VHD107": lambda: Case(refooted(base(), cookie=POISON_COOKIE), ("VHD107",)),
    "VHD108": lambda: Case(marked_block(), ("VHD108", "VHD101")),
    "VHD103": lambda: Case(base() + bytes(4096), ("VHD103",)),
    "VHD101": lambda: Case(lost_footer(base()), ("VHD101",)),
    "VHD109": lambda: Case(refooted(base(), features=0), ("VHD109",)),
    "VHD110": lambda: Case(refooted(base(), features=0x12), ("VHD110",)),
    "VHD111": lambda: Case(refooted(base(), version=0x00020000), ("VHD111",)),
    "VHD112": lambda: Case(refooted(fixed_disk(), where="end", data_offset=512), ("VHD112",)),
    "VHD902": lambda: Case(refooted(base(), timestamp=FUTURE), ("VHD902",)),
    "VHD113": lambda: Case(refooted(base(), creator_version=0x00010004), ("VHD113",)),
    "VHD904": lambda: Case(refooted(base(), geometry=0xFFFF10FF), ("VHD904",)),
    "VHD115": lambda: Case(refooted(fixed_disk(), where="end", type=1), ("VHD115",)),
    "VHD116": lambda: Case(refooted(base(), saved=7), ("VHD116",)),
    "VHD117": lambda: Case(refooted(base(), hidden=2), ("VHD117",)),
    "VHD118": lambda: Case(refooted(base(), reserved=bytes(20) + b"\1" + bytes(405)), ("VHD118",)),
    "VHD119": lambda: Case(refooted(base(), uuid=bytes(16)), ("VHD119",)),
    "VHD120": lambda: Case(put(fixed_disk(), -512, b"\0"), ("VHD120",)),
    "VHD308": lambda: Case(fixed_disk()[:1024] + fixed_disk()[-512:], ("VHD308",), line=False, agrees=False),
    "VHD309": lambda: Case(fixed_behind(), ("VHD309",)),
    "VHD106": lambda: Case(put(lost_footer(base()), 0, bytes(512)), ("VHD106",)),
    "VHD104": lambda: Case(put(base(), 0, bytes(512)), ("VHD104",)),
    "VHD105": lambda: Case(refooted(base(), where="backup", hidden=1), ("VHD105",)),
    "VHD201": lambda: Case(unsealed_header(version=5), ("VHD201",)),
    "VHD202": lambda: Case(reheaded(base(), version=0x00010001), ("VHD202",)),
    "VHD203": lambda: Case(reheaded(base(), data_offset=512), ("VHD203",)),
    "VHD204": lambda: Case(reheaded(base(), table_offset=1 << 40), ("VHD204", "VHD212", "VHD305", "VHD401")),
    "VHD205": lambda: Case(reheaded(qemu(), block_size=3 << 19), ("VHD205",)),
    "VHD206": lambda: Case(reheaded(base(), reserved1=9), ("VHD206",)),
    "VHD207": lambda: Case(reheaded(empty(), block_size=4 << 20), ("VHD207", "VHD212"), line=False),
    "VHD208": lambda: Case(first_locator(code=77), ("VHD208",), line=False),
    "VHD211": lambda: Case(refooted(base(), creator_version=1), ("VHD211",), line=False),
    "VHD903": lambda: Case(reheaded(child(), parent_timestamp=FUTURE), ("VHD903",)),
    "VHD210": lambda: Case(reheaded(child(), parent_name=b"\xd8\x00" + bytes(510)), ("VHD210",)),
    "VHD209": lambda: Case(reheaded(base(), parent_uuid=PARENT_UUID), ("VHD209",)),
    "VHD305": lambda: Case(reheaded(base(), max_bat_size=3), ("VHD305",)),
    "VHD212": lambda: Case(reheaded(base(), block_size=1 << 20), ("VHD212", "VHD305"), line=False, agrees=False),
    "VHD307": lambda: Case(set_back(), ("VHD307", "VHD304"), agrees=False),
    "VHD301": lambda: Case(end_in_block(), ("VHD101", "VHD301")),
    "VHD302": lambda: Case(with_entry(base(), 0, 1), ("VHD302",)),
    "VHD306": lambda: Case(with_entry(base(), 2, bat_entry(base(), 2) + 1), ("VHD306",), agrees=False),
    "VHD303": lambda: Case(with_entry(base(), 3, bat_entry(base(), 2)), ("VHD303",)),
    "VHD304": lambda: Case(one_free_block(), ("VHD304",)),
    "VHD310": lambda: Case(unshaped(), ("VHD310",)),
    "VHD401": lambda: Case(rebatted(base(), checksum=1), ("VHD401",)),
    "VHD403": lambda: Case(batmap_too_small(), ("VHD403",)),
    "VHD905": lambda: Case(fresh_8194(), ("VHD905",)),
    "VHD404": lambda: Case(rebatted(base(), bits=b"\x90"), ("VHD404",)),
    "VHD402": lambda: Case(rebatted(base(), bits=b"\xa0"), ("VHD402",)),
    "VHD502": lambda: Case(first_locator(data_offset=0), ("VHD502",)),
    "VHD503": lambda: Case(locators(*(header_of(child()).locators[0],) * 2), ("VHD503",)),
    "VHD504": lambda: Case(moved_data(child(), 0, b"http://x"), ("VHD504",)),
    "VHD505": lambda: Case(moved_data(child(), 0, b"file://./PARENT.vhd"), ("VHD505",)),
    "VHD501": lambda: Case(child(), ("VHD501",), Context(NOW, parent=Parent(None)), parent=b""),
    "VHD506": lambda: Case(
        child(), ("VHD506",), Context(NOW, parent=Parent("parent.vhd", UUID)), line=False, parent=small()
    ),
    "VHD507": lambda: Case(
        moved_data(child(), 0, b"file://x/parent.vhd"),
        ("VHD507",),
        Context(NOW, parent=Parent("parent.vhd", PARENT_UUID, ("x/parent.vhd",))),
    ),
}
"""The first case of every row: the finding of that code is among its codes."""
