"""A log that is written to, rotated in every way, and read by somebody who is stopped now and then."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smfix.errors import Unreadable
from smfix.smlog.inputs import tail as follow
from smfix.smlog.inputs.rotation import siblings
from smfix.smlog.inputs.tail import Tail

PACKERS = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}


class Host:
    """Writes a log, rotates it, and knows which lines are still in some file."""

    def __init__(self, folder):
        self.log = os.path.join(folder, "SMlog")
        self.numbers = count(1000)
        self.written = []
        self.gone = set()
        self.open = None
        self.partial = ""

    def line(self):
        return f"Nov 22 23:00:{next(self.numbers) % 60:02d} host SM: [1] line {next(self.numbers)} of this log\n"

    def append(self, data):
        with open(self.log, "ab") as file:
            file.write(data.encode())

    def write(self, lines=1):
        for _ in range(lines):
            whole = self.partial or self.line()
            if not self.partial:
                self.append(whole)
            else:
                self.append(whole[-7:])
                self.partial = ""
            self.written.append(whole)

    def write_half(self):
        if not self.partial:
            self.partial = self.line()
            self.append(self.partial[:-7])

    def finish_line(self):
        if self.partial:
            self.write()

    def shift(self):
        """Every rotated file becomes one older."""
        for one in reversed(siblings(self.log)):
            number, _ = one.age
            if number:
                ending = os.path.basename(one.path).split(".", 2)[2:]
                os.rename(one.path, ".".join([f"{self.log}.{number + 1}", *ending]))

    def rename(self):
        self.finish_line()
        if os.path.exists(self.log):
            self.shift()
            os.rename(self.log, f"{self.log}.1")

    def copy_and_cut(self):
        self.finish_line()
        if os.path.exists(self.log):
            self.shift()
            shutil.copyfile(self.log, f"{self.log}.1")
            os.truncate(self.log, 0)

    def pack(self, how):
        for one in siblings(self.log):
            if one.age[0] and one.path.count(".") == self.log.count(".") + 1:
                with open(one.path, "rb") as plain, PACKERS[how](f"{one.path}.{how}", "wb") as packed:
                    packed.write(plain.read())
                os.unlink(one.path)


def read_all(tail):
    lines = []
    while chunk := tail.read():
        assert chunk.data
        lines += chunk.data.decode().splitlines(keepends=True)
    return lines


def restarted(tail):
    tail.close()
    return Tail(tail.path, tail.position)


STEPS = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 40)),
    st.just(("half", 0)),
    st.just(("rename", 0)),
    st.just(("cut", 0)),
    st.tuples(st.just("pack"), st.sampled_from(sorted(PACKERS))),
    st.just(("read", 0)),
    st.just(("restart", 0)),
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=25))
def test_every_line_that_a_file_still_holds_is_read_once_and_in_order(tmp_path_factory, steps):
    host = Host(str(tmp_path_factory.mktemp("log")))
    host.write(3)
    tail = Tail(host.log)
    got = []
    for step, what in [*steps, ("read", 0)]:
        if step == "write":
            host.write(what)
        elif step == "half":
            host.write_half()
        elif step == "rename":
            host.rename()
        elif step == "cut":
            host.copy_and_cut()
        elif step == "pack":
            host.pack(what)
        elif step == "read":
            got += read_all(tail)
        else:
            tail = restarted(tail)
    host.write(2)
    got += read_all(tail)
    tail.close()
    assert got == host.written
    assert tail.position.gaps == 0
    assert tail.notes == []


def test_several_rotations_while_nobody_reads_are_read_in_order(tmp_path):
    host = Host(str(tmp_path))
    host.write(5)
    tail = Tail(host.log)
    assert len(read_all(tail)) == 5
    tail.close()
    for how in ("gz", "bz2", "xz"):
        host.write(30)
        host.rename()
        host.pack(how)
    host.write(3)
    tail = Tail(host.log, tail.position)
    assert read_all(tail) == host.written[5:]
    tail.close()


def test_the_old_file_is_read_to_its_end_when_its_writer_goes_on(tmp_path):
    host = Host(str(tmp_path))
    host.write(2)
    tail = Tail(host.log)
    read_all(tail)
    with open(host.log, "ab") as held:
        host.rename()
        last = host.line()
        held.write(last.encode())
        held.flush()
        assert read_all(tail) == [last]
        open(host.log, "wb").close()  # created, and nobody has written to it yet
        more = host.line()
        held.write(more.encode())
        held.flush()
        assert read_all(tail) == [more]
        unended = host.line().rstrip("\n")
        held.write(unended.encode())
    host.append("new\n")
    assert read_all(tail) == [unended, "new\n"]
    tail.close()


def test_a_deleted_log_is_read_to_its_end_and_the_new_one_after_it(tmp_path):
    host = Host(str(tmp_path))
    host.write(2)
    tail = Tail(host.log)
    assert len(read_all(tail)) == 2
    with open(host.log, "ab") as held:
        os.unlink(host.log)
        last = host.line()
        held.write(last.encode())
    assert read_all(tail) == [last]
    assert read_all(tail) == []
    host.append("new\n")
    assert read_all(tail) == ["new\n"]
    assert tail.position.gaps == 0
    tail.close()


def test_what_is_deleted_while_nobody_reads_is_counted_and_said(tmp_path):
    host = Host(str(tmp_path))
    host.write(4)
    tail = Tail(host.log)
    read_all(tail)
    tail.close()
    os.unlink(host.log)
    host.append("new\n")
    tail = Tail(host.log, tail.position)
    assert read_all(tail) == ["new\n"]
    assert tail.position.gaps == 1
    assert "is deleted or cut off" in tail.notes[0]
    tail.close()


def test_a_log_that_was_cut_off_without_a_copy_is_read_from_its_beginning(tmp_path):
    host = Host(str(tmp_path))
    host.write(4)
    tail = Tail(host.log)
    read_all(tail)
    os.truncate(host.log, 0)
    for number in range(30):  # longer than before: the size alone does not tell
        host.append(f"after the cut {number}\n")
    got = read_all(tail)
    assert got == [f"after the cut {number}\n" for number in range(30)]
    assert tail.position.gaps == 1
    assert "deleted or cut off" in tail.notes[0]
    tail.close()


def test_a_log_that_comes_late_is_read_from_its_beginning(tmp_path):
    host = Host(str(tmp_path))
    tail = Tail(host.log)
    assert tail.read() is None
    assert tail.unread() == 0
    assert tail.context(100) == []
    host.write(3)
    assert read_all(tail) == host.written
    tail.close()


def test_at_its_end_only_new_lines_are_read(tmp_path):
    host = Host(str(tmp_path))
    host.write(3)
    tail = Tail(host.log, at_end=True)
    host.write(2)
    chunk = tail.read()
    assert chunk.data.decode().splitlines(keepends=True) == host.written[3:]
    assert chunk.first_line == 4
    tail.close()


def test_older_files_are_not_read_the_first_time(tmp_path):
    host = Host(str(tmp_path))
    host.write(3)
    host.rename()
    host.write(2)
    tail = Tail(host.log)
    assert read_all(tail) == host.written[3:]
    tail.close()


def test_a_partial_line_waits_for_its_end_and_a_long_one_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(follow, "CHUNK", 100)
    log = tmp_path / "SMlog"
    log.write_bytes(b"half a line")
    tail = Tail(str(log))
    assert tail.read() is None
    with log.open("ab") as file:
        file.write(b", whole now\n" + b"x" * 250 + b"\nend\n")
    got = []
    while chunk := tail.read():
        got.append(chunk.data)
    assert b"".join(got) == b"half a line, whole now\n" + b"x" * 250 + b"\nend\n"
    assert max(map(len, got)) <= 100
    tail.close()


def test_the_context_reaches_into_the_file_before(tmp_path):
    host = Host(str(tmp_path))
    host.write(50)
    host.rename()
    host.pack("gz")
    host.write(2)
    tail = Tail(host.log)
    read_all(tail)
    chunks = tail.context(1000)
    text = b"".join(chunk.data for chunk in chunks).decode()
    assert "".join(host.written).endswith(text)
    assert 800 < len(text) <= 1000
    first, second = chunks
    assert (first.file, second.file) == (f"{host.log}.1.gz", host.log)
    assert first.first_line + first.data.count(b"\n") == 51
    assert second.first_line == 1
    short = tail.context(70)
    assert short[0].first_line == 2
    tail.close()


def test_a_damaged_package_is_said_and_the_rest_is_read(tmp_path):
    host = Host(str(tmp_path))
    host.write(3)
    tail = Tail(host.log)
    read_all(tail)
    tail.close()
    host.write(2000)
    host.rename()
    host.pack("gz")
    packed = f"{host.log}.1.gz"
    os.truncate(packed, os.path.getsize(packed) // 2)
    host.write(2)
    tail = Tail(host.log, tail.position)
    got = read_all(tail)
    assert got[-2:] == host.written[-2:]
    whole = [line for line in got if line.endswith("\n")]
    assert whole[:-2] == host.written[3 : 3 + len(whole) - 2]
    assert tail.position.gaps == 1
    tail.close()


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_what_is_no_file_is_not_followed(tmp_path, kind):
    log = tmp_path / "SMlog"
    log.mkdir() if kind == "folder" else os.mkfifo(log)
    with pytest.raises(Unreadable, match="not a file"):
        Tail(str(log))


def test_storage_that_stumbles_is_tried_again_from_the_same_place(tmp_path, monkeypatch):
    host = Host(str(tmp_path))
    host.write(3)
    tail = Tail(host.log)
    assert len(read_all(tail)) == 3
    host.write(2)
    real = os.pread

    def stale(*_args):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr("smfix.smlog.inputs.rotation.os.pread", stale)
    assert tail.read() is None
    assert tail.read() is None
    assert tail.position.mark is not None
    monkeypatch.setattr("smfix.smlog.inputs.rotation.os.pread", real)
    assert read_all(tail) == host.written[3:]
    assert [note for note in tail.notes if "Stale" in note] == tail.notes
    assert len(tail.notes) == 1
    tail.close()


def test_unread_counts_what_newer_files_hold(tmp_path):
    host = Host(str(tmp_path))
    host.write(2)
    tail = Tail(host.log)
    read_all(tail)
    assert tail.unread() == 0
    host.write(2)
    host.rename()
    host.write(1)
    assert tail.unread() == sum(map(len, host.written[2:]))
    assert tail.file == host.log  # as it was called when it was opened
    assert tail.identity is not None
    tail.close()
    assert tail.file is None
    assert tail.identity is None


def test_dated_names_are_ordered_by_their_dates(tmp_path):
    for name in ("SMlog", "SMlog-20261120.gz", "SMlog-20261122", "SMlog-20261121", "SMlog.old", "SMlogger"):
        (tmp_path / name).write_bytes(b"x")
    names = [os.path.basename(one.path) for one in siblings(str(tmp_path / "SMlog"))]
    assert names == ["SMlog", "SMlog-20261122", "SMlog-20261121", "SMlog-20261120.gz"]


def test_the_context_reaches_over_small_files(tmp_path):
    """A follower that catches up reads several files before a line in the first of them is settled."""
    path = tmp_path / "SMlog"
    texts = [f"file {number} line {line}\n" for number in (3, 2, 1, 0) for line in range(3)]
    for number, name in enumerate(("SMlog.3", "SMlog.2.gz", "SMlog.1", "SMlog")):
        data = "".join(texts[number * 3 : number * 3 + 3]).encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    tail = Tail(str(path))
    while tail.read():
        pass
    for reach, first in ((10_000, 0), (100, 5), (90, 6), (1, 12)):
        found = b"".join(chunk.data for chunk in tail.context(reach)).decode().splitlines(keepends=True)
        assert found == texts[first:], reach
    assert [chunk.first_line for chunk in tail.context(10_000)] == [1, 1, 1, 1]
    tail.close()
