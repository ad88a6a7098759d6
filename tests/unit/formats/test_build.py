"""New images are what `vhd-util create` makes: valid to it, laid out alike, and they hold what was put in."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from guest import guest_data
from images import (
    CONTEXT,
    DISK_SIZE,
    PARENT_UUID,
    SECTORS,
    UUID,
    base,
    base_made,
    blocks_of_base,
    child,
    empty,
    fixed_disk,
    parent_disk,
    sector,
    seen,
    small,
    some,
)
from smfix.formats.vhd import build
from smfix.formats.vhd.build import fixed, sparse
from smfix.formats.vhd.problems.registry import diagnose
from smfix.formats.vhd.structs import BLOCK_SIZE
from smfix.values import Sound, Verdict

ALL = {
    "base": base,
    "small": small,
    "empty": empty,
    "child": child,
    "parent": parent_disk,
    "fixed": fixed_disk,
}


@pytest.mark.parametrize("name", ALL)
def test_what_is_made_is_valid_and_has_no_finding(name):
    found = diagnose(seen(ALL[name]()), CONTEXT)
    assert found.verdict is Verdict.VALID
    assert found.findings == ()


@pytest.mark.vhdutil
@pytest.mark.parametrize("name", ALL)
def test_vhd_util_agrees(tmp_path, vhd_util, name):
    (tmp_path / "parent.vhd").write_bytes(parent_disk())
    path = tmp_path / "disk.vhd"
    path.write_bytes(ALL[name]())
    done = subprocess.run([vhd_util, "check", "-n", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout == ("" if name == "fixed" else f"{path} is valid\n")


@pytest.mark.vhdutil
def test_vhd_util_reads_back_the_guests_data(tmp_path, vhd_util):
    path = tmp_path / "disk.vhd"
    path.write_bytes(base())
    for block, indexes in blocks_of_base().items():
        for index in [*indexes][:: max(1, len(indexes) // 5)]:
            number = block * SECTORS + index
            done = subprocess.run(
                [vhd_util, "read", "-n", path, "-r", str(number), "-c", "1"], capture_output=True, check=True
            )
            assert done.stdout == sector(block, index)


@pytest.mark.vhdutil
@pytest.mark.parametrize("mib", [2, 20, 4096, 8192, 8194, 100000])
def test_an_empty_disk_is_byte_for_byte_what_create_makes(tmp_path, vhd_util, mib):
    path = tmp_path / "disk.vhd"
    subprocess.run([vhd_util, "create", "-n", path, "-s", str(mib)], check=True, capture_output=True)
    theirs = path.read_bytes()
    there = seen(theirs).footer
    assert there is not None
    ours = sparse(mib << 20, there.uuid, {}, timestamp=there.timestamp).to_bytes()
    assert theirs[:-512] == ours[: len(theirs) - 512]
    assert theirs[-512:] == ours[-512:]
    # `create` leaves out the last sector of a batmap that is not a multiple of four kilobytes long; we do not.
    assert len(ours) - len(theirs) in (0, 512)


def test_the_guest_reads_what_was_put_in():
    wanted = {
        block * SECTORS + index: data for block, sectors in blocks_of_base().items() for index, data in sectors.items()
    }
    assert guest_data(base()) == wanted


def test_blocks_lie_in_the_order_they_were_given_with_their_data_on_pages():
    places = base_made().places
    assert [*places] == [2, 0]
    assert places[2] < places[0]
    assert all((at + 512) % 4096 == 0 for at in places.values())


def test_to_bytes_and_the_writes_are_the_same_image():
    made = base_made()
    raw = bytearray(made.size)
    for write in made.writes:
        assert write.extent.end <= made.size
        raw[write.offset : write.extent.end] = write.data
    assert bytes(raw) == made.to_bytes() == base()


def test_a_fixed_disk_begins_with_its_data():
    made = fixed(4096, UUID, b"hello")
    raw = made.to_bytes()
    assert len(raw) == 4096 + 512
    assert raw[:8] == b"hello\0\0\0"
    assert (made.header, made.places) == (None, {})
    assert fixed(4096, UUID).to_bytes()[:4096] == bytes(4096)
    assert isinstance(seen(raw).end, Sound)


def test_a_child_names_its_parent():
    header = seen(child()).geometry
    assert header is not None
    assert header.parent_uuid == PARENT_UUID
    assert header.parent_timestamp == 900
    assert header.parent_name_text() == "parent.vhd"
    assert [loc.path for loc in seen(child()).locators] == ["./parent.vhd"] * 3


def test_hidden_and_time():
    footer = sparse(BLOCK_SIZE, UUID, {}, hidden=1, timestamp=77).footer
    assert (footer.hidden, footer.timestamp, footer.original_size) == (1, 77, BLOCK_SIZE)


def test_a_bat_for_a_larger_disk():
    made = sparse(DISK_SIZE, UUID, {3: some(3, [5])}, bat_blocks=9000)
    assert made.header is not None
    assert made.header.max_bat_size == 9000
    assert diagnose(seen(made.to_bytes()), CONTEXT).verdict in (Verdict.VALID, Verdict.INVALID)
    assert guest_data(made.to_bytes()) == {3 * SECTORS + 5: sector(3, 5)}


def test_the_bat_is_big_endian_on_any_machine(monkeypatch):
    entries = sparse(2 * BLOCK_SIZE, UUID, {1: some(1, [0])})
    other = "big" if sys.byteorder == "little" else "little"
    monkeypatch.setattr(build, "sys", SimpleNamespace(byteorder=other))
    swapped = sparse(2 * BLOCK_SIZE, UUID, {1: some(1, [0])})
    at = 1536
    assert entries.to_bytes()[at + 4 : at + 8] == swapped.to_bytes()[at + 4 : at + 8][::-1]
