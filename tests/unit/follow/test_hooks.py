"""Hooks: a document on stdin, a time limit, children that die with them."""

from __future__ import annotations

import time

from smfix.follow.hooks import HookRun


def ended(run, seconds=10.0):
    end = time.monotonic() + seconds
    while (said := run.poll()) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    return said


def test_it_gets_the_document_and_a_clean_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/unpacked")
    heard = tmp_path / "heard"
    text = "x" * 200_000  # more than a pipe holds: nobody waits for a hook that does not read
    run = HookRun(("/bin/sh", "-c", f"env > {tmp_path}/env; pwd >> {tmp_path}/env; cat > {heard}"), text, 10)
    assert ended(run) == ""
    assert heard.read_text(encoding="utf-8") == text
    environment = (tmp_path / "env").read_text(encoding="utf-8").splitlines()
    assert not [line for line in environment if line.startswith("LD_")]
    assert environment[-1] == "/"


def test_it_is_killed_with_its_children_after_its_time(tmp_path):
    alive = tmp_path / "alive"
    run = HookRun(("/bin/sh", "-c", f"(sleep 1; touch {alive}) & wait"), "", 0.2)
    assert ended(run) == "hook /bin/sh: killed after 0.2 s"
    time.sleep(1.2)
    assert not alive.exists()


def test_what_cannot_be_started_is_said():
    run = HookRun(("/nonexistent",), "", 1)
    assert run.poll() == "hook /nonexistent: No such file or directory"
    assert not run.stop()


def test_at_the_end_it_has_a_moment():
    assert HookRun(("/bin/true",), "", 10).stop()
    assert not HookRun(("/bin/false",), "", 10).stop()
    began = time.monotonic()
    assert not HookRun(("/bin/sleep", "30"), "", 60).stop()
    assert time.monotonic() - began < 1.5
