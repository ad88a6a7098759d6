"""Images on block devices, through the command line: loop devices, alone and as volumes of an LVM SR. Needs root."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from lvm_host import LvmHost
from smfix.formats.vhd import build
from smfix.formats.vhd.image import inspect
from smfix.host.image_file import open_image
from smfix.sm.resolve import Found
from smfix.sm.sr_types import lvm_activation, lvm_volumes
from smfix.usecases import guard, image_relatives
from smfix.values import Backing, Target
from world import BASE, LEAF, OTHER, SR, failed, make_world, uuid_of
from xapi_host import HERE, THEM, XapiHost

pytestmark = [pytest.mark.root, pytest.mark.tools("losetup", "blockdev")]

MIB = 1 << 20
GROUP = f"VG_XenStorage-{SR}"
MAPPED = f"{GROUP.replace('-', '--')}-VHD--{{}}"
"""A volume's name in /dev/mapper, by its VDI with hyphens doubled."""
BASE_MAPPED = MAPPED.format(BASE.replace("-", "--"))
PARENT_NAMES = {
    "as libvhd writes it": BASE_MAPPED,
    "beside the mapper's folder": f"mapper/{BASE_MAPPED}",
    "by device-mapper's path": f"/dev/mapper/{BASE_MAPPED}",
    "by LVM's path": f"/dev/{GROUP}/VHD-{BASE}",
    "beside LVM's folder": f"../{GROUP}/VHD-{BASE}",
    "beside LVM's node": f"VHD-{BASE}",
}
"""What a child's parent locators may say of the volume of BASE."""
CHILD_NAMES = (f"/dev/{GROUP}/VHD-{LEAF}", f"/dev/mapper/{MAPPED.format(LEAF.replace('-', '--'))}", LEAF)
every_parent_name = pytest.mark.parametrize("name", PARENT_NAMES.values(), ids=PARENT_NAMES)


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


def test_a_killed_repair_of_a_device_that_is_complete_is_closed(world, device):
    whole = on_device(world.image())
    loop, _ = device(without_footer(whole))
    run = world.run("repair", loop, "--yes", "--json")
    (journal,) = [path for path in world.journals.iterdir() if run.json["images"][0]["outcome"]["journal"] in path.name]
    journal.rename(journal.with_name(journal.name.replace(".verified", ".unfinished")))
    dry = world.run("repair", loop, "--json")
    assert "interrupted" in dry.json["images"][0]["outcome"]["message"]
    again = world.run("repair", loop, "--yes", "--json")
    assert status(again) == [("valid", None)]
    assert journal.exists()
    assert content(loop) == whole


# ------------------------------------------------------------------------------ volumes of an LVM SR


@pytest.fixture
def host(world, tmp_path, loop_device, monkeypatch):
    made = LvmHost(tmp_path, SR, loop_device)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/ours")
    monkeypatch.setattr(lvm_activation, "REFCOUNTS", str(tmp_path / "refcount"))
    yield made
    made.close()


@pytest.fixture
def locks(world) -> Path:
    return world.folder / "lock"


def hidden_base(world) -> bytes:
    return on_device(world.image(hidden=1))


def volume_child(vdi: str, parent: str, name: str | None = None) -> bytes:
    """A differencing disk whose header and locators have `name`, libvhd's for the volume of `parent` if None."""
    above = build.ParentRef(uuid_of(parent), name or MAPPED.format(parent.replace("-", "--")))
    return on_device(build.sparse(8 << 20, uuid_of(vdi), {0: {5: b"child".ljust(512)}}, parent=above).to_bytes())


def make_target(vdi: str) -> Target:
    return Target(f"/dev/{GROUP}/VHD-{vdi}", Backing.BLOCK, vdi, SR)


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


