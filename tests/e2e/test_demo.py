from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from smfix.cli import app
from smfix.demo import run as run_module
from smfix.demo.disks import DISKS, SR
from smfix.errors import UsageError, WriteFailed
from smfix.smlog.reader import read_logs
from smfix.values import Exit, Status


def test_it_proves_what_it_says_and_cleans_up(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path), "HOME": str(tmp_path / "none")}
    done = subprocess.run(
        [sys.executable, "-m", "smfix", "demo"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\n   FAILED" not in done.stdout
    for disk in DISKS:
        assert f"   ok       {disk.vdi[:8]} is {disk.expect.value}" in done.stdout
    repaired = sum(disk.expect is Status.REPAIRED for disk in DISKS)
    assert done.stdout.count(" reads as its guest wrote it, all 16,777,216 bytes of the disk") == repaired
    assert "ok       a second run writes nothing" in done.stdout
    assert "is as damaged as it was, byte for byte" in done.stdout
    assert done.stdout.endswith(
        "claims proved. The disks are removed again.\n\n"
        "To keep the disks, and try the commands on them:\n   smfix demo --keep DIR\n"
        "On a host, to see what it would do there, and change nothing:\n   smfix from-log --dry-run\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_can_be_looked_at(tmp_path, capsys):
    folder = tmp_path / "kept"
    assert app.run(["demo", "--keep", str(folder)]) == 0
    assert sorted(os.listdir(folder)) == ["SMlog", "journal", "sr-mount", "state"]
    out = " ".join(capsys.readouterr().out.split())
    assert f"It is all in {folder}; the disk whose repair was undone is damaged again." in out
    again = re.search(rf"smfix (from-log {folder}/SMlog --dry-run .*?) On a host", out).group(1)
    log = (folder / "SMlog").read_text()
    assert log.count("\n") > 3000
    capsys.readouterr()
    assert app.run(["check", str(folder / "sr-mount" / SR)]) == 4
    assert capsys.readouterr().out.count("verdict  valid") == 5
    assert app.run(shlex.split(again)) == 4
    assert "To repair 2 images:" in capsys.readouterr().out


def test_its_log_with_a_second_run_names_each_disk_once(tmp_path, capsys):
    """The dump of a child holds the name of its parent: no second place of that disk."""
    folder = tmp_path / "kept"
    assert app.run(["demo", "--keep", str(folder)]) == 0
    log = folder / "SMlog"
    blamed = [line for line in log.read_text().splitlines() if line.endswith(" corrupted")]
    with log.open("a") as file:
        file.writelines(re.sub(r"\[[0-9]+\]", f"[{31000 + number}]", line) + "\n" for number, line in enumerate(blamed))
    reading = read_logs([str(log)], tz=None, year=None, since=None, until=None)
    assert sorted(one.vdi.text for one in reading.incidents) == sorted(disk.vdi for disk in DISKS)
    assert all(one.candidates == () for one in reading.incidents)


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path, capsys):
    (tmp_path / "precious").touch()
    with pytest.raises(UsageError):
        run_module.run(str(tmp_path), print)
    assert app.run(["demo", "--keep", str(tmp_path)]) == 16
    assert os.listdir(tmp_path) == ["precious"]


def test_a_place_that_cannot_be_built_in(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("smfix.demo.run._write_sparse", lambda *_: (_ for _ in ()).throw(OSError(28, "No space", "/x")))
    with pytest.raises(WriteFailed, match="No space"):
        run_module.run(str(tmp_path / "new"), lambda _: None)


class Broken:
    """A pipeline that does one thing wrong."""

    def __init__(self, monkeypatch, tmp_path):
        self.patch = monkeypatch
        self.folder = str(tmp_path / "stage")
        self.said = []

    def run(self):
        code = run_module.run(self.folder, self.said.append)
        return code, [line for line in self.said if line.strip().startswith("FAILED")]


@pytest.fixture
def broken(monkeypatch, tmp_path):
    return Broken(monkeypatch, tmp_path)


def test_a_changed_guest_byte_is_seen(broken):
    """The proof is worth something: one byte of guest data less, and it fails."""
    real = run_module.from_log.from_log
    spoilt = []

    def spoiled(asked, run_options):
        result = real(asked, run_options)
        path = os.path.join(run_options.sr_mounts[0], SR, DISKS[4].name)
        with open(path, "rb") as file:
            raw = bytearray(file.read())
        if spoilt:
            return result
        spoilt.append(path)
        at = raw.index(DISKS[4].guest_sector(6, 3999))
        raw[at] ^= 1
        with open(path, "wb") as file:
            file.write(raw)
        return result

    broken.patch.setattr(run_module.from_log, "from_log", spoiled)
    code, failed = broken.run()
    assert code is Exit.FAILED
    assert any("e25e01be reads as its guest wrote it" in line for line in failed)


def test_a_missing_incident_is_seen(broken):
    real = run_module.from_log.from_log
    broken.patch.setattr(run_module.from_log, "from_log", lambda *each: (real(*each)[0], real(*each)[1][:2]))
    code, failed = broken.run()
    assert code is Exit.FAILED
    assert "FAILED   the log's 8 damaged disks, no more and no less, each with its path" in failed[0]
    assert any("c5c0cdc3 is repaired, but was missing" in line for line in failed)
    assert any("c5c0cdc3 has a journal to undo" in line for line in failed)


def test_a_disk_held_open_is_held_by_another_process(tmp_path):
    from smfix.host.image_file import open_image
    from smfix.host.open_files import open_state
    from smfix.values import Backing, InUse, Target

    path = tmp_path / "x.vhd"
    path.write_bytes(b"x")
    with open_image(Target(str(path), Backing.FILE)) as image:
        with run_module.held_open(str(path)):
            assert open_state(image.identity).state is InUse.READ_WRITE
        assert open_state(image.identity).state is not InUse.READ_WRITE


def test_a_claim_that_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("smfix.demo.run.guest_data_is_right", lambda *_: (False, 0))
    told: list[str] = []
    assert run_module.run(None, told.append) is Exit.FAILED
    assert "24 of 29 claims proved. The others FAILED: please report that with this output." in told[-1]
