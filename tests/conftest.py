"""What every test may ask for: tools by name, and a summary of what was skipped and why.

A test says what it needs with a marker:

* ``@pytest.mark.tools("qemu-img", "strace")``: Debian tools. Missing = skipped, or a failure where
  ``SMFIX_REQUIRE_TOOLS=1`` says that this machine was set up to have them.
* ``@pytest.mark.vhdutil``: the real ``vhd-util``. Missing = skipped, always: no distribution
  packages it.
* ``@pytest.mark.root``: uid 0 (loop devices, mounts).
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from needed_tools import need_tool

# Started in the background of a shell, SIGINT is ignored, and so it would be in every process a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The deadline of a single example measures the machine, not the code.
settings.register_profile("smfix", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100)
settings.register_profile("ci", settings.get_profile("smfix"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "smfix")


HIDDEN_FROM = {
    "test_scan",
    "test_html_report",
    "test_guard",
    "test_docs",
    "test_cli_scan",
    "test_cli_images",
    "test_pipeline",
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, by the test's markers."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("not root")
    if item.get_closest_marker("vhdutil"):
        need_tool("vhd-util")
    for marker in item.iter_markers("tools"):
        for name in marker.args:
            need_tool(name)


@pytest.fixture(autouse=True)
def threads_end():
    """A thread that outlives its test would change the next ones: logs are read in one pass beside threads."""
    before = set(threading.enumerate())
    yield
    end = time.monotonic() + 30
    while (left := set(threading.enumerate()) - before) and time.monotonic() < end:
        time.sleep(0.005)
    assert not left, f"threads that this test left behind: {sorted(thread.name for thread in left)}"


@pytest.fixture(autouse=True)
def no_volumes_of_other_tests(request, monkeypatch):
    """Hide the volume groups that tests of devices make below /dev at the same time, from all other tests."""
    if not request.node.get_closest_marker("root") and request.module.__name__.rpartition(".")[2] in HIDDEN_FROM:
        monkeypatch.setattr("smfix.sm.sr_types.lvm_volumes.attached", lambda _sr=None: ())


@pytest.fixture
def qemu_img() -> str:
    """Path of qemu-img."""
    return need_tool("qemu-img")


@pytest.fixture
def vhd_util() -> str:
    """Path of the real vhd-util."""
    return need_tool("vhd-util")


@pytest.fixture
def loop_device(tmp_path: Path):
    """A function file -> loop device; every device is detached at the end."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    losetup = need_tool("losetup")
    made: list[str] = []

    def attach(path: Path) -> str:
        done = subprocess.run([losetup, "--find", "--show", str(path)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no loop devices here: {done.stderr.strip()}")
        made.append(done.stdout.strip())
        return made[-1]

    yield attach
    for device in made:
        subprocess.run([losetup, "--detach", device], check=False, capture_output=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what was skipped, by reason: a green run says what it did not look at."""
    by_reason: dict[str, Counter[str]] = defaultdict(Counter)
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        by_reason[reason.removeprefix("Skipped: ")][report.nodeid.partition("[")[0]] += 1
    if not by_reason:
        return
    terminalreporter.section("skipped, and why")
    for reason, tests in sorted(by_reason.items()):
        terminalreporter.line(f"{reason}: {tests.total()}")
        for test, times in sorted(tests.items()):
            terminalreporter.line(f"    {test}{f' ({times} cases)' if times > 1 else ''}")
