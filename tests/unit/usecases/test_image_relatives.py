from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace

import pytest

from images import CONTEXT
from memory_image import MemoryImage
from smfix.errors import Unreadable
from smfix.formats.registry import parent_link
from smfix.formats.vhd.image import inspect
from smfix.formats.vhd.problems.registry import diagnose
from smfix.formats.vhd.structs import parse_footer, parse_header
from smfix.host.image_file import open_image
from smfix.sm.resolve import Found
from smfix.sm.sr_types import registry
from smfix.usecases import image_relatives
from smfix.values import Backing, Target
from world import BASE, LEAF, OTHER, make_world, uuid_of

THIRD = "0f2d7c55-8d0b-4c0e-b8a1-90a3f0b3a6de"


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


def found(path):
    return Found(Target(str(path), Backing.FILE))


def inspected(path):
    with open_image(found(path).target) as image:
        return inspect(image)


def chain(world):
    """THIRD -> LEAF -> BASE, the leaf of it first."""
    world.put(world.image(BASE), BASE)
    world.put(world.image(LEAF, parent=BASE), LEAF)
    return world.put(world.image(THIRD, parent=LEAF), THIRD)


def test_the_parent_is_what_stands_where_the_locators_point(world):
    path = chain(world)
    parent, above = image_relatives.parent_of(inspected(path), str(path))
    assert (parent.path, parent.uuid) == (str(world.path(LEAF)), uuid_of(LEAF))
    assert above.target.path == str(world.path(LEAF))
    assert image_relatives.parent_of(inspected(world.path(BASE)), str(world.path(BASE))) == (None, None)


@pytest.mark.parametrize("what", ["nothing", "folder", "link"])
def test_a_parent_that_cannot_be_opened_is_not_there(world, what):
    path = chain(world)
    world.path(LEAF).unlink()
    if what == "folder":
        world.path(LEAF).mkdir()
    elif what == "link":
        world.path(LEAF).symlink_to(world.path(BASE))
    parent, above = image_relatives.parent_of(inspected(path), str(path))
    assert (parent.path, parent.uuid, above) == (str(world.path(LEAF)), None, None)


def test_a_parent_without_a_sound_footer_has_no_uuid(world):
    path = chain(world)
    world.path(LEAF).write_bytes(b"x" * 4096)
    parent, above = image_relatives.parent_of(inspected(path), str(path))
    assert parent.uuid is None
    assert above is not None


def test_ancestors_nearest_first(world):
    path = chain(world)
    line = image_relatives.ancestors(inspected(path), found(path))
    assert [above.target.path for above in line] == [str(world.path(LEAF)), str(world.path(BASE))]


def test_a_loop_ends(world):
    world.put(world.image(BASE, parent=LEAF), BASE)
    path = world.put(world.image(LEAF, parent=BASE), LEAF)
    assert [above.target.vdi for above in image_relatives.ancestors(inspected(path), found(path))] == [BASE]


def test_a_long_chain_ends(world, monkeypatch):
    monkeypatch.setattr(image_relatives, "LONGEST", 1)
    path = chain(world)
    assert len(list(image_relatives.ancestors(inspected(path), found(path)))) == 1


@pytest.mark.parametrize("trouble", ["refused", "unreadable"])
def test_a_parent_that_goes_away_ends_the_walk(world, monkeypatch, trouble):
    path = chain(world)
    image = inspected(path)
    real = image_relatives.open_image
    calls = []

    def fickle(target, **options):
        calls.append(target.path)
        if len(calls) < 2:
            return real(target, **options)
        if trouble == "refused":
            world.path(LEAF).unlink()
            world.path(LEAF).mkdir()
            return real(target, **options)
        raise Unreadable("EIO")

    monkeypatch.setattr(image_relatives, "open_image", fickle)
    assert [above.target.vdi for above in image_relatives.ancestors(image, found(path))] == [LEAF]


