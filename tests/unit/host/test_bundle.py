"""host.bundle: what the unpacking of a self-contained smfix leaves is put right."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from smfix.follow import service
from smfix.follow.sd_notify import watchdog_seconds
from smfix.host import bundle, subprocesses

UNPACKED = {
    "STATICX_PROG_PATH": "/root/smfix",
    "STATICX_BUNDLE_DIR": "/nonexistent/staticx-abc",
    "_PYI_ARCHIVE_FILE": "/tmp/staticx-abc/smfix",
    "_PYI_PARENT_PROCESS_LEVEL": "1",
    "LD_LIBRARY_PATH": "/tmp/staticx-abc/lib",
    "PATH": "/usr/bin",
}


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setattr(bundle, "_started", None)
    monkeypatch.setattr(bundle, "end_with_parent", lambda: None)


@pytest.mark.parametrize(("before", "after"), [(None, {}), ("", {}), ("/opt/lib", {"LD_LIBRARY_PATH": "/opt/lib"})])
def test_the_environment_is_the_callers_again(before, after):
    environment = UNPACKED | ({} if before is None else {"LD_LIBRARY_PATH_ORIG": before})
    bundle.begin(environment, [])
    assert environment == {"PATH": "/usr/bin"} | after


def test_it_is_called_what_was_started(monkeypatch, tmp_path):
    words = ["/tmp/staticx-abc/smfix", "service", "install"]
    file = tmp_path / "smfix"
    file.write_text("")
    file.chmod(0o755)
    assert bundle.own_file() is None
    bundle.begin(UNPACKED | {"STATICX_PROG_PATH": str(file)}, words)
    assert words == [str(file), "service", "install"]
    assert bundle.own_file() == str(file)
    assert service.program() == [str(file)]
    text = service.unit_text(service.program(), [], [])
    assert f"ExecStart={file} from-log --follow\n" in text
    assert f"ExecReload={file} service reload\n" in text


def test_a_variable_alone_makes_nothing_packed(monkeypatch):
    monkeypatch.setenv("STATICX_PROG_PATH", "/bin/true")
    assert not bundle.is_packed()
    assert service.program() != ["/bin/true"]


def test_nothing_of_the_unpacking_reaches_a_program(monkeypatch):
    for name, value in UNPACKED.items():
        monkeypatch.setenv(name, value)
    said = subprocesses.run(["/usr/bin/env"], 10)
    assert not [line for line in said.splitlines() if line.startswith(("LD_", *bundle.LEFT_BEHIND))]


def test_the_watchdog_of_the_parent_is_ours(monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "20000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getppid()))
    assert watchdog_seconds() is None
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert watchdog_seconds() == 10.0


def test_who_kills_the_parent_ends_the_child():
    """A process that ends with its parent, in a process whose parent is killed."""
    child = (
        "from smfix.host import bundle; bundle.end_with_parent(); print('ready', flush=True); "
        "import time; time.sleep(60)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
        assert process.stdout.read() == b""  # closed when the child is gone, not after a minute


# --------------------------------------------------------------------------- folders of killed runs


def left(folder, name, content="1\n"):
    there = folder / name
    (there / "lib").mkdir(parents=True)
    (there / "lib" / "some.so").write_text("x")
    if content is not None:
        (there / bundle.MARK).write_text(content)
    return there


def test_what_killed_runs_left_is_removed(tmp_path):
    dead, own = left(tmp_path, "staticx-dead"), left(tmp_path, "staticx-own", "")
    others = left(tmp_path, "staticx-other", None)
    named = left(tmp_path, "elsewhere")
    environment = UNPACKED | {"STATICX_BUNDLE_DIR": str(own)}
    bundle.begin(environment, [])
    assert not dead.exists()
    assert own.exists()
    assert others.exists()  # some other program that staticx made
    assert named.exists()
    assert (own / bundle.MARK).read_text() == f"{os.getpid()}\n"
    bundle.clean_up(str(tmp_path), sparing="")
    assert own.exists()  # it runs: this process holds it


def test_what_is_being_unpacked_is_spared(tmp_path, monkeypatch):
    fresh = left(tmp_path, "staticx-fresh", "")
    bundle.clean_up(str(tmp_path), sparing="")
    assert fresh.exists()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + bundle.UNPACKING + 5)
    bundle.clean_up(str(tmp_path), sparing="")
    assert not fresh.exists()


def test_a_run_is_spared_until_its_last_process_is_gone(tmp_path):
    runs = left(tmp_path, "staticx-runs")
    with open(runs / bundle.MARK, "rb") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        bundle.clean_up(str(tmp_path), sparing="")
        assert runs.exists()
    bundle.clean_up(str(tmp_path), sparing="")
    assert not runs.exists()


def test_links_and_oddities_are_left_alone(tmp_path):
    target = left(tmp_path, "target")
    (tmp_path / "staticx-link").symlink_to(target)
    odd = left(tmp_path, "staticx-odd", None)
    os.mkfifo(odd / bundle.MARK)
    linked = left(tmp_path, "staticx-linked", None)
    (linked / bundle.MARK).symlink_to(target / bundle.MARK)
    (tmp_path / "staticx-file").write_text("x")
    bundle.clean_up(str(tmp_path), sparing="")
    assert target.exists()
    assert odd.exists()
    assert linked.exists()
    bundle.clean_up(str(tmp_path / "nowhere"), sparing="")


@pytest.mark.root
def test_what_is_somebody_elses_is_left_alone(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    theirs, planted = left(tmp_path, "staticx-theirs"), left(tmp_path, "staticx-planted")
    os.chown(theirs, 12345, 12345)
    os.chown(planted / bundle.MARK, 12345, 12345)
    bundle.clean_up(str(tmp_path), sparing="")
    assert theirs.exists()
    assert planted.exists()
