"""A host of a pool, end to end: the command line, the real XenAPI client, a real server, real processes as holders."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from smfix.follow import commands
from smfix.host.mounts import mount_of
from smfix.repair import journal_store
from smfix.sm.sr_types import file
from smfix.usecases import guard
from smfix.usecases.run_options import RunOptions
from smfix.xapi import client, login
from world import BASE, LEAF, OTHER, SR, failed, make_world
from xapi_host import GONE, HERE, ME, PASSWORD, THEM, XapiHost, certificates

pytest.importorskip("XenAPI", reason="the XenAPI package is not installed")

# On a host of a pool, who cannot see every process must not write.
pytestmark = pytest.mark.root


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    made = make_world(tmp_path, capsys, monkeypatch)
    inventory = tmp_path / "inventory"
    inventory.write_text(f"INSTALLATION_UUID='{HERE}'\n")
    monkeypatch.setattr("smfix.sm.locks.INVENTORY", str(inventory))
    monkeypatch.setattr("smfix.sm.locks.RUNNING_WAIT", 0.2)
    monkeypatch.setattr(guard, "POOL_CONF", str(tmp_path / "no-pool.conf"))
    return made


@pytest.fixture
def locks(tmp_path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def pool(world, tmp_path, monkeypatch):
    """XAPI of this host, which coordinates its pool; the SR is shared."""
    made = XapiHost(SR, shared=True)
    made.vdi(BASE, "base copy", managed=False)
    made.vdi(LEAF, "web-root", parent=BASE)
    made.vm("web01", LEAF)
    made.listen(tmp_path / "xapi")
    monkeypatch.setattr(login, "SOCKET", str(tmp_path / "xapi"))
    yield made
    made.stop()


@pytest.fixture
def repair(world, locks):
    """Run a repair; return (status, reason) and the run."""

    def run(target: object, *options: str):
        done = world.run("repair", target, "--yes", "--json", "--sm-lock-dir", locks, *options)
        outcome = done.json["images"][0]["outcome"]
        return (outcome["status"], outcome["reason"]), outcome, done

    return run


@pytest.fixture
def leaf(world) -> Path:
    world.put(world.image(BASE, hidden=1), BASE)
    return world.damaged(LEAF, parent=BASE)


@pytest.fixture
def base(world) -> Path:
    world.put(world.image(LEAF, parent=BASE), LEAF)
    return world.put(world.image(BASE, hidden=1)[:-512] + b"x" * 512, BASE)


# ------------------------------------------------------------------------------ who has it


def test_a_detached_leaf_is_kept_from_the_pool_and_repaired(pool, repair, leaf, monkeypatch):
    create = journal_store.create
    seen = []

    def created(*given):
        seen.append(dict(pool.config(LEAF)))
        return create(*given)

    monkeypatch.setattr(journal_store, "create", created)
    how, outcome, run = repair(leaf)
    assert how == ("repaired", None), outcome
    assert run.code == 1
    assert [config["paused"] for config in seen] == ["smfix"]
    assert "paused" not in pool.config(LEAF)


@pytest.mark.parametrize("ref", [THEM, GONE])
def test_attached_read_write_on_another_host(world, pool, repair, leaf, ref):
    before = leaf.read_bytes()
    pool.config(LEAF)[f"host_{ref}"] = "RW"
    how, outcome, run = repair(leaf)
    assert how == ("refused", "in-use")
    assert run.code == 4
    assert ("xen-2" if ref == THEM else "left the pool") in outcome["message"]
    assert leaf.read_bytes() == before
    # Its footer is missing because it is open: that is no damage.
    checked = world.run("check", leaf, "--json")
    assert (checked.code, checked.json["images"][0]["verdict"]) == (0, "in-use")
    assert [finding["code"] for finding in checked.json["images"][0]["findings"]] == ["VHD901"]


def test_attached_read_only_elsewhere_is_no_matter_to_a_hidden_disk(pool, repair, base):
    pool.config(LEAF)[f"host_{THEM}"] = "RO"
    pool.config(BASE)[f"host_{THEM}"] = "RO"
    assert repair(base)[0] == ("repaired", None)


def test_the_leaf_of_a_hidden_disk_runs_elsewhere(pool, repair, base):
    pool.config(LEAF)[f"host_{THEM}"] = "RW"
    assert repair(base)[0] == ("repaired", None)


def test_attached_read_only_elsewhere_a_leaf_is_only_appended_to(world, pool, repair, leaf):
    pool.config(LEAF)[f"host_{THEM}"] = "RO"
    assert repair(leaf)[0] == ("repaired", None)
    whole = world.image(LEAF, parent=BASE)
    world.put(b"x" * 512 + whole[512:], LEAF)  # its backup footer is where a reader looks
    how, outcome, _ = repair(leaf)
    assert how == ("refused", "in-use")
    assert "this repair changes metadata that a reader uses" in outcome["message"]


def test_a_key_of_this_host_is_stale_where_nobody_has_the_disk(world, pool, repair, leaf):
    pool.config(LEAF)[f"host_{ME}"] = "RW"
    with world.holding(leaf):
        assert repair(leaf)[0] == ("refused", "in-use")
    assert repair(leaf)[0] == ("repaired", None)


@pytest.mark.parametrize("key", ["paused", "relinking", "activating"])
def test_sm_is_at_work_on_it(pool, repair, leaf, key):
    pool.config(LEAF)[key] = "true"
    assert repair(leaf)[0] == ("refused", "sm-pending")
    assert pool.config(LEAF)[key] == "true"


def test_a_host_that_attaches_at_the_last_moment_wins(pool, repair, leaf):
    before = leaf.read_bytes()
    pool.hooks["VDI.add_to_sm_config"] = lambda: pool.config(LEAF).update({f"host_{THEM}": "RW"})
    how, _, _ = repair(leaf)
    assert how == ("refused", "in-use")
    assert leaf.read_bytes() == before
    assert "paused" not in pool.config(LEAF)


def test_a_pause_that_a_killed_smfix_left_is_ended(pool, repair, leaf):
    pool.config(LEAF)["paused"] = "smfix"
    assert repair(leaf)[0] == ("repaired", None)
    assert "paused" not in pool.config(LEAF)


def test_a_parent_that_is_unhidden_meanwhile(world, pool, repair, base, monkeypatch):
    """Leaf-coalesce un-hides the parent between our look and our locks."""
    unhidden = world.image(BASE)[:-512] + b"x" * 512
    held = guard.HostGuard.host_locks

    def taken(self, image):
        base.write_bytes(unhidden)
        return held(self, image)

    monkeypatch.setattr(guard.HostGuard, "host_locks", taken)
    assert repair(base)[0] == ("refused", "stale")
    assert base.read_bytes() == unhidden


def test_another_host_is_the_coordinator(pool, repair, base):
    pool.master = THEM
    how, outcome, _ = repair(base)
    assert how == ("refused", "shared-sr-unknown")
    assert "are on xen-2 (192.0.2.2): run smfix there" in outcome["message"]


def test_a_local_sr_is_this_hosts_alone(pool, repair, leaf):
    pool.sr["shared"] = False
    pool.master = THEM
    pool.pbds = {"OpaqueRef:pbd": {"host": ME, "currently_attached": True}}
    assert repair(leaf)[0] == ("repaired", None)
    assert "VDI.add_to_sm_config" not in pool.calls


def test_undo_asks_the_pool_too(world, pool, repair, leaf, locks):
    before = leaf.read_bytes()
    _, outcome, _ = repair(leaf)
    pool.config(LEAF)[f"host_{THEM}"] = "RW"
    undone = world.run("undo", outcome["journal"], "--yes", "--json", "--sm-lock-dir", locks)
    assert undone.json["outcome"]["reason"] == "in-use"
    assert undone.json["names"]["vms"] == ["web01"]
    del pool.config(LEAF)[f"host_{THEM}"]
    assert world.run("undo", outcome["journal"], "--yes", "--sm-lock-dir", locks).code == 0
    assert leaf.read_bytes() == before


# ------------------------------------------------------------------------------ no answer


@pytest.fixture
def shared_mount(world, monkeypatch):
    """The SR lies on what counts as a shared file system, whoever is asked."""
    monkeypatch.setattr(file, "SHARED_FILE_SYSTEMS", {mount_of(str(world.sr)).kind})


def test_gone_in_the_middle_a_leaf_on_shared_storage_is_refused(pool, repair, leaf, shared_mount):
    before = leaf.read_bytes()
    pool.hooks["VDI.add_to_sm_config"] = pool.cut
    how, outcome, _ = repair(leaf)
    assert how == ("refused", "shared-sr-unknown")
    assert "XAPI" in outcome["message"]
    assert leaf.read_bytes() == before


def test_gone_in_the_middle_a_hidden_disk_is_repaired_by_what_is_seen_here(pool, repair, base, shared_mount):
    pool.hooks["VDI.get_sm_config"] = pool.cut
    how, _, run = repair(base)
    assert how == ("repaired", None)
    assert run.json["rescans"][0]["done"] is False
    assert run.json["rescans"][0]["next"] == [f"xe sr-scan uuid={SR}"]


def test_gone_while_the_disk_is_paused(pool, repair, leaf):
    """The repair is done, and who must end the pause is told."""
    pool.hooks["VDI.remove_from_sm_config"] = pool.cut
    how, outcome, _ = repair(leaf)
    assert how == ("repaired", None)
    assert "cannot be attached until that is undone" in outcome["message"]
    assert outcome["next"][0] == f"xe vdi-param-remove uuid={LEAF} param-name=sm-config param-key=paused"


def test_a_slow_server_holds_nobody_up_for_long(pool, repair, leaf, shared_mount, monkeypatch):
    monkeypatch.setattr(client, "NOW_LIMIT", 0.3)
    wake = threading.Event()
    pool.hooks["VDI.get_sm_config"] = lambda: wake.wait(8)
    begun = time.monotonic()
    how, outcome, _ = repair(leaf)
    assert time.monotonic() - begun < 4
    wake.set()
    assert how == ("refused", "shared-sr-unknown")
    assert "did not answer VDI.get_sm_config in time" in outcome["message"]


def test_without_xapi_the_mount_decides(world, repair, leaf, base, shared_mount):
    assert repair(base)[0] == ("repaired", None)
    world.damaged(LEAF, parent=BASE)
    assert repair(leaf)[0] == ("refused", "shared-sr-unknown")


# ------------------------------------------------------------------------------ names, and the rescan


def test_one_scan_for_an_sr_of_which_two_disks_were_repaired(world, pool, locks):
    world.put(world.image(BASE, hidden=1)[:-512], BASE)
    world.damaged(LEAF, parent=BASE)
    pool.vdi(OTHER, "gone")
    log = world.smlog(failed(BASE), failed(LEAF, pid=77, at="00:19:00"), failed(OTHER, pid=78, at="00:20:00"))
    run = world.run("from-log", log, "--yes", "--json", "--sm-lock-dir", locks)
    document = run.json
    assert [one["outcome"]["status"] for one in document["incidents"]] == ["repaired", "repaired", "not-found"]
    assert document["rescans"] == [
        {
            "sr": SR,
            "name": "NFS gold",
            "done": True,
            "message": "rescanned; the GC goes on in the background, and may wait some minutes first",
            "unhealthy_before": 1,
            "unhealthy_after": 1,
            "gc": True,
            "coalesce": True,
            "next": [],
        }
    ]
    assert pool.scans == 1
    names = [one["names"] for one in document["incidents"]]
    assert names[0] == {"vdi": "base copy", "sr": "NFS gold", "vms": ["web01"]}
    assert names[1]["vdi"] == "web-root"
    assert names[2] == {"vdi": "gone", "sr": "NFS gold", "vms": []}
    assert "xe sr-scan" not in str(document["incidents"][0]["outcome"]["next"])


def test_the_text_names_them_too(world, pool, leaf, locks):
    run = world.run("from-log", world.smlog(failed(LEAF)), "--yes", "--sm-lock-dir", locks)
    assert f"SR       {SR} (NFS gold)" in run.out
    assert "disk     web-root" in run.out
    assert "VM       web01" in run.out
    assert "unhealthy: 1 before the scan, 1 right after it" in run.out
    assert "VM       web01" in world.run("check", leaf).out
    assert "VM       web01" in world.run("repair", leaf).out


def test_no_rescan(world, pool, repair, leaf):
    _, outcome, run = repair(leaf, "--no-rescan")
    assert (pool.scans, run.json["rescans"]) == (0, [])
    assert outcome["next"] == [f"xe sr-scan uuid={SR}"]
    world.damaged(LEAF, parent=BASE)
    dry = world.run("repair", leaf, "--json", "--no-rescan")
    assert dry.json["images"][0]["outcome"]["next"][0].endswith("--no-rescan")
    assert pool.scans == 0


def test_a_dry_run_scans_nothing(world, pool, leaf):
    world.run("repair", leaf, "--json")
    assert pool.scans == 0
    assert "VDI.add_to_sm_config" not in pool.calls


@pytest.mark.parametrize(
    ("switches", "said"),
    [({"gc": "false"}, "gc=false"), ({"gc": "false", "coalesce": "false"}, "gc=false and coalesce=false")],
)
def test_an_sr_whose_gc_is_switched_off(pool, repair, leaf, switches, said):
    pool.sr["other_config"] = switches
    rescan = repair(leaf)[2].json["rescans"][0]
    assert f"its other-config says {said}: nothing is coalesced" in rescan["message"]
    assert rescan["gc"] is False


def test_gc_finishes_while_the_scan_runs(pool, repair, leaf):
    pool.hooks["SR.scan"] = lambda: pool.config(LEAF).pop("vhd-parent")
    rescan = repair(leaf)[2].json["rescans"][0]
    assert (rescan["unhealthy_before"], rescan["unhealthy_after"]) == (1, 0)


def test_a_followers_rescan_holds_up_no_other_call(pool, monkeypatch):
    """A scan takes minutes, and the next repair must not wait for its answers under SM's locks."""
    begun, may_end = threading.Event(), threading.Event()

    def slow():
        begun.set()
        may_end.wait(30)

    pool.hooks["SR.scan"] = slow
    asked = client.Pool(login.login(None, {}, socket=login.SOCKET), here=HERE)
    told = []
    scan = threading.Thread(target=lambda: told.append(commands._rescan(SR, RunOptions(pool=asked))))
    scan.start()
    assert begun.wait(30)
    assert asked.disk_state(LEAF, SR).is_master_here
    asked.close()
    assert told == []
    may_end.set()
    scan.join()
    assert told == [(True, "rescanned; the GC goes on in the background, and may wait some minutes first")]
    assert commands._rescan(SR, RunOptions()) == (False, "not rescanned: no XAPI")