def test_children_are_found_by_uuid(world):
    chain(world)
    world.put(world.image(OTHER), OTHER)
    world.put(b"x", "11111111-0000-4000-8000-000000000000")
    (world.sr / "folder.vhd").mkdir()
    os.mkfifo(world.sr / "fifo.vhd")
    path = world.path(BASE)
    with ExitStack() as stack:
        family = image_relatives.children_of(inspected(path), found(path), stack)
        assert [each for each, _ in family] == [str(world.path(LEAF))]
        assert family[0][1].bitmap(family[0][1].geometry, family[0][1].bat.value.offset(1))


def test_children_are_found_by_either_of_two_footers_that_disagree(world):
    chain(world)
    raw = world.path(BASE).read_bytes()
    wrong = replace(parse_footer(raw[-512:]), uuid=bytes(range(16))).sealed().encode()
    path = world.put(raw[:-512] + wrong, BASE)
    with ExitStack() as stack:
        assert [each for each, _ in image_relatives.children_of(inspected(path), found(path), stack)] == [
            str(world.path(LEAF))
        ]
    run = world.run("repair", path, "--yes", "--confirm", "VHD105")
    assert run.code == 1, run.out + run.err
    assert path.read_bytes() == raw


def test_children_are_found_by_name_where_no_footer_is_sound(world):
    chain(world)
    raw = world.path(BASE).read_bytes()
    path = world.put(b"x" * 512 + raw[512:-512] + b"x" * 512, BASE)
    with ExitStack() as stack:
        assert [each for each, _ in image_relatives.children_of(inspected(path), found(path), stack)] == [
            str(world.path(LEAF))
        ]


def test_children_are_bounded_and_trouble_is_skipped(world, monkeypatch):
    path = chain(world)
    base = world.path(BASE)
    image = inspected(base)
    with ExitStack() as stack, monkeypatch.context() as patched:
        patched.setattr(image_relatives, "MOST_CHILDREN", 0)
        assert image_relatives.children_of(image, found(base), stack) == ()
    with ExitStack() as stack, monkeypatch.context() as patched:
        patched.setattr(image_relatives, "open_image", lambda *_, **__: (_ for _ in ()).throw(Unreadable("EIO")))
        assert image_relatives.children_of(image, found(base), stack) == ()
    with ExitStack() as stack:
        assert image_relatives.children_of(image, Found(Target("/dev/x", Backing.BLOCK)), stack) == ()
        assert image_relatives.children_of(image, found("/nowhere/x.vhd"), stack) == ()
    assert path.exists()


def test_parents_come_first_and_else_the_order_stays(world):
    chain(world)
    world.put(world.image(OTHER), OTHER)
    order = [THIRD, OTHER, LEAF, BASE]
    founds = [found(world.path(vdi)) for vdi in order]
    assert [order[index] for index in image_relatives.parents_first(founds)] == [BASE, LEAF, THIRD, OTHER]
    assert image_relatives.parents_first([None, founds[1], None]) == [0, 1, 2]
    assert image_relatives.parents_first([]) == []


def test_parents_first_of_a_loop_has_each_once(world):
    world.put(world.image(BASE, parent=LEAF), BASE)
    world.put(world.image(LEAF, parent=BASE), LEAF)
    assert sorted(image_relatives.parents_first([found(world.path(BASE)), found(world.path(LEAF))])) == [0, 1]


def test_parents_first_of_what_cannot_be_read(world):
    world.path(BASE).mkdir()
    assert image_relatives.parents_first([found(world.path(BASE)), found(world.path(LEAF))]) == [0, 1]


def test_a_header_behind_the_end_is_none():
    footer = replace(parse_footer(bytes(512)), cookie=b"conectix", data_offset=1 << 40, type=3).sealed()
    assert parent_link(MemoryImage(footer.encode())) is None
    assert parent_link(MemoryImage(b"")) is None


def test_a_parents_backing_is_what_it_is_not_where_it_lies(tmp_path):
    (tmp_path / "disk.vhd").write_bytes(b"")
    assert registry.target_at(str(tmp_path / "disk.vhd")).backing is Backing.FILE
    assert registry.target_at("/dev/null").backing is Backing.FILE
    assert registry.target_at(str(tmp_path / "missing")).backing is Backing.FILE


