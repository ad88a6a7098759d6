"""The second opinion counts when it is one, and never holds anybody up."""

from __future__ import annotations

import os
import time

import pytest

from smfix.formats.vhd.external_check import TIME_LIMIT, check
from smfix.host.subprocesses import clean_environment
from smfix.usecases import external_check


def complaint(path: str, *, program: str = "vhd-util", limit: float = TIME_LIMIT) -> str | None:
    asked = check(path)
    return external_check.complaint(asked._replace(argv=(program, *asked.argv[1:]), limit=limit))


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """A function: the body of a shell script that stands on PATH as vhd-util."""

    def make(body: str) -> None:
        path = tmp_path / "vhd-util"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return make


def test_a_complaint_is_its_first_line(tool):
    tool('echo "primary footer invalid: invalid cookie"; echo more; exit 22')
    assert complaint("/sr/disk.vhd") == "vhd-util check: primary footer invalid: invalid cookie"


def test_what_it_is_asked(tool):
    tool('echo "$@"; exit 1')
    assert complaint("/sr/a b.vhd") == "vhd-util check: check -B -n /sr/a b.vhd"


def test_a_complaint_on_stderr_or_without_words(tool):
    tool("echo no memory >&2; exit 12")
    assert complaint("/x") == "vhd-util check: no memory"
    tool("exit 22")
    assert complaint("/x") == "vhd-util check: exit code 22"


def test_words_are_bounded(tool):
    tool("printf %09999d 0; exit 22")
    assert len(complaint("/x") or "") == len("vhd-util check: ") + 200


@pytest.mark.parametrize("body", ["exit 0", "echo is valid", "kill -ABRT $$", "no-such-program"])
def test_no_complaint(tool, body):
    tool(body)
    assert complaint("/x") is None


@pytest.mark.parametrize(
    "words",
    [
        "invalid parent /sr/p.vhd: error opening parent",
        "error resolving ./p.vhd: -2",
        "parent locator 0 points to missing file ./p.vhd (resolved to /sr/p.vhd)",
        "error opening /sr/disk.vhd",
        "cannot stat /sr/disk.vhd: 13",
    ],
)
def test_what_is_said_of_the_parent_is_not_said_of_the_image(tool, words):
    tool(f"echo '{words}'; echo 'disk.vhd appears invalid; dumping metadata'; exit 22")
    assert complaint("/x") is None


def test_a_tool_that_hangs_is_left(tool):
    tool("exec sleep 60")
    start = time.monotonic()
    assert complaint("/x", limit=0.2) is None
    assert time.monotonic() - start < 10


def test_no_tool_no_complaint(tmp_path):
    assert complaint("/x", program="no-such-vhd-util") is None
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    assert complaint("/x", program=str(broken)) is None


def test_the_host_s_programs_get_the_host_s_libraries(tool, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/tmp/unpacked")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("LC_MESSAGES", "de_DE.UTF-8")
    monkeypatch.setenv("SMFIX_KEPT", "1")
    clean = clean_environment()
    assert not [name for name in clean if name.startswith("LD_")]
    assert (clean["LC_ALL"], clean["LANG"], clean["SMFIX_KEPT"]) == ("C", "C", "1")
    assert "LC_MESSAGES" not in clean
    tool('echo "[$LD_LIBRARY_PATH] $LC_ALL"; exit 1')
    assert complaint("/x") == "vhd-util check: [] C"


@pytest.mark.vhdutil
def test_the_real_one(vhd_util, tmp_path):
    import subprocess

    path = tmp_path / "disk.vhd"
    subprocess.run([vhd_util, "create", "-n", str(path), "-s", "16"], check=True)
    assert complaint(str(path)) is None
    with path.open("r+b") as file:
        file.seek(-512, os.SEEK_END)
        file.write(bytes(512))
    assert complaint(str(path)) == "vhd-util check: primary footer invalid: invalid cookie"


@pytest.mark.vhdutil
def test_the_real_one_on_a_child_without_its_parent(vhd_util, tmp_path):
    import subprocess

    parent, child = tmp_path / "parent.vhd", tmp_path / "child.vhd"
    subprocess.run([vhd_util, "create", "-n", str(parent), "-s", "16"], check=True)
    subprocess.run([vhd_util, "snapshot", "-n", str(child), "-p", str(parent)], check=True)
    os.truncate(parent, 300)
    assert subprocess.run([vhd_util, "check", "-n", str(child)], check=False, capture_output=True).returncode
    assert complaint(str(child)) is None
    parent.unlink()
    assert subprocess.run([vhd_util, "check", "-n", str(child)], check=False, capture_output=True).returncode
    assert complaint(str(child)) is None
