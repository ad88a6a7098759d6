"""The targets: any bytes decode, any image is diagnosed, no plan breaks a promise. No atheris here."""

from __future__ import annotations

from dataclasses import dataclass

from matrix import mutants, reader
from matrix.mutants import Sparse
from smfix.errors import JournalDamaged
from smfix.formats.problem import Context, Parent
from smfix.formats.vhd import structs
from smfix.formats.vhd.image import inspect
from smfix.formats.vhd.problems.registry import PROBLEMS, diagnose
from smfix.repair import journal as journals
from smfix.repair.overlay import Overlay
from smfix.repair.plan import Planned, plan
from smfix.values import ByteView, Extent, InUse, Resize, Severity, Verdict

EVERY = frozenset(problem.code for problem in PROBLEMS)
BASES = 2000
"""Mutants that an image can begin as."""


def structures(data: bytes) -> None:
    """Any bytes decode; what was decoded encodes to the same bytes."""
    for length in (511, 512):
        structs.decode_footer(data[:length], 0)
    structs.decode_header(data[:1024], 512)
    if len(data) >= 512:
        assert structs.parse_footer(data).encode() == data[:512]
        assert structs.parse_batmap_header(data[:512]).encode() == data[:512]
        sealed = structs.parse_footer(data).sealed().encode()
        structs.decode_footer(sealed, 0)
    if len(data) >= 1024:
        header = structs.parse_header(data[:1024])
        assert header.encode() == data[:1024]
        structs.decode_header(header.sealed().encode(), 512)
        header.parent_name_text()
        for locator in header.locators:
            locator.decode_path(data[512:])


def journal(data: bytes) -> None:
    """Any bytes, and any body with a right checksum, are a journal or damaged; a journal survives encoding."""
    for raw in (data, journals.MAGIC + journals._digest(data) + b"\n" + data):
        try:
            read = journals.decode(raw)
        except JournalDamaged:
            continue
        assert journals.decode(journals.encode(read)) == read


# --------------------------------------------------------------------------- images from bytes


def sparse(data: bytes) -> Sparse:
    """The image that `data` describes: two bytes choose a mutant, then patches.

    A patch is: where to (one byte: a structure, or the size), how far from there (two bytes), how many bytes
    (one byte, at most 16), the bytes.
    """
    image = mutants.mutant(int.from_bytes(data[:2], "big") % BASES)
    at = 2
    while at + 4 <= len(data):
        where, distance, count = data[at], int.from_bytes(data[at + 1 : at + 3], "big"), data[at + 3] & 15
        piece = data[at + 4 : at + 5 + count]
        at += 5 + count
        places = (0, 512, 1536, 2048, 2560, 3072, image.size - 512, image.size - 4096)
        if where & 15 < len(places):
            spot = max(0, places[where & 15] + distance % 4096)
            if spot + len(piece) <= image.size + 4096:
                image.put(spot, piece)
        elif where & 15 == 8:
            image.cut(max(0, image.size - distance))
        elif where & 15 == 9:
            image.cut(image.size + distance)
        elif where & 15 == 10:
            reseal(image)
    return image


def reseal(image: Sparse) -> None:
    """Good checksums in footers and header: whoever changed them meant it."""
    for at in (0, image.size - 512):
        if at >= 0:
            image.put(at, mutants.seal(image.get(at, 512).ljust(512, b"\0"), 64)[: max(0, image.size - at)])
    if image.size >= 1536:
        image.put(512, mutants.seal(image.get(512, 1024), 36))


def context(data: bytes) -> Context:
    """Who holds it, and what stands where its parent should, by the last byte."""
    choice = data[-1] if data else 0
    parents = (None, Parent("parent.vhd", mutants.PARENT_UUID), Parent(None), Parent("parent.vhd", bytes(16)))
    uses = (InUse.NONE, InUse.NONE, InUse.UNKNOWN, InUse.READ_WRITE)
    return Context(structs.from_vhd_time(800_000_000), uses[choice >> 2 & 3], parents[choice & 3])


def image(data: bytes) -> None:
    """Any image is inspected and diagnosed, the same each time."""
    view, about = sparse(data), context(data)
    first, second = (diagnose(inspect(view), about) for _ in range(2))
    assert first == second
    assert first.verdict is not Verdict.VALID or not [f for f in first.findings if f.severity is Severity.ERROR]


def planned(data: bytes) -> None:
    """No plan shrinks, writes over the guest's data, or leaves work for a second run."""
    view, about = sparse(data), context(data)
    for consent in (frozenset[str](), EVERY):
        made = plan(view, about, consent)
        if made.plan.refusal is not None:
            continue
        if made.diagnosis.verdict is Verdict.VALID:
            assert not made.plan.edits
        after = Overlay(view, made.plan.edits)
        assert after.size >= view.size
        _grows(view, made)
        again = plan(after, about, consent)
        assert not again.plan.edits, ([f.code for f in made.plan.fixes], [f.code for f in again.plan.fixes])
        _reads_the_same(view, after, made)


def _grows(view: ByteView, made: Planned) -> None:
    size = view.size
    for edit in made.plan.edits:
        if isinstance(edit, Resize):
            assert edit.size >= size
        else:
            assert 0 <= edit.offset <= size
        size = max(size, edit.size if isinstance(edit, Resize) else edit.extent.end)


@dataclass
class _Raw:
    """A view as the independent reader wants it."""

    view: ByteView

    def __len__(self) -> int:
        return self.view.size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self.view.size)
        return self.view.read(Extent(start, max(0, stop - start)))


def _reads_the_same(before: ByteView, after: ByteView, made: Planned) -> None:
    """Sectors that could be read before read the same, but for blocks and sectors that were agreed to."""
    old, new = (reader.layout(_Raw(view)) for view in (before, after))
    if old is None:
        return
    assert new is not None, "nothing opens it any more"
    moved = {fix.facts.get("block") for fix in made.plan.fixes if fix.facts.get("entry") is not None}
    asked = any(fix.disposition.value == "CONFIRM" for fix in made.plan.fixes)
    if asked and (old.size, old.block_size, old.table_at) != (new.size, new.block_size, new.table_at):
        return  # another footer or header was agreed to: another disk
    assert old.size == new.size
    lost = [(extent.offset, extent.end) for extent in made.plan.lost]
    for block, at in old.allocated():
        if block in moved or (asked and new.bat[block] != at):
            continue
        for low, high in reader.written(old, _Raw(before), block, at):
            start, stop = block * old.block_size + low * 512, min(block * old.block_size + high * 512, old.size)
            place = at + old.bitmap_size + low * 512
            if place + stop - start > before.size or any(low < stop and start < end for low, end in lost):
                continue
            assert new.bat[block] == at, f"block {block} was moved"
            step = 1 << 16
            for shift in range(0, stop - start, step):
                part = Extent(place + shift, min(step, stop - start - shift))
                assert before.read(part) == after.read(part), f"block {block} was written over"


TARGETS = {"structs": structures, "journal": journal, "image": image, "plan": planned}
