"""host.programs: programs of the host are found, bounded, and free of our own libraries."""

from __future__ import annotations

import pytest

from smfix.errors import Unreadable
from smfix.host import subprocesses


def test_programs_are_found_in_sbin_too(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(subprocesses, "SBIN", (str(tmp_path),))
    assert subprocesses.program("tool") is None
    (tmp_path / "tool").write_text("#!/bin/sh\necho $LD_LIBRARY_PATH $LC_ALL $SMFIX_XAPI_PASSWORD\n")
    (tmp_path / "tool").chmod(0o755)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/ours")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("SMFIX_XAPI_PASSWORD", "secret")
    assert subprocesses.run([subprocesses.program("tool")], 5) == "C\n"


def test_programs_that_fail(tmp_path, monkeypatch):
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho first >&2; echo last >&2; exit 7\n")
    tool.chmod(0o755)
    with pytest.raises(Unreadable, match=r"tool failed \(7\): last"):
        subprocesses.run([str(tool)], 5)
    tool.write_text("#!/bin/sh\nexit 7\n")
    with pytest.raises(Unreadable, match="it said nothing"):
        subprocesses.run([str(tool)], 5)
    with pytest.raises(Unreadable, match="cannot be run: No such file"):
        subprocesses.run([str(tmp_path / "none")], 5)
    tool.write_text("#!/bin/sh\necho 123456\n")
    monkeypatch.setattr(subprocesses, "MAX_OUTPUT", 4)
    with pytest.raises(Unreadable, match="cannot be right"):
        subprocesses.run([str(tool)], 5)


def test_a_program_that_hangs_is_ended(tmp_path):
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\nexec sleep 9\n")
    tool.chmod(0o755)
    with pytest.raises(Unreadable, match="tool did not end within 0.2 seconds"):
        subprocesses.run([str(tool)], 0.2)