def test_a_locator_that_leads_nowhere_is_told_beside_the_parent(world):
    path = world.put(world.image(LEAF, parent=BASE), LEAF)
    world.put(world.image(BASE), BASE)
    image = inspected(path)
    bent = replace(image, locators=(replace(image.locators[0], path=f"x/{BASE}.vhd"), *image.locators[1:]))
    parent, _ = image_relatives.parent_of(bent, str(path))
    assert parent is not None
    assert parent.astray == (f"x/{BASE}.vhd",)
    parent, _ = image_relatives.parent_of(image, str(path))
    assert parent is not None
    assert parent.astray == ()


def test_an_absolute_path_is_looked_for_beside_the_image_too(world):
    path = world.put(world.image(LEAF, parent=BASE), LEAF)
    world.put(world.image(BASE), BASE)
    image = inspected(path)
    bent = replace(image, locators=tuple(replace(each, path=f"/{BASE}.vhd") for each in image.locators))
    assert image_relatives.parent_places(bent, str(path)) == (str(path.parent / f"{BASE}.vhd"),)
    parent, _ = image_relatives.parent_of(bent, str(path))
    assert parent is not None
    assert parent.astray == ()


# --------------------------------------------------------------------------- relatives that deny a head


def head_of(world, donor, *, count=512):
    """BASE without its footer, its first `count` bytes those of the disk `donor`: a write that went astray."""
    raw = world.path(BASE).read_bytes()
    return world.put(world.path(donor).read_bytes()[:count] + raw[count:-512], BASE)


@pytest.mark.parametrize("count", [512, 4096])
def test_a_head_of_another_disk_is_not_believed(world, count):
    """Its child names this file with another UUID, and the disk beside it owns the UUID that the head has."""
    chain(world)
    world.put(world.image(OTHER), OTHER)
    path = head_of(world, OTHER, count=count)
    before = path.read_bytes()
    for consent in ((), ("--confirm", "VHD101")):
        outcome = world.run("repair", path, "--yes", "--json", *consent).json["images"][0]["outcome"]
        assert outcome["status"] == "refused", outcome
        assert f"its child {LEAF}.vhd names" in outcome["message"]
        assert f"{OTHER}.vhd is the disk with its UUID" in outcome["message"]
    assert path.read_bytes() == before
    checked = world.run("check", path, "--json").json["images"][0]
    assert [each["disposition"] for each in checked["findings"]] == ["REPORT"]


def test_the_owner_alone_denies_it(world):
    world.put(world.image(BASE), BASE)
    world.put(world.image(OTHER), OTHER)
    outcome = world.run("repair", head_of(world, OTHER), "--yes", "--json").json["images"][0]["outcome"]
    assert outcome["status"] == "refused"
    assert "with other content" in outcome["message"]


def without_name(header):
    return replace(header, parent_name=bytes(512))


def without_uuid(header):
    return replace(header, parent_uuid=bytes(16))


@pytest.mark.parametrize(
    ("name", "change"),
    [(f"{LEAF}.vhd", without_name), (f"{LEAF}.vhd", without_uuid), (f"{LEAF}.vhd.new", replace)],
    ids=["locators only", "null parent UUID", "a snapshot that has not its name yet"],
)
def test_a_child_denies_a_strangers_head_whatever_it_stores(world, name, change):
    world.put(world.image(OTHER), OTHER)
    world.put(world.image(BASE), BASE)
    path = head_of(world, OTHER)
    world.path(OTHER).unlink()
    child = bytearray(world.image(LEAF, parent=BASE))
    child[512:1536] = change(parse_header(bytes(child[512:1536]))).sealed().encode()
    path.with_name(name).write_bytes(child)
    outcome = world.run("repair", path, "--yes", "--json").json["images"][0]["outcome"]
    assert outcome["status"] == "refused", outcome
    assert f"its child {name} names" in outcome["message"]


