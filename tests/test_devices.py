"""Images on block devices, through the command line: loop devices, alone and as volumes of an LVM SR. Needs root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lvm_host import LvmHost
from smfix.host import activation
from smfix.vhd import make
from world import BASE, LEAF, OTHER, SR, failed, make_world, uuid_of
from xapi_host import HERE, THEM, XapiHost

pytestmark = [pytest.mark.root, pytest.mark.tools("losetup", "blockdev")]

MIB = 1 << 20


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


def on_device(raw: bytes, size: int = 16 * MIB) -> bytes:
    """An image as a volume holds it: its footer in the last sector, nothing between data and footer."""
    body = bytearray(size)
    body[: len(raw) - 512] = raw[:-512]
    body[-512:] = raw[-512:]
    return bytes(body)


def without_footer(raw: bytes) -> bytes:
    return raw[:-512] + bytes(512)


def status(run) -> list[tuple[str, str | None]]:
    return [(image["outcome"]["status"], image["outcome"]["reason"]) for image in run.json["images"]]


@pytest.fixture
def device(world, loop_device, tmp_path):
    """A function bytes -> (loop device, its file)."""

    def attach(raw: bytes) -> tuple[str, Path]:
        file = tmp_path / "device.img"
        file.write_bytes(raw)
        return loop_device(file), file

    return attach


def content(path: str) -> bytes:
    subprocess.run(["sync", path], check=True)
    return Path(path).read_bytes()


# ------------------------------------------------------------------------------ a device alone


def test_a_sound_device_is_valid_and_stays(world, device):
    whole = on_device(world.image())
    loop, file = device(whole)
    assert world.run("check", loop).code == 0
    assert world.run("repair", loop, "--yes").code == 0
    assert file.read_bytes() == whole


def test_the_footer_goes_into_the_last_sector_and_undo_takes_it_away(world, device):
    whole = on_device(world.image())
    loop, file = device(without_footer(whole))
    assert world.run("check", loop, "--json").json["images"][0]["verdict"] == "invalid"
    dry = world.run("repair", loop, "--json")
    assert status(dry) == [("would-repair", None)]
    assert content(loop) == without_footer(whole)
    run = world.run("repair", loop, "--yes", "--json")
    assert (run.code, status(run)) == (1, [("repaired", None)])
    outcome = run.json["images"][0]["outcome"]
    assert outcome["plan"]["edits"] == [{"op": "write", "offset": len(whole) - 512, "length": 512}]
    assert content(loop) == whole
    assert world.run("check", loop).code == 0
    again = world.run("repair", loop, "--yes", "--json")
    assert status(again) == [("valid", None)]
    undone = world.run("undo", outcome["journal"], "--yes")
    assert undone.code == 0, undone.err + undone.out
    assert content(loop) == without_footer(whole)
    assert file.stat().st_size == len(whole)


@pytest.mark.vhdutil
def test_vhd_util_agrees_on_a_repaired_device(world, device, vhd_util):
    loop, _ = device(without_footer(on_device(world.image())))
    before = subprocess.run([vhd_util, "check", "-n", loop], capture_output=True, check=False)
    assert before.returncode != 0
    assert world.run("repair", loop, "--yes").code == 1
    after = subprocess.run([vhd_util, "check", "-n", loop], capture_output=True, text=True, check=False)
    assert after.returncode == 0, after.stdout


def test_a_lost_backup_footer(world, device):
    whole = on_device(world.image())
    loop, _ = device(b"x" * 512 + whole[512:])
    assert world.run("repair", loop, "--yes").code == 1
    assert content(loop) == whole


def test_a_block_over_the_last_sector_is_real_loss(world, device):
    """The volume was deflated too far: its last sector is the guest's."""
    raw = world.image()
    end = len(raw) - 512
    loop, _ = device(raw[: end - 4096])
    before = content(loop)
    for options in (["--yes"], ["--yes", "--confirm", "VHD301"], ["--yes", "--confirm", "VHD108"]):
        run = world.run("repair", loop, *options, "--json")
        assert (run.code, status(run)[0][0]) == (4, "refused"), options
    assert content(loop) == before


