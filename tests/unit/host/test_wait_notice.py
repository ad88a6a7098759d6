"""host.slow: a wait that goes on is said once; work, short waits and questions are not."""

from __future__ import annotations

import os
import re
import threading
import time

import pytest

from needed_tools import need_tool
from smfix.cli import console, prompt
from smfix.host import storage_probe, subprocesses, wait_notice
from smfix.host.wait_notice import watched


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(wait_notice, "SECONDS", 0.5)
    monkeypatch.setattr(wait_notice, "_STEP", 0.05)


@pytest.fixture
def said():
    return []


def blocked(seconds: float) -> None:
    """Wait in the kernel, in one piece."""
    reader, writer = os.pipe()
    timer = threading.Timer(seconds, os.write, (writer, b"x"))
    timer.start()
    os.read(reader, 1)
    timer.join()
    os.close(reader)
    os.close(writer)


def test_one_long_wait_is_said_once_while_it_goes_on(said):
    moments = []
    with watched("/sr/x.vhd", lambda line: (said.append(line), moments.append(time.monotonic()))):
        blocked(1.5)
        back = time.monotonic()
    (line,) = said
    assert "/sr/x.vhd" in line
    assert "0.5 s" in line
    assert moments[0] < back - 0.3
    assert threading.active_count() == 1


def test_a_program_that_is_waited_for_is_named_not_the_storage_of_the_image(said):
    """It may wait for another disk (``lvs`` looks at all of them), or for itself (``vhd-util`` tries ten times)."""
    with watched("/sr/x.vhd", said.append):
        subprocesses.run([need_tool("sleep"), "1.5"], 30)
    (line,) = said
    assert re.fullmatch(
        r"smfix: still waiting for sleep \(pid \d+\), which has not ended for 0.5 s; it is given up after 30 s", line
    )
    with watched("/sr/x.vhd", said.append):
        blocked(1.5)
    assert "/sr/x.vhd" in said[1]


def test_work_is_no_wait(said):
    with watched("x", said.append):
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            sum(range(1000))
    assert said == []


def test_short_waits_are_none(said):
    with watched("x", said.append):
        for _ in range(30):
            time.sleep(0.04)
    assert said == []


def test_nobody_is_told_and_nobody_watches(said):
    with watched("x", None):
        assert threading.active_count() == 1


def test_a_kernel_that_does_not_say_is_asked_no_more_of(said, monkeypatch):
    monkeypatch.setattr(threading, "get_native_id", lambda: 1 << 30)
    with watched("x", said.append):
        blocked(0.9)
    assert said == []


def test_an_answer_that_is_waited_for_is_no_storage(monkeypatch, capsys):
    monkeypatch.setattr(console._Asking, "now", True)
    prompt._said("smfix: still waiting")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(console._Asking, "now", False)
    prompt._said("smfix: still waiting")
    assert capsys.readouterr().err == "smfix: still waiting\n"


def test_folders_that_are_looked_at_first_are_named_while_they_are_silent(said, monkeypatch, tmp_path):
    alive = tmp_path / "alive"
    alive.mkdir()
    monkeypatch.setenv(storage_probe.PATIENCE, "1.5")
    monkeypatch.setattr(storage_probe, "_touch", lambda path: time.sleep(5) if "dead" in path else None)
    begin = time.monotonic()
    assert storage_probe.silent([str(alive), "/dead"], said.append) == {"/dead"}
    assert time.monotonic() - begin < 3
    (line,) = said
    assert "/dead" in line
    assert "alive" not in line