def test_a_call_in_hand_does_not_hold_up_the_end(pool, monkeypatch):
    monkeypatch.setattr(client, "_TO_CLOSE", 0.05)
    begun, may_end = threading.Event(), threading.Event()
    pool.hooks["SR.scan"] = lambda: (begun.set(), may_end.wait(30))
    asked = client.Pool(login.login(None, {}, socket=login.SOCKET), here=HERE)
    scan = threading.Thread(target=asked.scan, args=(SR,))
    scan.start()
    assert begun.wait(30)
    asked.close()
    assert scan.is_alive()
    may_end.set()
    scan.join()
    asked.close()


def test_a_scan_that_fails_takes_no_repair_back(world, pool, locks, leaf):
    pool.hooks["SR.scan"] = pool.cut
    run = world.run("repair", leaf, "--yes", "--sm-lock-dir", locks)
    assert run.code == 1
    assert "not rescanned: XAPI" in run.out
    assert f"xe sr-scan uuid={SR}" in run.out


# ------------------------------------------------------------------------------ a remote pool


@pytest.mark.tools("openssl")
def test_a_remote_pool_by_a_login_file(world, tmp_path, leaf, monkeypatch):
    far = XapiHost(SR, shared=True)
    far.vdi(LEAF, "web-root")
    ca, certificate, key = certificates(tmp_path)
    port = far.listen_tls(certificate, key)
    file = tmp_path / "login.toml"
    text = f'url = "https://127.0.0.1:{port}"\nuser = "admin"\npassword = "{PASSWORD}"\n'
    file.write_text(f'{text}ca = "{ca}"\n')
    file.chmod(0o600)
    far.config(LEAF)[f"host_{THEM}"] = "RW"
    run = world.run("repair", leaf, "--yes", "--json", "--xapi-login", file)
    outcome = run.json["images"][0]["outcome"]
    assert (outcome["status"], outcome["reason"]) == ("refused", "in-use")
    assert run.json["images"][0]["names"]["vdi"] == "web-root"
    assert PASSWORD not in run.out + run.err
    calls = len(far.calls)
    file.write_text(text)
    wrong = world.run("repair", leaf, "--yes", "--xapi-login", file)
    assert wrong.code == 8
    assert "a certificate that is not to be trusted" in wrong.err
    assert len(far.calls) == calls
    far.stop()