def test_a_device_that_ends_with_its_data_has_no_room_for_a_footer(world, device, tmp_path, loop_device):
    raw = world.image()[:-512]
    assert len(raw) % 512 == 0
    file = tmp_path / "exact.img"
    file.write_bytes(raw)
    loop = loop_device(file)
    before = content(loop)
    run = world.run("repair", loop, "--yes", "--confirm", "VHD301", "--confirm", "VHD108", "--json")
    assert (run.code, status(run)[0][0]) == (4, "refused")
    assert content(loop) == before


def test_a_device_that_somebody_writes_is_in_use(world, device):
    loop, _ = device(without_footer(on_device(world.image())))
    with world.holding(Path(loop)):
        run = world.run("repair", loop, "--yes", "--json")
        assert (run.code, status(run)) == (4, [("refused", "in-use")])
        assert world.run("check", loop, "--json").json["images"][0]["verdict"] == "in-use"
    with world.holding(Path(loop), "rb"):
        assert world.run("repair", loop, "--yes").code == 1


def test_the_file_behind_a_loop_device_is_in_use(world, device):
    _, file = device(without_footer(on_device(world.image())))
    run = world.run("repair", file, "--yes", "--json")
    assert status(run) == [("refused", "in-use")]
    assert "loop device" in run.json["images"][0]["outcome"]["message"]


def test_a_read_only_device_fails_and_says_so(world, device):
    loop, _ = device(without_footer(on_device(world.image())))
    subprocess.run(["blockdev", "--setro", loop], check=True)
    try:
        run = world.run("repair", loop, "--yes", "--json")
    finally:
        subprocess.run(["blockdev", "--setrw", loop], check=True)  # the flag outlives the file behind the device
    assert (run.code, status(run)) == (12, [("failed", None)])


def test_a_killed_repair_of_a_device_is_put_back_first(world, device):
    whole = on_device(world.image())
    loop, _ = device(without_footer(whole))
    run = world.run("repair", loop, "--yes", "--json")
    (journal,) = [path for path in world.journals.iterdir() if run.json["images"][0]["outcome"]["journal"] in path.name]
    journal.rename(journal.with_name(journal.name.replace(".verified", ".unfinished")))
    dry = world.run("repair", loop, "--json")
    assert "interrupted" in dry.json["images"][0]["outcome"]["message"]
    again = world.run("repair", loop, "--yes", "--json")
    assert status(again) == [("repaired", None)]
    assert content(loop) == whole


# ------------------------------------------------------------------------------ volumes of an LVM SR


@pytest.fixture
def host(world, tmp_path, loop_device, monkeypatch):
    made = LvmHost(tmp_path, SR, loop_device)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/ours")
    monkeypatch.setattr(activation, "REFCOUNTS", str(tmp_path / "refcount"))
    yield made
    made.close()


@pytest.fixture
def locks(world) -> Path:
    return world.folder / "lock"


def hidden_base(world) -> bytes:
    return on_device(world.image(hidden=1))


def volume_child(vdi: str, parent: str) -> bytes:
    above = make.ParentRef(uuid_of(parent), f"VHD-{parent}")
    return on_device(make.sparse(8 << 20, uuid_of(vdi), {0: {5: b"child".ljust(512)}}, parent=above).to_bytes())


def test_an_inactive_volume_is_woken_repaired_and_put_back(world, host, locks):
    whole = hidden_base(world)
    file = host.volume(f"VHD-{BASE}", without_footer(whole))
    run = world.run("repair", f"{SR}/{BASE}", "--yes", "--sm-lock-dir", locks, "--json")
    assert (run.code, status(run)) == (1, [("repaired", None)]), run.out
    assert file.read_bytes() == whole
    assert host.now(f"VHD-{BASE}") == (0, 0)
    assert host.changes() == [
        f"lvchange -ay VHD-{BASE}",
        f"lvchange -p rw VHD-{BASE}",
        f"lvchange -p r VHD-{BASE}",
        f"lvchange -an VHD-{BASE}",
    ]
    image = run.json["images"][0]
    assert image["path"] == f"/dev/VG_XenStorage-{SR}/VHD-{BASE}"
    undone = world.run("undo", image["outcome"]["journal"], "--yes", "--sm-lock-dir", locks)
    assert undone.code == 0, undone.out + undone.err
    assert file.read_bytes() == without_footer(whole)
    assert host.now(f"VHD-{BASE}") == (0, 0)
    for name in (f"{SR}/sr", f"{SR}/running", f"{BASE}/vdi", f"lvm-{SR}/{BASE}", f"lvm-{SR}/lvchange-p"):
        assert (locks / name).exists(), name