@pytest.mark.parametrize("name", [f"OLD_{OTHER}.vhd", f"{OTHER}.vhd.new"])
def test_a_disk_owns_its_uuid_by_every_name_that_the_storage_manager_gives_it(world, name):
    world.put(world.image(OTHER), OTHER)
    world.put(world.image(BASE), BASE)
    path = head_of(world, OTHER)
    world.path(OTHER).rename(path.with_name(name))
    outcome = world.run("repair", path, "--yes", "--json").json["images"][0]["outcome"]
    assert outcome["status"] == "refused", outcome
    assert f"{name} is the disk with its UUID" in outcome["message"]


@pytest.mark.parametrize("name", [f"{BASE}.vhd.bak", "copy.vhd", f"{OTHER}.vhd"])
def test_a_copy_of_the_disk_is_noted_and_denies_nothing(world, name):
    path = world.damaged()
    path.with_name(name).write_bytes(path.read_bytes())
    outcome = world.run("repair", path, "--yes", "--json").json["images"][0]["outcome"]
    assert outcome["status"] == "repaired"
    assert f"It shares its UUID with {name}: a copy." in outcome["findings"][0]["message"]


def test_children_of_another_file_are_not_ours_whatever_uuid_a_guest_plants(world):
    """A footer in the tail with the UUID of a tenant's base copy makes the copy's children no witnesses."""
    chain(world)
    other = world.put(world.image(OTHER)[:-512] + bytes(512) + world.image(BASE)[-512:] + bytes(700), OTHER)
    with ExitStack() as stack:
        assert image_relatives.children_of(inspected(other), found(other), stack) == ()


def test_files_without_a_sound_footer_are_no_siblings(world):
    base = world.put(world.image(BASE), BASE)
    world.path(OTHER).write_bytes(b"short")
    with ExitStack() as stack:
        assert image_relatives.relatives_of(inspected(base), found(base), stack) == image_relatives.Relatives()


# --------------------------------------------------------------------------- places of parents


@pytest.mark.parametrize("named", ["/etc/shadow", "/dev/loop0", "./../../etc/shadow", "../other/{}.vhd"])
def test_a_locator_that_leads_out_of_the_sr_is_not_opened(world, monkeypatch, named):
    path = world.put(world.image(LEAF, parent=BASE), LEAF)
    world.put(world.image(BASE), BASE)
    asked: list[str] = []
    monkeypatch.setattr(image_relatives, "open_image", lambda target: asked.append(target.path))
    monkeypatch.setattr(image_relatives.os.path, "exists", lambda place: asked.append(place) or False)
    image = inspect(MemoryImage(path.read_bytes(), path=str(path)))
    bent = replace(image, locators=tuple(replace(each, path=named.format(BASE)) for each in image.locators))
    parent, above = image_relatives.parent_of(bent, str(path))
    assert (parent.path, parent.outside, above, asked) == (None, (named.format(BASE),), None, [])
    said = diagnose(bent, replace(CONTEXT, parent=parent)).findings
    assert any(f"{named.format(BASE)} is no place of its SR, and was not opened" in each.message for each in said)


def test_another_name_of_the_same_sr_is_a_place_of_it(world):
    path = world.put(world.image(LEAF, parent=BASE), LEAF)
    image = inspected(path)
    place = f"/var/run/sr-mount/{path.parent.name}/{BASE}.vhd"
    bent = replace(image, locators=tuple(replace(each, path=place) for each in image.locators))
    assert place in image_relatives.parent_places(bent, str(path))


def test_outside_of_every_sr_a_relative_path_is_followed(tmp_path, world):
    (tmp_path / "child").mkdir()
    path = tmp_path / "child" / "x.vhd"
    path.write_bytes(world.image(LEAF, parent=BASE))
    image = inspected(path)
    bent = replace(image, locators=tuple(replace(each, path="../parent/y.vhd") for each in image.locators))
    assert image_relatives.parent_places(bent, str(path)) == (str(tmp_path / "parent" / "y.vhd"),)
