"""`from-log --follow`, `status` and `service` as commands: options, signals, exit codes, and a short live test."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from schemas import valid
from smfix.cli import app
from smfix.follow import service
from soak import Soak
from world import BASE, ROOT, failed, make_world


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


class Process:
    """A follower in a process of its own; its events as they come."""

    def __init__(self, process, out):
        self.process = process
        self.out = out

    def events(self):
        return [valid(json.loads(line)) for line in self.out.read_text(encoding="utf-8").splitlines()]

    def until(self, name, seconds=15.0):
        end = time.monotonic() + seconds
        while name not in [one["event"] for one in self.events()]:
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < end, self.events()
            time.sleep(0.02)
        return self.events()[-1]


@contextmanager
def following(world, *words, environment=None):
    out = world.folder / "out"
    with out.open("ab") as to:
        line = [sys.executable, "-m", "smfix", "from-log", "-f", str(world.log), "--json", *words]
        line += ["--state-dir", str(world.folder / "follow"), *world.options("from-log")]
        process = subprocess.Popen(
            line, stdout=to, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | (environment or {})
        )
    try:
        yield Process(process, out)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_it_ends_with_0_within_a_second(world, stop):
    path = world.damaged()
    world.smlog(failed())
    with following(world, "--yes") as follower:
        assert follower.until("repaired")["incident"]["outcome"]["status"] == "repaired"
        began = time.monotonic()
        follower.process.send_signal(stop)
        assert follower.process.wait(10) == 0
        assert time.monotonic() - began < 1.0
        assert follower.process.stderr.read() == ""
    assert path.read_bytes()[-512:] == world.image()[-512:]
    document = world.run("status", "--json", "--state-dir", world.folder / "follow").json
    (follower,) = document["followers"]
    assert document["exit"] == 0
    assert (follower["log"], follower["running"], follower["pid"], follower["unread"]) == (
        str(world.log),
        False,
        None,
        0,
    )
    assert [(one["stage"], one["incident"]["vdi"]) for one in follower["incidents"]] == [("repaired", BASE)]


def test_it_tells_systemd_that_it_is_ready_and_that_it_stops(world):
    address = str(world.folder / "notify")
    world.smlog("")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(10)
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
        with following(world, environment=environment) as follower:
            assert manager.recv(4096).decode() == f"READY=1\nSTATUS=following {world.log}"
            assert manager.recv(4096) == b"WATCHDOG=1"
            follower.process.terminate()
            told = b""
            while told != b"STOPPING=1":
                told = manager.recv(4096)
            assert follower.process.wait(10) == 0


def test_without_leave_it_reports_and_writes_nothing(world):
    path = world.damaged()
    before = path.read_bytes()
    world.smlog(failed())
    with following(world) as follower:
        assert follower.until("waiting")["incident"]["outcome"]["status"] == "would-repair"
        status = world.run("status", "--state-dir", world.folder / "follow")
        assert status.code == 4
        assert f"followed by process {follower.process.pid}" in status.out
        assert "would-repair" in status.out
        assert "next: smfix repair" in status.out
    assert path.read_bytes() == before


def test_a_policy_is_leave_and_a_new_one_is_read_on_sighup(world):
    world.damaged()
    world.smlog(failed())
    policy = world.folder / "policy.toml"
    policy.write_text("[repair]\nfindings = []\n", encoding="utf-8")
    with following(world, "--policy", str(policy)) as follower:
        assert follower.until("waiting")["incident"]["outcome"]["reason"] == "policy"
        policy.write_text("[repair]\nfindings = ['SAFE']\n", encoding="utf-8")
        follower.process.send_signal(signal.SIGHUP)
        with world.log.open("a", encoding="utf-8") as log:
            log.write(failed(pid=5, at="00:20:00"))
        follower.until("repaired")


def test_from_now_on_older_lines_are_not_read(world):
    world.damaged()
    world.smlog(failed())
    with following(world, "--since", "now", "--yes") as follower:
        time.sleep(1.5)
        assert follower.events() == []


def test_events_for_people(world):
    world.damaged()
    world.smlog(failed())
    out = world.folder / "people"
    with out.open("wb") as to:
        line = [sys.executable, "-m", "smfix", "from-log", "--follow", str(world.log), "--yes"]
        line += ["--state-dir", str(world.folder / "follow"), *world.options("from-log")]
        process = subprocess.Popen(line, stdout=to, cwd=ROOT)
    end = time.monotonic() + 15
    while "repaired " not in out.read_text(encoding="utf-8") and time.monotonic() < end:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(10) == 0
    text = out.read_text(encoding="utf-8")
    assert f"seen       {BASE}  /var/run/sr-mount/" in text
    assert "   undo: smfix undo " in text


def test_a_reader_that_goes_away_ends_it(world):
    world.damaged()
    world.smlog(failed())
    process = world.start("from-log", world.log, "-f", "--json", "--yes", "--state-dir", world.folder / "follow")
    try:
        while "repaired" not in process.stdout.readline():
            pass
        process.stdout.close()  # between two events
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a", "b", "-f"], "--follow follows one file"),
        (["-", "-f"], "--follow follows one file"),
        (["a", "-f", "--until", "2h"], "--until does not go with --follow"),
        (["a", "-f", "--since", "2h"], "or say --since now"),
        (["a", "-f", "--yes", "-n"], "contradict each other"),
        (["a", "-f", "--year", "5"], "not a year"),
        (["a", "-f", "--html", "x"], "no report to save"),
        (["a", "--policy", "p"], "go with --follow"),
    ],
)
def test_what_cannot_be_meant_is_16(world, words, said):
    run = world.run("from-log", *words)
    assert run.code == 16
    assert said in run.err


def test_a_mistaken_policy_is_16_and_a_missing_one_8(world):
    policy = world.folder / "policy.toml"
    policy.write_text("wat = 1\n[repair]\nper-hour = 'x'\n", encoding="utf-8")
    run = world.run("from-log", world.log, "-f", "--policy", policy)
    assert run.code == 16
    assert "policy.wat: there is no such setting" in run.err
    assert "repair.per-hour: must be a whole number" in run.err
    assert world.run("from-log", world.log, "-f", "--policy", "/nonexistent").code == 8


@pytest.mark.parametrize("mode", [0o666, 0o660])
def test_a_policy_that_others_may_write_to_is_16(world, mode):
    policy = world.folder / "policy.toml"
    policy.write_text("version = 1\n", encoding="utf-8")
    policy.chmod(mode)
    run = world.run("from-log", world.log, "-f", "--policy", policy)
    assert (run.code, "somebody else may write to it" in run.err) == (16, True)


@pytest.mark.root
def test_a_policy_of_somebody_else_is_16(world):
    policy = world.folder / "policy.toml"
    policy.write_text("version = 1\n", encoding="utf-8")
    os.chown(policy, 12345, 12345)
    assert "somebody else may write to it" in world.run("from-log", world.log, "-f", "--policy", policy).err


def test_a_policy_that_is_a_fifo_is_8(world):
    policy = world.folder / "policy.toml"
    os.mkfifo(policy, mode=0o600)
    run = world.run("from-log", world.log, "-f", "--policy", policy)
    assert (run.code, "not a file" in run.err) == (8, True)


def test_a_log_that_is_no_file_is_8(world):
    os.mkfifo(world.log)
    run = world.run("from-log", world.log, "-f", "--state-dir", world.folder / "follow")
    assert run.code == 8
    assert "not a file" in run.err


def test_the_status_of_nobody(world):
    run = world.run("status", "--state-dir", world.folder / "nothing")
    assert run.code == 0
    assert "No log has been followed" in run.out
    document = world.run("status", "--json", "--state-dir", world.folder / "nothing").json
    assert document == {"schema": "smfix.status/1", "followers": [], "exit": 0}


def test_a_state_that_cannot_be_read_is_said(world):
    folder = world.folder / "follow"
    folder.mkdir()
    (folder / "follow-x.json").write_text("{}", encoding="utf-8")
    document = world.run("status", "--json", "--state-dir", folder).json
    assert document["exit"] == 8
    assert "follow-x.json: KeyError" in document["followers"][0]["note"]


def _disk(path):
    path.write_bytes(b"conectix, and the rest of a disk")


@pytest.mark.parametrize(
    ("name", "make", "code", "says"),
    [
        ("disk.vhd", _disk, 16, "the name of a disk image; name a metrics file, for example smfix.prom"),
        ("new.vhd", None, 16, "the name of a disk image"),
        ("disk", _disk, 16, "is not a metrics file of smfix"),
        ("lock", lambda path: path.write_bytes(b""), 16, "remove it first"),
        ("fifo", os.mkfifo, 16, "not a regular file"),
        ("folder", lambda path: path.mkdir(), 16, "not a regular file"),
        ("link", lambda path: path.symlink_to(path.parent / "SMlog"), 16, "symbolic link"),
        ("SMlog", None, 16, "is not a metrics file of smfix"),
        ("none/smfix.prom", None, 8, "No such file or directory"),
        ("", None, 16, "name a file"),
    ],
)
def test_a_metrics_file_that_cannot_be_meant_is_refused_before_anything_is_followed(world, name, make, code, says):
    world.smlog(failed())
    path = world.folder / name
    if make is not None:
        make(path)
    before = {each: (os.lstat(each).st_ino, os.lstat(each).st_size) for each in world.folder.iterdir()}
    given = f"{path}/" if not name else path
    run = world.run("from-log", world.log, "-f", "--metrics", given, "--state-dir", world.folder / "state")
    assert run.code == code
    assert says in run.err
    assert len(run.err.strip().splitlines()) == 1
    assert {each: (os.lstat(each).st_ino, os.lstat(each).st_size) for each in world.folder.iterdir()} == before
    units = world.folder / "units"
    units.mkdir()
    installed = world.run("service", "install", "--metrics", given, "--unit-dir", units)
    assert installed.code == (16 if code == 16 else 0)


def test_a_unit_of_somebody_else_is_not_replaced(world):
    unit = world.folder / service.UNIT
    unit.write_text("[Unit]\nDescription=ours\n", encoding="utf-8")
    run = world.run("service", "install", "--unit-dir", world.folder)
    assert run.code == 16
    assert "not a unit that `smfix service install` wrote" in run.err
    assert unit.read_text(encoding="utf-8") == "[Unit]\nDescription=ours\n"
    unit.unlink()
    assert world.run("service", "install", "--unit-dir", world.folder).code == 0
    assert world.run("service", "install", "--yes", "--unit-dir", world.folder).code == 0


def test_the_service_is_installed_looked_at_and_taken_away(world):
    units = world.folder / "units"
    units.mkdir()
    assert world.run("service", "status", "--unit-dir", units).code == 4
    run = world.run("service", "install", "--yes", "--metrics", "/var/lib/a b/50%.prom", "--unit-dir", units)
    assert run.code == 0
    text = (units / "smfix.service").read_text(encoding="utf-8")
    assert "Type=notify" in text
    assert 'from-log --follow /var/log/SMlog --yes --metrics "/var/lib/a b/50%%.prom"\n' in text
    assert '"-/var/lib/a b"\n' in text
    assert world.run("service", "status", "--unit-dir", units).code == 0
    assert world.run("service", "uninstall", "--unit-dir", units).code == 0
    assert world.run("service", "uninstall", "--unit-dir", units).code == 8
    assert list(units.iterdir()) == []


@pytest.mark.tools("systemd-analyze")
@pytest.mark.parametrize("log", ["/var/log/SMlog", "/var/log/a b/100%/$HOME\\x"])
def test_systemd_takes_every_line_of_the_unit(world, log):
    """And no line of it is one that systemd passes over with a warning."""
    words = ["--yes", "--metrics", "/var/lib/node exporter/50%.prom", "--unit-dir", world.folder]
    assert world.run("service", "install", log, *words).code == 0
    unit = world.folder / service.UNIT
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.tools("systemd-analyze")
def test_the_units_sandbox_is_as_tight_as_it_was(world):
    """What it may do is what it needs: read every process, write disks, run LVM's tools, speak to XAPI."""
    assert world.run("service", "install", "--yes", "--unit-dir", world.folder).code == 0
    line = ["systemd-analyze", "security", "--offline=true", "--threshold=58", str(world.folder / service.UNIT)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=os.environ | {"SYSTEMD_PAGER": ""})
    assert done.returncode == 0, done.stdout