def test_an_active_writable_volume_stays_so(world, host):
    whole = hidden_base(world)
    file = host.volume(f"VHD-{BASE}", without_footer(whole), rw=True, active=True)
    assert world.run("repair", host.node / f"VHD-{BASE}", "--yes").code == 1
    assert file.read_bytes() == whole
    assert host.changes() == []


@pytest.mark.parametrize("mapper", [False, True])
def test_nothing_is_changed_without_a_yes(world, host, mapper):
    file = host.volume(f"VHD-{BASE}", without_footer(hidden_base(world)))
    before = file.read_bytes()
    name = f"/dev/mapper/{host.group.replace('-', '--')}-VHD--{BASE.replace('-', '--')}" if mapper else BASE
    run = world.run("repair", name, "--json")
    assert (run.code, status(run)) == (4, [("refused", "policy")])
    outcome = run.json["images"][0]["outcome"]
    assert "is not active" in outcome["message"]
    assert outcome["next"][0].endswith(f"/dev/{host.group}/VHD-{BASE} --yes --sr-mount {world.mount} "
                                       f"--journal-dir {world.journals}")  # fmt: skip
    assert world.run("check", BASE, "--json").json["images"][0]["verdict"] == "unreadable"
    assert host.changes() == []
    assert file.read_bytes() == before


def test_a_folder_of_volumes_is_an_sr_and_a_prefix_is_resolved(world, host):
    host.volume(f"VHD-{BASE}", hidden_base(world), active=True)
    host.volume(f"VHD-{LEAF}", volume_child(LEAF, BASE), active=True, rw=True)
    run = world.run("check", host.node, "--json")
    assert [image["verdict"] for image in run.json["images"]] == ["valid", "valid"]
    assert world.run("check", BASE[:8]).code == 0
    assert world.run("check", "--parents", LEAF, "--json").json["images"][1]["path"].endswith(f"VHD-{BASE}")


def test_a_sleeping_parent_is_not_a_missing_one(world, host):
    host.volume(f"VHD-{BASE}", hidden_base(world))
    host.volume(f"VHD-{LEAF}", volume_child(LEAF, BASE), active=True, rw=True)
    assert world.run("check", LEAF, "--json").json["images"][0]["findings"] == []
    assert host.changes() == []


def test_a_leaf_volume_may_be_used_by_another_host(world, host):
    host.volume(f"VHD-{LEAF}", without_footer(volume_child(LEAF, BASE)))
    run = world.run("repair", LEAF, "--yes", "--json")
    assert status(run) == [("refused", "shared-sr-unknown")]
    assert host.now(f"VHD-{LEAF}") == (0, 0)


@pytest.mark.parametrize("name", [f"coalesce_{LEAF}_1", f"leaf_{LEAF}", f"inflate_{BASE}_4096", f"relink_{BASE}_1"])
def test_journals_are_volumes_that_need_not_be_active(world, host, name):
    host.volume(f"VHD-{BASE}", without_footer(hidden_base(world)))
    host.volume(name, b"36 " + BASE.encode(), size=MIB)
    run = world.run("repair", BASE, "--yes", "--json")
    assert status(run) == [("refused", "sm-pending")], run.out
    assert name in run.json["images"][0]["outcome"]["message"]
    assert host.now(f"VHD-{BASE}") == (0, 0)


def test_a_volume_that_sm_took_meanwhile_stays_active(world, host, tmp_path):
    host.volume(f"VHD-{BASE}", without_footer(hidden_base(world)))
    counts = tmp_path / "refcount" / f"lvm-{SR}"
    counts.mkdir(parents=True)
    (counts / BASE).write_text("1 0")
    assert world.run("repair", BASE, "--yes").code == 1
    assert host.now(f"VHD-{BASE}") == (0, 1)


