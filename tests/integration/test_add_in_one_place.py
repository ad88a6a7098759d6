"""Add it in one place: a toy row and a toy image format are seen through the whole program.

Each toy is registered by one line of its fixture; check, scan, explain, repair and undo then know it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest

from smfix.formats import registry
from smfix.formats.base import Change, ExternalCheck, NewImage, ParentLink, RawStructure, Shown
from smfix.formats.diagram import Diagram, Part, Piece
from smfix.formats.problem import ERROR, SAFE, Context, Detection, Problem, found
from smfix.formats.vhd import structs
from smfix.formats.vhd.image import VhdImage
from smfix.formats.vhd.problems import registry as vhd_registry
from smfix.values import ByteView, Diagnosis, Edit, Extent, Finding, Placed, Verdict, Write
from world import BASE, World, make_world


@pytest.fixture
def world(tmp_path, capsys, monkeypatch) -> World:
    return make_world(tmp_path, capsys, monkeypatch)


# --------------------------------------------------------------------------- a finding

TOY_SYSTEM = 0x544F5921


def _detect_system(image: VhdImage, _context: Context) -> Iterator[Detection]:
    if image.footer is not None and image.footer.creator_os == TOY_SYSTEM:
        yield Detection({"system": "TOY!"})


def _reset_system(image: VhdImage, _finding: Finding, _context: Context) -> tuple[Edit, ...]:
    assert image.footer is not None
    footer = replace(image.footer, creator_os=0).sealed().encode()
    return Write(0, footer), Write(image.size - len(footer), footer)


TOY_ROW = Problem(
    "VHD199",
    "creator is a toy",
    "The footer's creator OS is {system}.",
    ERROR,
    SAFE,
    _detect_system,
    fix=_reset_system,
    done="the creator OS was cleared",
    todo="clear the creator OS",
    means="Nothing is lost.",
    why="A toy wrote it.",
    source="this test",
)


@pytest.fixture
def toy_disk(world, monkeypatch):
    monkeypatch.setattr(vhd_registry, "PROBLEMS", (*vhd_registry.PROBLEMS, TOY_ROW))
    monkeypatch.setattr(vhd_registry, "_asked", vhd_registry._asked.__wrapped__)  # it remembers the rows
    raw = world.image()
    footer = replace(structs.parse_footer(raw[:512]), creator_os=TOY_SYSTEM).sealed().encode()
    return world.put(footer + raw[512:-512] + footer), raw


def test_a_finding_is_one_row(world, toy_disk):
    path, sound = toy_disk
    checked = world.run("check", path)
    assert checked.code == 4
    assert "VHD199" in checked.out
    assert "The footer's creator OS is TOY!." in checked.out
    assert "VHD199" in world.run("scan", world.sr).out
    explained = world.run("explain", "vhd199").out
    assert "creator is a toy" in explained
    assert "A toy wrote it." in explained
    assert "VHD199" in world.run("explain").out
    assert "clear the creator OS" in world.run("repair", path, "--dry-run").out
    repaired = world.run("repair", path, "--yes")
    assert repaired.code == 1
    assert "the creator OS was cleared" in repaired.out
    assert path.read_bytes() == sound
    assert world.run("check", path).code == 0


# --------------------------------------------------------------------------- a format

MAGIC = b"TOYIMAGE"
"""A toy image: the mark, 16 bytes of UUID, a byte that must be 1, and the guest's disk from byte 512."""


@dataclass(frozen=True)
class ToyImage:
    view: ByteView
    head: bytes
    format: str = "toy"
    allocated: int | None = None
    is_hidden: bool | None = False
    has_parent: bool = False
    parent_uuid: bytes | None = None
    parent_paths: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return self.view.size

    @property
    def end_of_data(self) -> int:
        return self.view.size

    @property
    def append_from(self) -> int | None:
        return self.view.size

    @property
    def virtual_size(self) -> int | None:
        return self.size - 512

    @property
    def uuid(self) -> bytes | None:
        return self.head[8:24]

    @property
    def uuids(self) -> frozenset[str]:
        return frozenset([self.head[8:24].hex()])

    @property
    def known_uuids(self) -> frozenset[bytes]:
        return frozenset([self.head[8:24]])


def _detect_seal(image: ToyImage, _context: Context) -> Iterator[Detection]:
    if image.head[24:25] != b"\1":
        yield Detection({"value": image.head[24]})


