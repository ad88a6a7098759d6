"""An SR type is added in one place: one class, one instance in SR_TYPES, and the whole program knows its images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from smfix.sm.sr_types import lvm_volumes
from smfix.sm.sr_types.base import Found, SrType
from smfix.sm.sr_types.registry import SR_TYPES
from smfix.values import Backing, Reason, Refusal, Target
from world import BASE, LEAF, SR, World, exception, make_world

POOL = "0f6b6c1e-8a53-4c1c-9d57-0a8f3d1f2b11"


class ShelfSr(SrType):
    """Images are ``<shelf>/<sr>/<vdi>.disk``; a closed one is ``<vdi>.disk.closed`` until it is opened."""

    name = "shelf"
    can_be_inactive = True

    def __init__(self, shelf: Path) -> None:
        self.shelf = shelf

    def keeps(self, target: Target) -> bool:
        return target.path.startswith(f"{self.shelf}/")

    def roots(self, mounts: Sequence[str]) -> Iterator[str]:
        yield from sorted(map(str, self.shelf.iterdir()))

    def root_of(self, sr: str, mounts: Sequence[str]) -> str | None:
        return str(self.shelf / sr) if (self.shelf / sr).is_dir() else None

    def holds_image(self, root: str) -> bool:
        return any(Path(root).iterdir())

    def images_in(self, folder: str) -> tuple[Found, ...] | None:
        if Path(folder).parent != self.shelf:
            return None
        return tuple(self.find("", Path(folder).name, ()))

    def find(self, ref: str, sr: str | None, mounts: Sequence[str]) -> Iterator[Found]:
        for path in sorted(self.shelf.glob(f"{sr or '*'}/{ref}*.disk*")):
            yield self._found(path)

    def patterns(self, ref: str, sr: str | None, mounts: Sequence[str]) -> Iterator[str]:
        yield f"{self.shelf}/{sr or '*'}/{ref}*.disk"

    def neighbours(self, target: Target, suffixes: tuple[str, ...]) -> list[Target]:
        others = sorted(Path(target.path).parent.glob("*.disk"))
        return [self._found(path).target for path in others if str(path) != target.path]

    def shared_storage(self, target: Target, resolved: str, proc: str) -> str | None:
        return "a lent shelf" if (Path(target.path).parent / "lent").exists() else None

    def is_without_node(self, target: Target) -> bool:
        return self.keeps(target) and not Path(target.path).exists()

    def inactive_refusal(self, target: Target) -> Refusal | None:
        return Refusal(Reason.POLICY, f"{target.path} is closed") if self.is_without_node(target) else None

    @contextmanager
    def active(self, target: Target, volumes: object) -> Iterator[Refusal | None]:
        path, closed = Path(target.path), Path(f"{target.path}.closed")
        was_closed = closed.exists()
        if was_closed:
            closed.rename(path)
        yield None
        if was_closed:
            path.rename(closed)

    def _found(self, path: Path) -> Found:
        path = path.with_name(path.name.removesuffix(".closed"))
        return Found(Target(str(path), Backing.FILE, path.stem, path.parent.name), str(path.parent))


@pytest.fixture
def world(tmp_path, capsys, monkeypatch) -> World:
    # Other tests make a volume group below /dev, which this SR type has nothing to do with.
    monkeypatch.setattr(lvm_volumes, "attached", lambda _sr=None: ())
    return make_world(tmp_path, capsys, monkeypatch)


@pytest.fixture
def shelf(world):
    """The SR of the new type, registered by one object."""
    folder = world.folder / "shelf" / POOL
    folder.mkdir(parents=True)
    new = ShelfSr(folder.parent)
    SR_TYPES.insert(0, new)
    yield folder
    SR_TYPES.remove(new)


def put(shelf: Path, raw: bytes, vdi: str = BASE, suffix: str = ".disk") -> Path:
    path = shelf / f"{vdi}{suffix}"
    path.write_bytes(raw)
    return path


def without_footer(raw: bytes) -> bytes:
    return raw[:-512]


def test_an_image_is_found_by_every_name_and_listed(world, shelf):
    path = put(shelf, world.image())
    for name in (BASE, BASE[:8], f"{POOL}/{BASE}", str(path), str(shelf)):
        (image,) = world.run("check", name, "--json").json["images"]
        assert (image["path"], image["verdict"]) == (str(path), "valid"), name
    for words in ([], [POOL], [str(shelf)]):
        (image,) = world.run("scan", *words, "--json").json["images"]
        assert (image["path"], image["vdi"], image["sr"]) == (str(path), BASE, POOL), words


def test_where_it_looks_is_part_of_the_message(world, shelf):
    assert f"{shelf.parent}/*/{LEAF}*.disk" in world.run("check", LEAF).out


def test_a_disk_that_a_log_names_is_repaired_and_undone(world, shelf):
    whole = world.image()
    path = put(shelf, without_footer(whole))
    log = world.smlog(exception())
    (incident,) = world.run("from-log", log, "--yes", "--json").json["incidents"]
    assert (incident["path"], incident["outcome"]["status"]) == (str(path), "repaired")
    assert path.read_bytes() == whole
    assert world.run("undo", incident["outcome"]["journal"], "--yes").code == 0
    assert path.read_bytes() == without_footer(whole)


def test_an_sr_that_other_hosts_use_too_is_refused(world, shelf):
    raw = without_footer(world.image())
    path = put(shelf, raw)
    (shelf / "lent").touch()
    (image,) = world.run("repair", BASE, "--yes", "--json").json["images"]
    assert (image["outcome"]["status"], image["outcome"]["reason"]) == ("refused", "shared-sr-unknown")
    assert "a lent shelf" in image["outcome"]["message"]
    assert path.read_bytes() == raw


def test_an_image_is_activated_for_the_time_of_a_repair(world, shelf):
    whole = world.image()
    closed = put(shelf, without_footer(whole), suffix=".disk.closed")
    (image,) = world.run("check", BASE, "--json").json["images"]
    assert (image["verdict"], image["note"]) == ("unreadable", f"{shelf}/{BASE}.disk is closed")
    (image,) = world.run("repair", BASE, "--yes", "--json").json["images"]
    assert image["outcome"]["status"] == "repaired"
    assert [each.name for each in shelf.iterdir()] == [closed.name]
    assert closed.read_bytes() == whole


def test_a_disk_that_is_in_two_types_of_sr_is_ambiguous(world, shelf):
    put(shelf, world.image())
    world.put(world.image())
    (image,) = world.run("repair", BASE, "--json").json["images"]
    assert image["outcome"]["status"] == "ambiguous"
    (image,) = world.run("check", f"{SR}/{BASE}", "--json").json["images"]
    assert image["path"] == str(world.path())