def test_a_volume_that_somebody_opened_meanwhile_stays_active(world, host, monkeypatch):
    file = host.volume(f"VHD-{BASE}", without_footer(hidden_base(world)))
    node = host.node / f"VHD-{BASE}"
    program = "import os, sys; os.open(sys.argv[1], os.O_RDONLY); print(flush=True); sys.stdin.read()"
    readers = []
    from smfix import treatment

    write = treatment._write

    def writes(*given):
        line = [sys.executable, "-c", program, str(node)]
        readers.append(subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert readers[0].stdout.readline()
        return write(*given)

    monkeypatch.setattr(treatment, "_write", writes)
    assert world.run("repair", BASE, "--yes").code == 1
    assert host.now(f"VHD-{BASE}") == (0, 1)
    readers[0].communicate()
    assert file.read_bytes()[-512:] != bytes(512)


@pytest.mark.parametrize("name", [f"{SR}/sr", f"lvm-{SR}/{BASE}"])
def test_sm_holds_a_lock_of_the_volume(world, host, locks, name, monkeypatch):
    monkeypatch.setattr("smfix.host.locks.SR_WAIT", 0.1)
    monkeypatch.setattr("smfix.host.locks.VDI_WAIT", 0.1)
    host.volume(f"VHD-{BASE}", without_footer(hidden_base(world)))
    lock = locks / name
    lock.parent.mkdir(parents=True)
    lock.touch()
    program = (
        "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    line = [sys.executable, "-c", program, str(lock)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline()
        run = world.run("repair", BASE, "--yes", "--sm-lock-dir", locks, "--json")
        assert (run.code, status(run)) == (12, [("refused", "locked")])
        holder.communicate()
    assert host.changes() == []


def test_an_lvm_that_fails_is_told(world, host):
    file = host.volume(f"VHD-{BASE}", without_footer(hidden_base(world)), active=True)
    before = file.read_bytes()
    (host.state / "broken").touch()
    run = world.run("repair", host.node / f"VHD-{BASE}", "--yes", "--json")
    assert (run.code, status(run)) == (12, [("failed", None)])
    assert "lvs failed (5): Volume group is broken" in run.json["images"][0]["outcome"]["message"]
    assert file.read_bytes() == before


def test_what_cannot_be_put_back_is_told(world, host, monkeypatch):
    host.volume(f"VHD-{BASE}", without_footer(hidden_base(world)))
    from smfix import treatment

    write = treatment._write

    def writes(*given):
        with_it = write(*given)
        (host.state / "broken").touch()
        return with_it

    monkeypatch.setattr(treatment, "_write", writes)
    run = world.run("repair", BASE, "--yes", "--json")
    assert status(run) == [("repaired", None)]
    assert "was inactive before and is active now: lvs failed" in run.json["images"][0]["outcome"]["message"]


def test_a_volume_is_known_by_its_name_whatever_its_number(world, host, loop_device, tmp_path):
    """Device-mapper gives a volume another number at each activation."""
    whole = hidden_base(world)
    host.volume(f"VHD-{BASE}", without_footer(whole))
    run = world.run("repair", BASE, "--yes", "--json")
    journal = run.json["images"][0]["outcome"]["journal"]
    state = host.state / host.group / f"VHD-{BASE}"
    copy = tmp_path / "moved.img"
    copy.write_bytes(whole)
    words = dict(word.split("=") for word in state.read_text().split())
    subprocess.run(["blockdev", "--setrw", words["loop"]], check=True)
    state.write_text(f"rw=1 active=0 loop={loop_device(copy)} size={words['size']}\n")
    assert world.run("undo", journal, "--yes").code == 0
    assert copy.read_bytes() == without_footer(whole)


def test_from_a_log_line_to_a_sleeping_volume(world, host):
    whole = hidden_base(world)
    file = host.volume(f"VHD-{BASE}", without_footer(whole))
    path = f"/dev/VG_XenStorage-{SR}/VHD-{BASE}"
    record = failed(BASE).replace(f"/var/run/sr-mount/{SR}/{BASE}.vhd", path)
    run = world.run("from-log", world.smlog(record), "--yes", "--json")
    (incident,) = run.json["incidents"]
    assert (incident["path"], incident["outcome"]["status"]) == (path, "repaired"), incident
    assert file.read_bytes() == whole
    assert host.now(f"VHD-{BASE}") == (0, 0)


def test_a_volume_that_is_gone_is_not_found(world, host):
    record = failed(BASE).replace(f"/var/run/sr-mount/{SR}/{BASE}.vhd", f"/dev/VG_XenStorage-{SR}/VHD-{BASE}")
    (incident,) = world.run("from-log", world.smlog(record), "--yes", "--json").json["incidents"]
    assert incident["outcome"]["status"] == "not-found"
    assert world.run("check", host.node, "--json").json["images"][0]["verdict"] == "unreadable"


def test_scan_of_an_sr_on_lvm(world, host):
    host.volume(f"VHD-{BASE}", hidden_base(world), active=True)
    host.volume(f"VHD-{LEAF}", volume_child(LEAF, BASE), active=True, rw=True)
    host.volume(f"VHD-{OTHER}", hidden_base(world))
    host.volume("LV-" + OTHER, bytes(512), active=True)
    for words in ([SR], [str(host.node)], []):
        run = world.run("scan", *words, "--sr-mount", world.mount, "--json")
        images = {image["vdi"]: image for image in run.json["images"]}
        assert sorted(images) == sorted([BASE, LEAF, OTHER])
        assert (images[BASE]["verdict"], images[BASE]["hidden"]) == ("valid", True)
        assert images[LEAF]["depth"] == 1
        assert images[OTHER]["note"] == "the volume is not active, so it was not looked at"
    assert host.changes() == []


@pytest.fixture
def pool(world, tmp_path, monkeypatch):
    pytest.importorskip("XenAPI", reason="the XenAPI package is not installed")
    inventory = tmp_path / "inventory"
    inventory.write_text(f"INSTALLATION_UUID='{HERE}'\n")
    monkeypatch.setattr("smfix.host.locks.INVENTORY", str(inventory))
    monkeypatch.setattr("smfix.host.xapi_login.SOCKET", str(tmp_path / "xapi"))
    made = XapiHost(SR, shared=False)
    made.vdi(BASE, "base copy", managed=False)
    made.vdi(LEAF, "db-data", parent=BASE)
    made.listen(tmp_path / "xapi")
    yield made
    made.stop()


def test_a_leaf_volume_of_a_local_sr_is_repaired_where_xapi_says_so(world, host, pool, locks):
    whole = volume_child(LEAF, BASE)
    host.volume(f"VHD-{BASE}", hidden_base(world))
    file = host.volume(f"VHD-{LEAF}", without_footer(whole), rw=True)
    run = world.run("repair", LEAF, "--yes", "--json", "--sm-lock-dir", locks)
    assert status(run) == [("repaired", None)], run.out
    assert file.read_bytes() == whole
    assert run.json["images"][0]["outcome"]["remaining"] == []  # its parent was woken too
    assert [host.now(f"VHD-{vdi}") for vdi in (BASE, LEAF)] == [(0, 0), (1, 0)]
    assert run.json["rescans"][0]["done"]


def test_the_journal_of_a_childs_coalesce_is_known_by_xapi(world, host, pool, locks):
    host.volume(f"VHD-{BASE}", without_footer(hidden_base(world)))
    host.volume(f"coalesce_{LEAF}_1", bytes(512), size=MIB)
    run = world.run("repair", BASE, "--yes", "--json", "--sm-lock-dir", locks)
    assert status(run) == [("refused", "sm-pending")]
    (host.state / host.group / f"coalesce_{LEAF}_1").rename(host.state / host.group / f"coalesce_{OTHER}_1")
    assert world.run("repair", BASE, "--yes", "--sm-lock-dir", locks).code == 1


def test_scan_knows_what_other_hosts_have_open(world, host, pool):
    host.volume(f"VHD-{BASE}", hidden_base(world), active=True)
    host.volume(f"VHD-{LEAF}", without_footer(volume_child(LEAF, BASE)), active=True, rw=True)
    pool.config(LEAF)[f"host_{THEM}"] = "RW"
    run = world.run("scan", SR, "--sr-mount", world.mount, "--json")
    images = {image["vdi"]: image for image in run.json["images"]}
    assert (images[LEAF]["verdict"], images[LEAF]["in_use"]) == ("in-use", "read-write")
    assert images[LEAF]["names"] == {"vdi": "db-data", "sr": "NFS gold", "vms": []}
    assert "(db-data)" in world.run("scan", SR, "--sr-mount", world.mount).out