def test_a_mistaken_policy_is_not_installed(world):
    policy = world.folder / "policy.toml"
    policy.write_text("wat = 1", encoding="utf-8")
    assert world.run("service", "install", "--policy", policy, "--unit-dir", world.folder).code == 16


def test_systemd_is_driven(world, monkeypatch):
    """With stubs for systemctl and its folders: what is called, in which order, and what it says back."""
    calls = world.folder / "calls"
    stub = world.folder / "bin" / "systemctl"
    stub.parent.mkdir()
    stub.write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\ncase $1 in is-active) echo active;; is-enabled) echo enabled;; esac\n'
    )
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stub.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(service, "RUNNING", str(world.folder))
    monkeypatch.setattr(service, "UNIT_DIR", str(world.folder))
    assert world.run("service", "install", "--yes").code == 0
    status = world.run("service", "status")
    assert (status.code, status.out.split(": ", 1)[1]) == (0, "installed; active, enabled\n")
    assert world.run("service", "uninstall").code == 0
    assert calls.read_text(encoding="utf-8").splitlines() == [
        "daemon-reload",
        "enable smfix.service",
        "restart smfix.service",
        "is-enabled smfix.service",
        "is-active smfix.service",
        "disable --now smfix.service",
        "daemon-reload",
    ]
    stub.write_text("#!/bin/sh\necho no bus >&2; exit 1\n")
    run = world.run("service", "install")
    assert run.code == 8
    assert "systemctl daemon-reload: no bus" in run.err