def test_a_login_that_is_none_is_usage(world, leaf, tmp_path):
    file = tmp_path / "login.toml"
    file.write_text("")
    file.chmod(0o644)
    run = world.run("repair", leaf, "--yes", "--xapi-login", file)
    assert (run.code, "mode 0600" in run.err) == (16, True)


# ------------------------------------------------------------------------------ real holders, other names


@pytest.fixture
def other_names(world, tmp_path):
    """The SR by a link, as /var/run leads to /run, and by a second mount."""
    link = tmp_path / "var-run"
    link.symlink_to(world.mount)
    second = tmp_path / "second"
    second.mkdir()
    done = subprocess.run(["mount", "--bind", world.sr, second], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no bind mounts here: {done.stderr.strip()}")
    yield link / SR, second
    subprocess.run(["umount", "--lazy", second], check=True)


@pytest.mark.tools("mount", "umount")
@pytest.mark.parametrize("by", [0, 1], ids=["link", "second mount"])
def test_a_holder_is_found_by_whatever_name_it_has(world, repair, leaf, base, other_names, by):
    world.damaged(LEAF, parent=BASE)
    before = leaf.read_bytes()
    with world.holding(other_names[by] / leaf.name) as pid:
        how, outcome, _ = repair(leaf)
        assert how == ("refused", "in-use")
        assert f"(pid {pid}) read-write" in outcome["message"]
        assert world.run("check", leaf, "--json").json["images"][0]["verdict"] == "in-use"
    assert leaf.read_bytes() == before
    with world.holding(other_names[by] / base.name):
        assert repair(base)[0] == ("refused", "in-use")  # as a coalesce into it would be
    with world.holding(other_names[by] / base.name, "rb"):
        assert repair(base)[0] == ("repaired", None)


@pytest.mark.tools("mount", "umount")
def test_the_image_itself_may_be_named_by_either(world, repair, leaf, other_names):
    with world.holding(leaf):
        for place in other_names:
            assert repair(place / leaf.name)[0] == ("refused", "in-use")
    # Its locks are those of the name in its SR: by another name nothing is written.
    how, outcome, _ = repair(other_names[1] / leaf.name)
    assert how == ("refused", "unsafe-path")
    assert "name it by that path" in outcome["message"]
    assert repair(leaf)[0] == ("repaired", None)


def test_a_reader_of_a_leaf_is_appended_behind(world, repair, leaf):
    with world.holding(leaf, "rb"):
        assert repair(leaf)[0] == ("repaired", None)
        whole = world.image(LEAF, parent=BASE)
        world.put(b"x" * 512 + whole[512:], LEAF)
        how, outcome, _ = repair(leaf)
        assert how == ("refused", "in-use")
        assert "is read by" in outcome["message"]
    assert repair(leaf)[0] == ("repaired", None)


def test_a_paused_tapdisk_holds_its_disk(world, repair, leaf, tmp_path, monkeypatch):
    stub = tmp_path / "bin" / "tap-ctl"
    stub.parent.mkdir()
    stub.write_text(f"#!/bin/sh\necho 'pid=4711 minor=0 state=0x20 args=vhd:{leaf}'\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stub.parent}:{os.environ['PATH']}")
    how, outcome, _ = repair(leaf)
    assert how == ("refused", "in-use")
    assert "paused tapdisk (pid 4711)" in outcome["message"]
    stub.write_text("#!/bin/sh\nexit 1\n")
    how, outcome, _ = repair(leaf)
    assert how == ("refused", "in-use")
    assert "the tapdisks (tap-ctl failed (1)" in outcome["message"]


def test_a_real_coalesce_into_it(world, repair, base):
    """A process that has the parent read-write and the child read-only, as `vhd-util coalesce` has."""
    program = (
        "import os, sys; os.open(sys.argv[1], os.O_RDONLY); os.open(sys.argv[2], os.O_RDWR); "
        "print(flush=True); sys.stdin.read()"
    )
    line = [sys.executable, "-c", program, str(world.path(LEAF)), str(base)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as coalesce:
        assert coalesce.stdout.readline()
        assert repair(base)[0] == ("refused", "in-use")
        coalesce.communicate()
    assert repair(base)[0] == ("repaired", None)
