"""`scan` at the command line, and what an operator adds where both footers are lost."""

from __future__ import annotations

import pytest

from smfix.formats.vhd import build
from smfix.values import uuid_text
from world import BASE, LEAF, OTHER, SIZE, SR, make_world, uuid_of


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


def test_scan_reads_every_sr_and_says_what_is_wrong(world):
    world.damaged()
    world.put(world.image(LEAF, parent=BASE), LEAF)
    before = world.path().read_bytes()
    run = world.run("scan")
    assert run.code == 4
    assert "VHD101 footer lost, backup footer sound" in run.out
    assert f"    {LEAF}  valid" in run.out
    assert not run.err
    assert world.path().read_bytes() == before
    assert f"{world.path()} --dry-run" in run.out.splitlines()[-1]
    for vdi in (OTHER, OTHER[::-1].replace("-", "")[:8] + OTHER[8:], "0badf00d" + OTHER[8:]):
        world.damaged(vdi)
    assert f"smfix repair {world.sr} --dry-run" in world.run("scan").out.splitlines()[-1]


def test_scan_json_matches_its_schema(world):
    world.put(world.image())
    run = world.run("scan", SR, "--json")
    assert run.code == 0
    (image,) = run.json["images"]
    assert (image["verdict"], image["virtual_size"], image["sr"]) == ("valid", SIZE, SR)


def test_scan_of_nothing_is_one_line(world):
    run = world.run("scan")
    assert run.code == 8
    assert run.err.startswith("smfix: no SR with a VHD below ")
    assert run.err.count("\n") == 1


def _without_footers(world, vdi=BASE, **options):
    raw = world.image(vdi, **options)
    world.put(bytes(512) + raw[512:-512], vdi)
    return raw


def test_both_footers_lost_asks_for_what_nothing_fixes(world):
    _without_footers(world)
    run = world.run("repair", str(world.path()), "--yes", "--confirm", "VHD106")
    assert run.code == 4
    assert "--uuid" in run.out
    assert "--size" in run.out
    asked = f"xe vdi-param-get uuid={BASE} param-name=virtual-size"
    assert asked in run.out
    told = world.run("repair", str(world.path()), "--json", "--size", str(SIZE)).json["images"][0]["outcome"]
    assert told["findings"][0]["facts"]["options"] == ["--uuid"]
    assert asked not in told["next"]


def test_both_footers_lost_are_rebuilt_from_what_the_operator_knows(world):
    raw = _without_footers(world)
    given = ["--size", str(SIZE), "--uuid", uuid_text(uuid_of(BASE))]
    refused = world.run("repair", str(world.path()), "--yes", *given, "--json").json["images"][0]["outcome"]
    assert refused["reason"] == "needs-confirm"
    assert f"--size {SIZE}" in refused["next"][0]
    assert f"--uuid {uuid_text(uuid_of(BASE))}" in refused["next"][0]
    run = world.run("repair", str(world.path()), "--yes", "--confirm", "VHD106", *given)
    assert run.code == 1, run.out + run.err
    assert world.path().read_bytes()[512:-512] == raw[512:-512]
    assert world.run("check", str(world.path())).code == 0


def test_a_size_may_have_a_unit(world):
    _without_footers(world)
    for given in (f"{SIZE >> 10}K", f"{SIZE >> 20}M", f"{SIZE >> 20}MiB", f"{SIZE >> 20}m"):
        told = world.run("repair", str(world.path()), "--json", "--size", given, "--uuid", uuid_text(uuid_of(BASE)))
        assert f"--size {SIZE} " in told.json["images"][0]["outcome"]["next"][0]
    for given in ("64MB", "1.5G", "", "-1", "64 X", "0x10"):
        run = world.run("repair", str(world.path()), f"--size={given}")
        assert (run.code, run.out) == (16, "")
        assert f"--size {given}: a whole number of bytes, or of K, M, G or T" in run.err


def test_both_footers_lost_are_rebuilt_from_a_child(world):
    raw = _without_footers(world, hidden=1)
    world.put(world.image(LEAF, parent=BASE), LEAF)
    run = world.run("repair", str(world.path()), "--yes", "--confirm", "VHD106")
    assert run.code == 1, run.out + run.err
    assert world.path().read_bytes() == raw
    assert build.footer_of(SIZE, build.DiskType.DYNAMIC, uuid_of(BASE), hidden=1).encode() == raw[-512:]


def test_a_uuid_that_is_none_is_a_usage_error(world):
    _without_footers(world)
    run = world.run("repair", str(world.path()), "--uuid", "nonsense")
    assert run.code == 16
    assert "--uuid nonsense" in run.err


def test_size_and_uuid_speak_of_one_disk(world):
    _without_footers(world)
    _without_footers(world, OTHER)
    run = world.run("repair", str(world.path()), str(world.path(OTHER)), "--size", str(SIZE))
    assert run.code == 16
    assert "one disk" in run.err