def test_the_unit_of_a_package_is_known_and_left_to_it(world, monkeypatch):
    own, packaged = world.folder / "own", world.folder / "packaged"
    own.mkdir()
    packaged.mkdir()
    monkeypatch.setattr(service, "UNIT_DIR", str(own))
    monkeypatch.setattr(service, "PACKAGED", str(packaged))
    monkeypatch.setattr(service, "RUNNING", str(world.folder / "nowhere"))
    assert world.run("service", "status").code == 4
    (packaged / "smfix.service").write_text("", encoding="utf-8")
    status = world.run("service", "status")
    assert (status.code, status.out.startswith(f"{packaged}/smfix.service: installed")) == (0, True)
    run = world.run("service", "uninstall")
    assert (run.code, "belongs to the package" in run.err) == (8, True)
    assert (packaged / "smfix.service").exists()
    assert world.run("service", "install").code == 0  # one of one's own goes before it
    assert world.run("service", "status").out.startswith(f"{own}/smfix.service: installed")


def test_the_running_follower_is_told_to_read_its_policy_again(world):
    states, policy = world.folder / "follow", world.folder / "policy.toml"
    run = world.run("service", "reload", "--state-dir", states)
    assert (run.code, "no follower is running here" in run.err) == (8, True)
    world.smlog("")
    policy.write_text("version = 1\n", encoding="utf-8")
    process = world.start("from-log", world.log, "-f", "--policy", policy, "--state-dir", states)
    try:
        ends = time.monotonic() + 20
        while (run := world.run("service", "reload", "--state-dir", states)).code and time.monotonic() < ends:
            time.sleep(0.05)
        assert f"sent SIGHUP to process {process.pid}" in run.err
        assert "policy" in process.stderr.readline()
    finally:
        process.terminate()
        assert process.wait(10) == 0
        process.stdout.close()
        process.stderr.close()


def test_a_line_end_in_a_path_makes_no_unit(world, capsys):
    assert app.run(["service", "install", "a\nb", "--unit-dir", str(world.folder)]) == 16
    assert "cannot be written into a unit" in capsys.readouterr().err


def test_the_live_test_of_some_seconds(tmp_path):
    """`make soak` in short: see tools/soak.py."""
    soak = Soak(str(tmp_path), seconds=12, rate=2000, rotations=10, kills=4)
    try:
        soak.run()
    finally:
        if soak.follower is not None and soak.follower.poll() is None:
            soak.follower.kill()
            soak.follower.wait()
    assert soak.failures == [], soak.table()
    assert soak.tally["incidents missed"] == 0
    assert soak.tally["kills"] == 4
