"""A host for the tests of the pipeline and the command line: an SR on disk, logs, and a way to run smfix.

Images are made with :mod:`smfix.formats.vhd.build` and damaged here; commands run in this process, so that a test
costs milliseconds. What needs a process of its own (signals, terminals) starts one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from schemas import valid
from smfix.cli import app
from smfix.formats.vhd import build

SR = "7a142a29-9556-ee47-1e04-1a8517813369"
BASE = "1d994938-058e-102f-80dc-001ec95cb0b6"
LEAF = "5b0c1a7e-3a52-4a05-9f0e-6d1f6e0b7c11"
OTHER = "c5c0cdc3-c2c4-4c43-a5a2-845f36b866a4"
ROOT = Path(__file__).resolve().parents[2]
SIZE = 8 << 20


@dataclass
class Run:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The document on stdout, held against its schema."""
        return valid(json.loads(self.out))


class World:
    """One SR below `folder`, and the options that keep smfix inside of it."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capture = capture
        self.mount = folder / "sr-mount"
        self.sr = self.mount / SR
        self.sr.mkdir(parents=True)
        self.journals = folder / "journal"
        self.log = folder / "SMlog"

    # ------------------------------------------------------------------ images

    def path(self, vdi: str = BASE) -> Path:
        return self.sr / f"{vdi}.vhd"

    def image(self, vdi: str = BASE, *, parent: str | None = None, **options: Any) -> bytes:
        """A sound image with two blocks; `parent` makes it a child of that VDI."""
        above = None if parent is None else build.ParentRef(uuid_of(parent), f"{parent}.vhd")
        data = {1: {n: bytes([n % 251]) * 512 for n in range(64)}, 0: {5: vdi.encode().ljust(512, b".")}}
        return build.sparse(SIZE, uuid_of(vdi), data, parent=above, **options).to_bytes()

    def put(self, raw: bytes, vdi: str = BASE) -> Path:
        path = self.path(vdi)
        path.write_bytes(raw)
        return path

    def damaged(self, vdi: str = BASE, *, parent: str | None = None) -> Path:
        """An image whose footer is overwritten."""
        return self.put(self.image(vdi, parent=parent)[:-512] + b"x" * 512, vdi)

    # ------------------------------------------------------------------ logs

    def smlog(self, *records: str) -> Path:
        """A raw 2012 log of `records`."""
        self.log.write_text("".join(records), encoding="utf-8")
        return self.log

    # ------------------------------------------------------------------ running

    def options(self, command: str) -> list[str]:
        mounts = ["--sr-mount", str(self.mount)]
        folders = ["--journal-dir", str(self.journals)]
        return {
            "from-log": mounts + folders,
            "repair": mounts + folders,
            "check": mounts,
            "scan": mounts,
            "show": mounts,
            "journal": folders,
            "undo": folders,
        }.get(command, [])

    def run(self, command: str, *words: object) -> Run:
        self.capture.readouterr()
        code = app.run([command, *map(str, words), *self.options(command)])
        out, err = self.capture.readouterr()
        return Run(code, out, err)

    @contextmanager
    def holding(self, path: Path, mode: str = "r+b") -> Iterator[int]:
        """A process (its pid) has `path` open meanwhile."""
        program = f"import sys; held = open(sys.argv[1], {mode!r}); print('held', flush=True); sys.stdin.read()"
        line = [sys.executable, "-c", program, str(path)]
        with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield holder.pid

    def start(self, command: str, *words: object, **options: Any) -> subprocess.Popen[str]:
        """The same in a process of its own."""
        line = [sys.executable, "-m", "smfix", command, *map(str, words), *self.options(command)]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, **options)


def uuid_of(vdi: str) -> bytes:
    """The UUID in the footer of the VDI's image: another than its file's name."""
    return bytes.fromhex(vdi.replace("-", ""))[::-1]


def failed(vdi: str = BASE, *, pid: int = 26919, sr: str = SR, at: str = "00:18:35", folder: str = "") -> str:
    """What SM of 2012 writes when GC finds `vdi` corrupted: the failed check, then the EXCEPTION."""
    path = f"/var/run/sr-mount/{sr}/{folder}{vdi}.vhd"
    return (
        f"[{pid}] 2012-05-15 {at}.127755\tFAILED: (errno 22) stdout: 'primary footer invalid: invalid cookie\n"
        f"{path} appears invalid; dumping metadata\n', stderr: ''\n"
        f"<{pid}> 2012-05-15 {at}.128104\tIn cleanup\n{exception(vdi, pid=pid, at=at)}"
    )


def exception(vdi: str = BASE, *, pid: int = 26919, at: str = "00:18:35") -> str:
    """The EXCEPTION alone: eight digits, no path, no SR."""
    return (
        f"<{pid}> 2012-05-15 {at}.129850\tcoalesce: EXCEPTION util.SMException, "
        f"VHD *{vdi[:8]}(40.00G/14.27G) corrupted\n"
    )


def make_world(folder: Path, capture: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> World:
    """A host of its own for a test: no storage manager on it, and none of the user's folders is touched."""
    monkeypatch.setattr("smfix.sm.locks.INVENTORY", str(folder / "no-inventory"))
    monkeypatch.setattr("smfix.sm.locks.state_folder", lambda: str(folder / "state"))
    monkeypatch.delenv("SMFIX_JOURNAL_DIR", raising=False)
    monkeypatch.delenv("SMFIX_DEBUG", raising=False)
    return World(folder, capture)
