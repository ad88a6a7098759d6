"""The story of an incident, played by the real vhd-util: from the interrupted coalesce to the confirmed cure.

A base copy and its leaf are made by vhd-util. Its coalesce is stopped in the middle of the base copy by a
limit on file sizes, as a full disk or a kill does it. What the storage manager then logs holds the real
output of the real check. The follower repairs; vhd-util coalesces again; the log says so; confirmed.
"""

from __future__ import annotations

import os
import resource
import subprocess

import pytest
from test_loop import Live

from guest import guest_data, guest_map
from world import BASE, LEAF, SR, make_world

pytestmark = pytest.mark.vhdutil
MIB = 1 << 20


def vhd(*words, limit=None):
    """Run vhd-util; `limit`: no file grows beyond that many bytes."""

    def bound():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    line = ["vhd-util", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False, preexec_fn=bound if limit else None)


def made(*words):
    done = vhd(*words)
    assert done.returncode == 0, done.stdout + done.stderr


def syslog(lines, pid, ident="SM"):
    return "".join(f"May 15 00:18:35 host {ident}: [{pid}] {line}\n" for line in lines)


def checked(path, pid):
    """What SM logs of its check of `path`: the command, and how it ended; and whether it did well."""
    command = ["/usr/bin/vhd-util", "check", "--debug", "-n", str(path)]
    done = vhd(*command[1:])
    if done.returncode == 0:
        return syslog([str(command), "  pread SUCCESS"], pid), True
    record = f"FAILED in util.pread: (rc {done.returncode}) stdout: '{done.stdout}', stderr: '{done.stderr}'"
    return syslog([str(command), *record.split("\n")], pid), False


def test_an_interrupted_coalesce_is_repaired_coalesced_again_and_confirmed(tmp_path, capsys, monkeypatch):
    world = make_world(tmp_path, capsys, monkeypatch)
    base, leaf = world.path(BASE), world.path(LEAF)
    made("create", "-n", base, "-s", 16)
    made("snapshot", "-n", leaf, "-p", base)
    made("set", "-n", base, "-f", "hidden", "-v", 1)
    made("fill", "-n", leaf)  # allocates every block
    raw = bytearray(leaf.read_bytes())
    for sector, at in guest_map(bytes(raw)).items():
        raw[at : at + 512] = f"sector {sector} of the guest".encode().ljust(512, b".")
    leaf.write_bytes(raw)
    guest = guest_data(bytes(raw))
    assert len(guest) == 16 * MIB // 512

    # The coalesce is stopped where it begins the second block; GC finds the base copy corrupted.
    assert vhd("coalesce", "-n", leaf, limit=base.stat().st_size + 2 * MIB + 4096).returncode != 0
    report, is_sound = checked(base, 26919)
    assert not is_sound
    report += syslog(
        [f"coalesce: EXCEPTION <class 'util.SMException'>, VHD *{BASE[:8]}(16.000M/3.003M) corrupted"], 26919, "SMGC"
    )
    live = Live(world).start()
    try:
        live.append(report)
        live.until(lambda: "repaired" in live.names())
        assert [one["code"] for one in live.last()["findings"]] == ["VHD301"]
        assert vhd("check", "-n", base).returncode == 0

        # GC comes again: it coalesces, checks, relinks.
        again = [f"Coalescing {LEAF[:8]}(16.000M/16.035M) -> *{BASE[:8]}(16.000M/4.007M)"]
        again += [f"  Running VHD coalesce on {LEAF[:8]}(16.000M/16.035M)"]
        made("coalesce", "-n", leaf)
        again += ["  Child process completed successfully"]
        line, is_sound = checked(base, 27000)
        assert is_sound
        live.append(syslog([f"=== SR {SR}: gc ===", *again], 27000, "SMGC") + line)
        live.until(lambda: "confirmed" in live.names())
        assert live.names() == ["seen", "diagnosed", "repaired", "confirmed"]
        assert {one["incident"]["vdi"] for one in live.told} == {BASE}
    finally:
        live.stop()
    os.unlink(leaf)  # as SM does after relinking
    assert guest_data(base.read_bytes()) == guest
