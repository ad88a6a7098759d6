"""Every later release undoes what an earlier one wrote: a committed journal of each format, byte for byte.

Only the identity of the image (where it lies, its inode) is put in, for that cannot be committed; and the sum over it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re

import pytest
from test_journal import PLAIN

from smfix.repair.journal import FORMAT, MAGIC, decode, encode
from world import BASE, ROOT, SR, make_world

FIXTURES = ROOT / "fixtures" / "journals"
FORMATS = sorted(int(path.name) for path in FIXTURES.iterdir())


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


def content(number: int, name: str) -> bytes:
    return gzip.decompress((FIXTURES / str(number) / name).read_bytes())


def committed(number: int):
    (path,) = (FIXTURES / str(number)).glob("*.verified")
    return path


def installed(world, number: int, mark: str) -> str:
    """The image as the repair left it, and its journal; the journal's id."""
    path = world.put(content(number, "after.vhd.gz"))
    status = os.stat(path)
    head, _, body = committed(number).read_bytes().split(b"\n", 2)
    known = json.loads(body)
    assert (known["vdi"], known["sr"]) == (BASE, SR)
    known.update(path=str(path), sr_root=str(world.sr), device=status.st_dev, inode=status.st_ino)
    if number > 1:
        known.update(birth=None, generation=None)
    body = json.dumps(known).encode()
    world.journals.mkdir(mode=0o700)
    file = world.journals / f"{known['id']}.{mark}"
    file.write_bytes(b"\n".join((head, hashlib.sha256(head + b"\n" + body).hexdigest().encode(), body)))
    file.chmod(0o600)
    return known["id"]


def test_there_is_a_journal_of_every_format():
    assert list(range(1, FORMAT + 1)) == FORMATS
    assert encode(PLAIN).startswith(MAGIC)
    assert f"smfix-journal {FORMAT}\n".encode() == MAGIC


@pytest.mark.parametrize("number", FORMATS)
def test_it_is_read_as_it_was_committed(number):
    journal = decode(committed(number).read_bytes())
    assert committed(number).name == f"{journal.id}.verified"
    assert (journal.old_size, journal.new_size) == (
        len(content(number, "before.vhd.gz")),
        len(content(number, "after.vhd.gz")),
    )


@pytest.mark.parametrize("number", FORMATS)
@pytest.mark.parametrize("mark", ["verified", "undoing", "unfinished"])
def test_it_is_undone_byte_for_byte(world, number, mark):
    name = installed(world, number, mark)
    if number == 1:
        # It does not keep what the repair made readable: nothing proves that no guest has written there since.
        run = world.run("undo", name, "--yes", "--json")
        assert (run.code, run.json["outcome"]["reason"]) == (4, "stale")
        assert world.path().read_bytes() == content(number, "after.vhd.gz")
    consent = ["--confirm", "UNDO-NEWER"] if number == 1 else []
    run = world.run("undo", name, "--yes", "--json", *consent)
    assert (run.code, run.json["outcome"]["status"]) == (0, "rolled-back")
    assert world.path().read_bytes() == content(number, "before.vhd.gz")


def test_a_format_that_keeps_what_became_readable_proves_it(world):
    """The fixture's repair gave a block back to the guest: a byte that the guest writes there is not taken along."""
    name = installed(world, 2, "verified")
    raw = bytearray(content(2, "after.vhd.gz"))
    ((at, _),) = json.loads(committed(2).read_bytes().split(b"\n", 2)[2])["reach"]["extents"]
    raw[at + 100_000] ^= 1
    world.put(bytes(raw))
    run = world.run("undo", name, "--yes", "--json")
    assert (run.code, run.json["outcome"]["reason"]) == (4, "stale")
    assert "guest bytes 6,291,456 to 8,388,607" in run.json["outcome"]["message"]
    assert world.path().read_bytes() == raw


def newer(world) -> str:
    name = installed(world, 1, "verified")
    file = world.journals / f"{name}.verified"
    file.write_bytes(re.sub(rb"\A[^\n]+", b"smfix-journal 7", file.read_bytes()))
    return name


def test_a_newer_format_is_refused_in_one_line(world):
    name = newer(world)
    run = world.run("undo", name, "--yes")
    assert run.code == 8
    (line,) = run.err.splitlines()
    assert line.startswith("smfix: journal ")
    assert "is not for this smfix: its format is 7, this smfix knows formats up to 2" in line
    assert world.path().read_bytes() == content(1, "after.vhd.gz")
    (entry,) = world.run("journal", "--json").json["journals"]
    assert "format is 7" in entry["damage"]


def test_a_newer_format_is_never_pruned(world):
    newer(world)
    (entry,) = world.run("journal", "prune", "--older-than", "0s", "--yes", "--json").json["journals"]
    assert (entry["action"], entry["reason"]) == ("kept", "unreadable")