def test_one_decision_lists_the_volumes_once(world, host, locks, monkeypatch):
    """The storage manager waits for its locks while LVM is asked under them, and LVM may take seconds."""
    host.volume(f"VHD-{BASE}", without_footer(hidden_base(world)))
    lists, of_each, decide = [], [], guard.HostGuard.objection
    monkeypatch.setattr(lvm_volumes, "volumes", lambda sr, ask=lvm_volumes.volumes: lists.append(sr) or ask(sr))

    def counted(*arguments):
        before = len(lists)
        refusal = decide(*arguments)
        of_each.append(len(lists) - before)
        return refusal

    monkeypatch.setattr(guard.HostGuard, "objection", counted)
    run = world.run("repair", f"{SR}/{BASE}", "--yes", "--sm-lock-dir", locks, "--json")
    assert status(run) == [("repaired", None)]
    assert of_each == [1, 1]


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
    monkeypatch.setattr(lvm_activation, "OPEN_WAIT", 0.5)
    file = host.volume(f"VHD-{BASE}", without_footer(hidden_base(world)))
    node = host.node / f"VHD-{BASE}"
    program = "import os, sys; os.open(sys.argv[1], os.O_RDONLY); print(flush=True); sys.stdin.read()"
    readers = []
    from smfix.usecases import repair_image as repair

    write = repair._write

    def writes(*given):
        line = [sys.executable, "-c", program, str(node)]
        readers.append(subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert readers[0].stdout.readline()
        return write(*given)

    monkeypatch.setattr(repair, "_write", writes)
    assert world.run("repair", BASE, "--yes").code == 1
    assert host.now(f"VHD-{BASE}") == (0, 1)
    readers[0].communicate()
    assert file.read_bytes()[-512:] != bytes(512)


@pytest.mark.parametrize("name", [f"{SR}/sr", f"lvm-{SR}/{BASE}"])
def test_sm_holds_a_lock_of_the_volume(world, host, locks, name, monkeypatch):
    monkeypatch.setattr("smfix.sm.locks.SR_WAIT", 0.1)
    monkeypatch.setattr("smfix.sm.locks.VDI_WAIT", 0.1)
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
    from smfix.usecases import repair_image as repair

    write = repair._write

    def writes(*given):
        with_it = write(*given)
        (host.state / "broken").touch()
        return with_it

    monkeypatch.setattr(repair, "_write", writes)
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


# ------------------------------------------------------------------------------ the names of a volume


@pytest.fixture
def numbers(host, tmp_path, monkeypatch):
    """The kernel's word on which volume a node is: there is no device-mapper behind a loop device."""

    def tell(name: str) -> Path:
        node = Path(os.path.realpath(host.node / name))
        number = os.stat(node).st_rdev
        said = tmp_path / "block" / f"{os.major(number)}:{os.minor(number)}" / "dm"
        said.mkdir(parents=True)
        (said / "name").write_text(f"{host.mapped(name).name}\n")
        return node

    monkeypatch.setattr("smfix.host.device_mapper.BLOCK_DEVICES", str(tmp_path / "block"))
    return tell


@every_parent_name
def test_a_sound_child_is_valid_by_every_name_of_it_and_of_its_parent(world, host, numbers, name):
    host.volume(f"VHD-{BASE}", hidden_base(world), active=True)
    host.volume(f"VHD-{LEAF}", volume_child(LEAF, BASE, name), active=True, rw=True)
    for child in (*CHILD_NAMES, numbers(f"VHD-{LEAF}")):
        leaf, base = world.run("check", "--parents", child, "--json").json["images"]
        assert (leaf["verdict"], leaf["findings"]) == ("valid", []), child
        assert base["path"] == f"/dev/{GROUP}/VHD-{BASE}"
        assert leaf["path"] == (child if child in CHILD_NAMES[:2] else CHILD_NAMES[0])


def test_a_parent_named_by_its_number_is_that_volume(world, host, numbers):
    host.volume(f"VHD-{BASE}", hidden_base(world), active=True)
    node = numbers(f"VHD-{BASE}")
    host.volume(f"VHD-{LEAF}", volume_child(LEAF, BASE, node.name), active=True, rw=True)
    images = world.run("check", "--parents", LEAF, "--json").json["images"]
    assert [image["path"] for image in images] == [f"/dev/{GROUP}/VHD-{vdi}" for vdi in (LEAF, BASE)]
    assert images[0]["findings"] == []


@every_parent_name
def test_a_parent_that_is_no_volume_any_more_is_missing(world, host, name):
    host.volume(f"VHD-{LEAF}", volume_child(LEAF, BASE, name), active=True, rw=True)
    for child in CHILD_NAMES:
        (finding,) = world.run("check", child, "--json").json["images"][0]["findings"]
        assert finding["code"] == "VHD501"
        assert finding["message"].endswith(f"nothing readable is at /dev/{GROUP}/VHD-{BASE}.")


def test_a_parent_of_which_lvm_says_nothing_is_not_called_missing(world, host):
    host.volume(f"VHD-{LEAF}", volume_child(LEAF, BASE), active=True, rw=True)
    child = make_target(LEAF)
    (host.state / "broken").touch()
    with open_image(child) as image:
        assert image_relatives.parent_of(inspect(image), child.path) == (None, None)


@every_parent_name
def test_a_sleeping_parent_is_woken_by_every_name(world, host, pool, locks, name):
    host.volume(f"VHD-{BASE}", hidden_base(world))
    whole = volume_child(LEAF, BASE, name)
    file = host.volume(f"VHD-{LEAF}", without_footer(whole), rw=True)
    run = world.run("repair", f"{SR}/{LEAF}", "--yes", "--json", "--sm-lock-dir", locks)
    assert status(run) == [("repaired", None)], run.out
    assert run.json["images"][0]["outcome"]["remaining"] == []
    assert file.read_bytes() == whole
    woken = [f"lvchange -ay VHD-{vdi}" for vdi in (LEAF, BASE)]
    assert host.changes() == [*woken, *(line.replace("-ay", "-an") for line in reversed(woken))]


@every_parent_name
def test_parents_come_first_by_every_name(world, host, name):
    host.volume(f"VHD-{BASE}", hidden_base(world), active=True)
    host.volume(f"VHD-{LEAF}", volume_child(LEAF, BASE, name), active=True, rw=True)
    base, leaf = Found(make_target(BASE)), Found(make_target(LEAF))
    for child in (leaf, Found(leaf.target._replace(path=str(host.mapped(f"VHD-{LEAF}"))))):
        for parent in (base, Found(base.target._replace(path=str(host.mapped(f"VHD-{BASE}"))))):
            assert image_relatives.parents_first([child, None, parent]) == [2, 0, 1]


@every_parent_name
@pytest.mark.parametrize("has_footer", [True, False])
def test_the_children_of_a_volume_are_found_by_uuid_and_by_every_name(world, host, name, has_footer):
    raw = hidden_base(world)
    host.volume(f"VHD-{BASE}", raw if has_footer else bytes(512) + without_footer(raw)[512:], active=True)
    host.volume(f"VHD-{LEAF}", volume_child(LEAF, BASE, name), active=True, rw=True)
    host.volume(f"VHD-{OTHER}", volume_child(OTHER, LEAF), active=True, rw=True)
    target = make_target(BASE)
    with open_image(target) as image, ExitStack() as stack:
        family = image_relatives.children_of(inspect(image), Found(target), stack)
        assert [path for path, _ in family] == [f"/dev/{GROUP}/VHD-{LEAF}"]


@pytest.mark.parametrize("named", ["{0}", "./{1}", "../{1}", "/dev/mapper/{1}", "../mapper/VG_XenStorage--x-VHD--y"])
def test_no_other_device_of_the_host_is_a_volumes_parent(host, device, named):
    """A guest may have written the locator; beside its volume's node is every device of the host."""
    other, _ = device(on_device(build.sparse(8 << 20, uuid_of(BASE), {}).to_bytes()))
    name = named.format(other, os.path.basename(other))
    host.volume(f"VHD-{LEAF}", volume_child(LEAF, BASE, name), active=True, rw=True)
    with open_image(make_target(LEAF)) as image:
        seen = inspect(image)
        bent = replace(seen, locators=tuple(replace(one, path=name) for one in seen.locators))
        places = image_relatives.parent_places(bent, image.target.path)
    assert places == ((f"/dev/{GROUP}/{os.path.basename(other)}",) if name.startswith("./") else ())


@pytest.mark.parametrize("is_awake", [True, False])
@every_parent_name
def test_scan_shows_a_chain_by_every_name(world, host, name, is_awake):
    host.volume(f"VHD-{BASE}", hidden_base(world), active=is_awake)
    host.volume(f"VHD-{LEAF}", volume_child(LEAF, BASE, name), active=True, rw=True)
    base = host.mapped(f"VHD-{BASE}")
    for words in ([SR], [host.mapped(f"VHD-{LEAF}"), base, CHILD_NAMES[0]]):
        images = world.run("scan", *words, "--sr-mount", world.mount, "--json").json["images"]
        assert [(image["vdi"], image["depth"], image["standing"]) for image in images] == [
            (BASE, 0, "root"),
            (LEAF, 1, "child"),
        ]
        assert images[1]["findings"] == []


def test_one_volume_under_two_names_is_one_image(world, host):
    host.volume(f"VHD-{BASE}", without_footer(hidden_base(world)))
    names = [f"/dev/{GROUP}/VHD-{BASE}", host.mapped(f"VHD-{BASE}"), BASE]
    for words in (("check",), ("repair", "--yes")):
        images = world.run(*words, *names, "--json").json["images"]
        assert [image["path"] for image in images] == names[:1]


def test_an_old_leaf_is_not_the_new_one(world, host):
    """While a leaf-coalesce renames, two volumes name one VDI."""
    host.volume(f"VHD-OLD_{BASE}", hidden_base(world), active=True)
    host.volume(f"VHD-{BASE}", hidden_base(world))
    assert lvm_volumes.volume_of(make_target(BASE)).is_active is False
    assert lvm_volumes.volume_of(make_target(BASE)._replace(path=f"/dev/{GROUP}/VHD-OLD_{BASE}")).is_active


def test_children_that_vhd_util_makes_are_valid(world, host, vhd_util):
    """The tool's own snapshot: the names in it are the tool's."""
    host.volume(f"VHD-{BASE}", hidden_base(world), active=True, rw=True)
    host.volume(f"VHD-{LEAF}", bytes(512), active=True, rw=True)
    path, parent = CHILD_NAMES[0], f"/dev/{GROUP}/VHD-{BASE}"
    subprocess.run([vhd_util, "snapshot", "-n", path, "-p", parent], check=True, capture_output=True)
    # A volume keeps its footer in its last sector.
    assert subprocess.run([vhd_util, "check", "-n", path], check=False, capture_output=True).returncode == 0
    image, above = world.run("check", "--parents", path, "--json").json["images"]
    assert (image["verdict"], image["findings"], above["path"]) == ("valid", [], parent)
    host.lvchange("-an", f"VHD-{BASE}")
    assert world.run("check", path, "--json").json["images"][0]["findings"] == []


@pytest.fixture
def pool(world, tmp_path, monkeypatch):
    pytest.importorskip("XenAPI", reason="the XenAPI package is not installed")
    inventory = tmp_path / "inventory"
    inventory.write_text(f"INSTALLATION_UUID='{HERE}'\n")
    monkeypatch.setattr("smfix.sm.locks.INVENTORY", str(inventory))
    monkeypatch.setattr("smfix.xapi.login.SOCKET", str(tmp_path / "xapi"))
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