class ToyFormat:
    name = "toy"
    suffixes = (".toy",)
    lv_prefix = "TOY-"
    rows = (
        Problem(
            "TOY101",
            "toy seal broken",
            "The seal is {value}, not 1.",
            ERROR,
            SAFE,
            _detect_seal,
            fix=lambda _image, _finding, _context: (Write(24, b"\1"),),
            done="the seal was set",
            todo="set the seal",
            means="The toy cannot be opened.",
            why="A child broke it.",
            source="this test",
        ),
    )

    def inspect(self, view: ByteView) -> ToyImage:
        return ToyImage(view, view.read(Extent(0, 512)))

    def is_recognised(self, image: ToyImage) -> bool:
        return image.head.startswith(MAGIC)

    def diagnose(self, image: ToyImage, context: Context) -> Diagnosis:
        findings = tuple(found(row, seen) for row in self.rows for seen in row.detect(image, context))
        return Diagnosis(Verdict.INVALID if findings else Verdict.VALID, findings)

    def prove(self, change: Change[ToyImage]) -> list[str]:
        return [f"{one} is the guest's" for one in change.edits if not isinstance(one, Write) or one.extent.end > 512]

    def reachable(self, before: ToyImage, after: ToyImage, edits: Sequence[Edit]) -> tuple[Placed, ...]:
        return ()

    def identity(self, view: ByteView) -> bytes | None:
        return self.inspect(view).uuid

    def parent_link(self, view: ByteView) -> ParentLink | None:
        return None

    def is_rival(self, image: ToyImage, other: ToyImage) -> bool:
        return False

    def external_check(self, path: str) -> ExternalCheck:
        return ExternalCheck(("no-such-toy-check", path), 1.0, lambda _code, _output: None)

    def show(self, image: ToyImage, view: ByteView, path: str) -> Shown:
        return Shown(f"Toy: {image.head[8:24].hex()}\n", ("a toy has no parent",), {})

    def structures(self, image: ToyImage) -> tuple[RawStructure, ...]:
        return (RawStructure("Toy head", 0, image.head, True, True, False, None),)

    def diagram(self, image: ToyImage) -> Diagram:
        return Diagram(image.size, 512, image.size, None, (Piece(Part.HEADER, Extent(0, 512), "toy head"),))

    def read_guest(self, image: ToyImage, extent: Extent) -> dict[int, bytes]:
        raise NotImplementedError

    def build(self, new: NewImage) -> bytes:
        return (MAGIC + new.uuid + b"\1").ljust(512, b"\0") + bytes(new.size)


@pytest.fixture
def toy_format(monkeypatch) -> ToyFormat:
    toy = ToyFormat()
    monkeypatch.setitem(registry.FORMATS, toy.name, toy)
    return toy


def test_a_format_is_one_package(world, toy_format):
    path = world.sr / f"{BASE}.toy"
    sound = toy_format.build(NewImage(4096, bytes(range(16)), {}))
    path.write_bytes(sound)
    vhd = world.put(world.image())
    assert "valid" in world.run("check", path).out
    path.write_bytes(sound[:24] + b"\7" + sound[25:])
    checked = world.run("check", path, vhd)
    assert checked.code == 4
    assert "The seal is 7, not 1." in checked.out
    document = world.run("check", path, "--json").json
    assert [one["code"] for one in document["images"][0]["findings"]] == ["TOY101"]
    scanned = world.run("scan", world.sr)
    assert "TOY101" in scanned.out
    assert "2 images" in scanned.out
    assert "toy seal broken" in world.run("explain", "TOY101").out
    shown = world.run("show", path)
    assert (shown.out, shown.err) == ("Toy: 000102030405060708090a0b0c0d0e0f\n", "smfix: a toy has no parent\n")
    assert "toy head" in world.run("show", path, "--layout").out
    assert "Toy head:" in world.run("show", path, "--hex").out
    repaired = world.run("repair", path, "--yes", "--html", world.folder / "page.html")
    assert repaired.code == 1
    assert "the seal was set" in repaired.out
    assert path.read_bytes() == sound
    journal = next(iter(world.journals.iterdir())).name.split(".")[0]
    assert world.run("undo", journal, "--yes").code == 0
    assert path.read_bytes()[24:25] == b"\7"
    assert world.run("repair", vhd, "--yes").code == 0
