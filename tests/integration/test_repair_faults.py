"""A repair struck by a kill or a failing storage: the image is as before, or repaired, or brought back.

The whole table (every case, every fault) is made by `python tools/faults.py`; here one case of it runs each
time, and what needs a real file system that is full, read-only, or not to be written to.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import faults
from faults import CASES, SR, VDI, Bench, Case, outcome
from needed_tools import REQUIRED, need_tool

APPEND, INSIDE, GROW, SEVERAL, UNDO, RECOVERY, DEVICE, *_ = CASES


@pytest.fixture
def strace() -> None:
    """Skips where processes must not be traced (a container without the permission)."""
    path = need_tool("strace")
    if subprocess.run([path, "-o", os.devnull, "true"], capture_output=True, check=False).returncode:
        if REQUIRED:
            pytest.fail("strace may not trace here, and SMFIX_REQUIRE_TOOLS=1", pytrace=False)
        pytest.skip("strace may not trace here")


@pytest.fixture
def bench(tmp_path) -> Iterator[Bench]:
    with Bench(GROW, tmp_path) as made:
        made.reset()
        yield made


def struck(case: Case, kind: str, *on: str) -> list[faults.Struck]:
    rows = list(faults.strike_all(case, (kind,), lambda call: call.on in on))
    assert all(row.is_safe for row in rows), faults.table([row for row in rows if not row.is_safe])
    return rows


# ------------------------------------------------------------------ one case of the table


def test_killed_at_every_call_of_a_repair_that_grows(strace):
    rows = struck(GROW, "SIGKILL", "image", "journal", "journal folder")
    names = {(row.call.name, row.call.on) for row in rows}
    for call in (("write", "journal"), ("fsync", "journal"), ("ftruncate", "image"), ("pwrite64", "image")):
        assert call in names, "the trace has lost a call that must be struck"
    assert {row.status for row in rows} == {"killed"}
    assert {row.image for row in rows} == {"as before", "between", "repaired"}
    # Not one byte of the image before its journal is durable.
    first = next(index for index, row in enumerate(rows) if row.call.on == "image")
    assert [f"{row.call}" for row in rows[:first]][-4:] == [
        "write journal",
        "fsync journal",
        "rename journal",
        "fsync journal folder",
    ]
    assert {row.image for row in rows[: first + 1]} == {"as before"}


def test_killed_at_every_call_of_an_undo_on_the_image(strace):
    rows = struck(UNDO, "SIGKILL", "image")
    assert {row.image for row in rows} == {"as before", "between", "undone"}


def test_killed_at_every_call_of_a_recovery_on_the_image_and_its_journals(strace):
    """And of the repair that follows it: the next run leads to the repaired bytes, an undo to the old ones."""
    rows = struck(RECOVERY, "SIGKILL", "image", "journal", "journal folder")
    assert {row.image for row in rows} == {"as before", "put back", "between", "repaired"}


def test_a_storage_that_fails_at_any_call_rolls_back(strace):
    for row in struck(INSIDE, "EIO", "image", "journal", "journal folder"):
        assert (row.exit, row.status) == (12, "failed"), row
        assert row.image == "as before" or row.call.on.startswith("journal"), row


# ------------------------------------------------------------------ real file systems


@pytest.fixture
def small(tmp_path) -> Iterator[Path]:
    """A mounted ext4 of 8 MiB without blocks reserved for root."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    mkfs, mount, umount = need_tool("mkfs.ext4"), need_tool("mount"), need_tool("umount")
    store, point = tmp_path / "store", tmp_path / "mounted"
    with store.open("wb") as file:
        file.truncate(8 << 20)
    point.mkdir()
    subprocess.run([mkfs, "-q", "-m", "0", "-O", "^has_journal", str(store)], check=True, capture_output=True)
    done = subprocess.run([mount, "-o", "loop", str(store), str(point)], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    yield point
    subprocess.run([umount, str(point)], check=True)


def fill(folder: Path) -> None:
    """Not one byte more can be written to the file system of `folder`."""
    with (folder / "full").open("wb", buffering=0) as file:
        for size in (1 << 16, 512):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    os.sync()


def repair(sr_mount: Path, journals: Path) -> subprocess.CompletedProcess[str]:
    options = ["--yes", "--json", "--sr-mount", str(sr_mount), "--journal-dir", str(journals)]
    return subprocess.run(
        [*faults.SMFIX, "repair", VDI, *options], capture_output=True, text=True, check=False, cwd=faults.ROOT
    )


def lay(folder: Path) -> Path:
    """The damaged image of GROW in an SR below `folder`."""
    path = folder / SR / f"{VDI}.vhd"
    path.parent.mkdir()
    path.write_bytes(GROW.damage(*faults.sound()))
    return path


@pytest.mark.root
def test_a_full_file_system(small, tmp_path):
    path = lay(small)
    fill(small)
    before = path.read_bytes(), path.stat().st_mtime_ns
    done = repair(small, tmp_path / "journal")
    assert done.returncode == 12
    assert outcome(done)["status"] == "failed"
    assert outcome(done)["message"].startswith("no space: the image grows by")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    (small / "full").unlink()
    assert repair(small, tmp_path / "journal").returncode == 1


@pytest.mark.root
def test_a_full_file_system_for_the_journal(small, tmp_path):
    (tmp_path / "sr").mkdir()
    path = lay(tmp_path / "sr")
    fill(small)
    before = path.read_bytes()
    done = repair(tmp_path / "sr", small / "journal")
    assert done.returncode == 12
    assert "no space for the undo journal" in outcome(done)["message"]
    assert path.read_bytes() == before
    assert not (small / "journal").exists()


@pytest.mark.root
def test_a_read_only_file_system(small, tmp_path):
    path = lay(small)
    subprocess.run([need_tool("mount"), "-o", "remount,ro", str(small)], check=True)
    before = path.read_bytes()
    done = repair(small, tmp_path / "journal")
    assert done.returncode == 12
    assert "Read-only file system" in outcome(done)["message"]
    assert path.read_bytes() == before


@pytest.mark.root
def test_a_read_only_file_system_for_the_journal(small, tmp_path):
    (tmp_path / "sr").mkdir()
    path = lay(tmp_path / "sr")
    subprocess.run([need_tool("mount"), "-o", "remount,ro", str(small)], check=True)
    before = path.read_bytes()
    done = repair(tmp_path / "sr", small / "journal")
    assert done.returncode == 12
    assert "Read-only file system" in outcome(done)["message"]
    assert path.read_bytes() == before


def test_a_journal_folder_that_cannot_be_made(bench):
    (bench.folder / "state").write_bytes(b"")
    before = bench.bytes()
    done = bench.smfix("repair")
    assert done.returncode == 12
    assert "Not a directory" in outcome(done)["message"]
    assert bench.bytes() == before


def test_a_journal_folder_that_others_write_to(bench):
    bench.journals.mkdir(parents=True)
    bench.journals.chmod(0o777)
    before = bench.bytes()
    done = bench.smfix("repair")
    assert done.returncode == 12
    assert "others may write there" in outcome(done)["message"]
    assert bench.bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_journal_folder_without_permission(bench):
    bench.journals.mkdir(parents=True)
    bench.journals.chmod(0o500)
    before = bench.bytes()
    done = bench.smfix("repair")
    bench.journals.chmod(0o700)
    assert done.returncode == 12
    assert "Permission denied" in outcome(done)["message"]
    assert bench.bytes() == before


# ------------------------------------------------------------------ two at once


def test_of_two_at_once_one_repairs_and_none_harms(bench):
    """Both look, one writes; the other finds it locked, changed, or sound."""
    before = bench.bytes()
    options = ["--yes", "--json", "--sr-mount", str(bench.folder / "sr"), "--journal-dir", str(bench.journals)]
    command = [*faults.SMFIX, "repair", *options, bench.target]
    environment = os.environ | {"PYTHONPATH": faults.PYTHONPATH, "XDG_STATE_HOME": str(bench.folder / "state")}
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    said = [(process.communicate(timeout=120)[0], process.returncode) for process in both]
    codes = sorted(code for _, code in said)
    assert codes in ([0, 1], [1, 4], [1, 12]), said
    (journal,) = bench.journals.iterdir()
    assert journal.suffix == ".verified"
    bench.smfix("undo", journal.stem)
    assert bench.bytes() == before
