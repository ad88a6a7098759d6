"""`check`, `repair` and `show`: every kind of target, sound or not, and the code they end with."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess

import pytest

from needed_tools import need_tool
from smfix.cli import app
from world import BASE, LEAF, OTHER, SR, make_world


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


def status(run):
    return [(image["outcome"]["status"], image["outcome"]["reason"]) for image in run.json["images"]]


# --------------------------------------------------------------------------- check


def test_a_sound_image_is_valid(world):
    path = world.put(world.image())
    run = world.run("check", path, "--json")
    assert run.code == 0
    (image,) = run.json["images"]
    assert (image["path"], image["verdict"], image["size"]) == (str(path), "valid", path.stat().st_size)
    assert image["findings"] == []
    assert image["end_of_data"] == path.stat().st_size - 512


@pytest.mark.parametrize("name", ["path", "uuid", "prefix", "sr/vdi", "upper"])
def test_every_form_of_a_target(world, name):
    path = world.damaged()
    target = {
        "path": path,
        "uuid": BASE,
        "prefix": BASE[:8],
        "sr/vdi": f"{SR}/{BASE}",
        "upper": BASE.upper(),
    }[name]
    run = world.run("check", target, "--json")
    assert run.code == 4
    assert [(image["path"], image["verdict"]) for image in run.json["images"]] == [(str(path), "invalid")]
    assert run.json["images"][0]["findings"][0]["code"] == "VHD101"


def test_an_sr_folder_is_all_its_images(world):
    world.put(world.image(OTHER), OTHER)
    world.damaged(BASE)
    (world.sr / "notes.txt").write_text("x")
    run = world.run("check", world.sr, "--json")
    assert run.code == 4
    assert [image["verdict"] for image in run.json["images"]] == ["invalid", "valid"]


def test_an_image_is_told_once_however_often_it_is_named(world):
    path = world.damaged()
    assert len(world.run("check", path, BASE, path, "--json").json["images"]) == 1


def test_parents_are_checked_with_the_leaf(world):
    world.put(world.image(LEAF, parent=BASE), LEAF)
    world.damaged(BASE)
    run = world.run("check", LEAF, "--parents", "--json")
    assert run.code == 4
    assert [(os.path.basename(image["path"])[:8], image["verdict"]) for image in run.json["images"]] == [
        (LEAF[:8], "valid"),
        (BASE[:8], "invalid"),
    ]
    assert world.run("check", LEAF, "--json").code == 0


def test_a_leaf_whose_parent_is_damaged_leads_to_the_parent(world, monkeypatch):
    world.put(world.image(LEAF, parent=BASE), LEAF)
    world.damaged(BASE)
    monkeypatch.chdir(world.sr)
    run = world.run("check", f"{LEAF}.vhd", "--parents")
    leaf, base, closing = run.out.split("\n\n")
    assert f"   chain    breaks at {world.path(BASE)} (invalid)\n" in leaf
    assert f"   chain    parent of {world.path(LEAF)}\n" in base
    assert closing == (
        f"The chain of {LEAF}.vhd breaks at\n   {world.path(BASE)}\n"
        "What a repair would write, and who must agree to it:\n"
        f"   smfix repair {world.path(BASE)} --dry-run --sr-mount {world.mount}\n"
    )


def test_what_has_no_repair_is_not_promised_one(world):
    world.put(world.image(LEAF, parent=BASE), LEAF)
    run = world.run("check", LEAF)
    assert run.out.endswith("Nothing would be written; what to do instead:\n   smfix explain VHD501\n")
    world.damaged(OTHER)
    assert "written to 1 image; what to do instead:\n   smfix explain VHD501\n" in world.run("scan").out


def test_commands_of_relative_names_work_from_any_folder(world, monkeypatch):
    world.damaged()
    monkeypatch.chdir(world.folder)
    relative = world.path().relative_to(world.folder)
    for words in (["check", relative], ["repair", relative], ["scan", relative.parent]):
        assert f"smfix repair {world.path()} --" in world.run(*words).out.splitlines()[-1]


def test_a_missing_parent_is_named(world):
    world.put(world.image(LEAF, parent=BASE), LEAF)
    run = world.run("check", LEAF, "--parents", "--json")
    assert run.code == 4
    (image,) = run.json["images"]
    assert [finding["code"] for finding in image["findings"]] == ["VHD501"]
    assert str(world.path(BASE)) in image["findings"][0]["message"]


def test_a_running_disk_is_in_use_and_that_is_normal(world):
    path = world.put(world.image()[:-512] + b"\xc7" * 512)
    with world.holding(path) as pid:
        run = world.run("check", path, "--json")
    assert run.code == 0
    (image,) = run.json["images"]
    assert image["verdict"] == "in-use"
    assert f"(pid {pid}) read-write" in image["note"]
    assert world.run("check", path, "--json").json["images"][0]["verdict"] == "invalid"


@pytest.mark.parametrize(
    ("make", "verdict", "code"),
    [
        (lambda path: path.write_bytes(b""), "not-a-vhd", 4),
        (lambda path: path.write_bytes(b"x" * 100_000), "not-a-vhd", 4),
        (os.mkfifo, "not-a-vhd", 4),
        (lambda path: path.symlink_to(path.parent / "elsewhere.vhd"), "unreadable", 8),
        (lambda path: None, "unreadable", 8),
    ],
    ids=["empty", "not a VHD", "FIFO", "symlink", "missing"],
)
def test_what_is_no_image(world, make, verdict, code):
    path = world.path()
    make(path)
    run = world.run("check", path, "--json")
    assert run.code == code
    (image,) = run.json["images"]
    assert (image["path"], image["verdict"], image["findings"]) == (str(path), verdict, [])
    assert image["note"]


def test_a_folder_without_images_is_an_error(world):
    run = world.run("check", world.folder, "--json")
    assert run.code == 8
    assert "holds no VHD" in run.json["images"][0]["note"]


def test_an_ambiguous_prefix_is_listed(world):
    other = "1d994938-0000-102f-80dc-001ec95cb0b6"
    world.damaged(BASE)
    world.damaged(other)
    checked = world.run("check", BASE[:8], "--json")
    assert checked.code == 8
    assert other in checked.json["images"][0]["note"]
    told = world.run("check", BASE[:8]).out
    assert "   verdict  ambiguous\n" in told
    assert [f"smfix check {world.path(vdi)}" in told for vdi in (BASE, other)] == [True, True]
    missing = world.run("check", LEAF, world.folder / "nothing")
    assert (missing.code, missing.out.count("   verdict  not found\n")) == (8, 2)
    assert f"   next     xe vdi-list uuid={LEAF}\n" in missing.out
    repaired = world.run("repair", BASE[:8], "--yes", "--json")
    assert (repaired.code, status(repaired)) == (4, [("ambiguous", None)])


@pytest.mark.parametrize("target", ["1d9949", "", "1d994938/x"])
def test_a_name_that_cannot_be_one(world, target):
    assert world.run("check", target).code in (8, 16)


def test_nobody_can_read_it(world):
    path = world.damaged()
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads everything")
    run = world.run("check", path)
    assert run.code == 8
    assert "Permission denied" in run.out
    assert (world.run("repair", path, "--yes", "--json").code, path.stat().st_mode & 0o777) == (12, 0)


# --------------------------------------------------------------------------- repair


def test_repair_and_undo(world):
    path = world.damaged()
    before = path.read_bytes()
    run = world.run("repair", path, "--yes", "--json")
    assert (run.code, status(run)) == (1, [("repaired", None)])
    outcome = run.json["images"][0]["outcome"]
    assert outcome["next"] == [f"smfix check {path} --sr-mount {world.mount}"]
    assert app.run(shlex.split(outcome["next"][0])[1:]) == 0
    assert app.run([*shlex.split(outcome["undo"])[1:], "--yes"]) == 0
    assert path.read_bytes() == before


@pytest.mark.vhdutil
def test_vhd_util_agrees(world, vhd_util):
    path = world.damaged()
    assert subprocess.run([vhd_util, "check", "-n", path], capture_output=True, check=False).returncode
    assert world.run("repair", path, "--yes").code == 1
    assert not subprocess.run([vhd_util, "check", "-n", path], capture_output=True, check=False).returncode


def test_a_second_repair_writes_nothing(world):
    path = world.damaged()
    world.run("repair", path, "--yes")
    os.utime(path, ns=(1, 1))
    run = world.run("repair", path, "--yes", "--json")
    assert (run.code, status(run)) == (0, [("valid", None)])
    assert path.stat().st_mtime_ns == 1


def test_an_sr_folder_is_repaired_whole(world):
    world.damaged(BASE)
    world.damaged(LEAF, parent=BASE)
    world.put(world.image(OTHER), OTHER)
    run = world.run("repair", world.sr, "--yes", "--json")
    assert run.code == 1
    assert sorted(state for state, _ in status(run)) == ["repaired", "repaired", "valid"]


@pytest.mark.parametrize(
    ("make", "outcome", "code"),
    [
        (lambda path: path.write_bytes(b""), ("refused", "not-a-vhd"), 4),
        (lambda path: path.write_bytes(b"x" * 100_000), ("refused", "not-a-vhd"), 4),
        (os.mkfifo, ("refused", "not-a-vhd"), 4),
        (lambda path: path.symlink_to("/etc/passwd"), ("refused", "unsafe-path"), 4),
        (lambda path: None, ("not-found", None), 12),
    ],
    ids=["empty", "not a VHD", "FIFO", "symlink", "missing"],
)
def test_what_cannot_be_repaired(world, make, outcome, code):
    make(world.path())
    before = world.path().lstat().st_mtime_ns if os.path.lexists(world.path()) else None
    run = world.run("repair", world.path(), "--yes", "--json")
    assert (run.code, status(run)) == (code, [outcome])
    assert (world.path().lstat().st_mtime_ns if before else None) == before
    assert not world.journals.exists()


def test_two_lost_footers_are_refused(world):
    raw = world.image()
    path = world.put(b"x" * 512 + raw[512:-512] + b"x" * 512)
    before = path.read_bytes()
    run = world.run("repair", path, "--yes", "--json")
    assert run.code == 4
    assert status(run)[0][0] == "refused"
    assert path.read_bytes() == before


def marked(world):
    """The last sector of the last block is written, and holds tapdisk's mark."""
    from smfix.formats.vhd import build

    data = {0: dict.fromkeys((0, 4095), b"g" * 512)}
    raw = build.sparse(8 << 20, bytes(range(16)), data).to_bytes()
    return world.put(raw[:-1024] + b"\xc7" * 512)


def test_a_loss_needs_consent_by_code(world):
    path = marked(world)
    before = path.read_bytes()
    run = world.run("repair", path, "--yes", "--json")
    assert (run.code, status(run)) == (4, [("refused", "needs-confirm")])
    assert path.read_bytes() == before
    outcome = run.json["images"][0]["outcome"]
    assert outcome["lost_sectors"] == 1
    assert outcome["plan"] is not None
    (command,) = outcome["next"]
    assert "--yes" in command
    assert "--confirm VHD108" in command
    assert app.run(shlex.split(command)[1:]) == 1


def test_consent_alone_writes_nothing(world):
    path = marked(world)
    before = path.read_bytes()
    run = world.run("repair", path, "--confirm", "vhd108", "--json")
    assert (run.code, status(run)) == (4, [("would-repair", None)])
    assert path.read_bytes() == before
    assert "--confirm VHD108" in run.err
    done = world.run("repair", path, "--confirm", "VHD108", "--yes", "--json")
    assert (done.code, status(done)) == (1, [("repaired", None)])
    assert done.json["images"][0]["outcome"]["lost_sectors"] == 1


def test_a_check_that_finds_damage_says_how_to_go_on(world):
    path = world.damaged()
    run = world.run("check", path)
    assert run.code == 4
    assert run.out.endswith(f"   smfix repair {path} --dry-run --sr-mount {world.mount}\n")
    path.write_bytes(world.image())
    assert "smfix repair" not in world.run("check", path).out


def test_a_missing_parent_may_remain(world):
    path = world.damaged(LEAF, parent=BASE)
    run = world.run("repair", path, "--yes", "--json")
    assert (run.code, status(run)) == (5, [("partly-repaired", None)])
    assert run.json["images"][0]["outcome"]["next"][-1].startswith("smfix explain VHD")
    assert [finding["code"] for finding in run.json["images"][0]["outcome"]["remaining"]] == ["VHD501"]


@pytest.mark.parametrize("name", [f"OLD_{BASE}.vhd", f"{BASE}.vhd.new"])
def test_temporary_names_are_the_storage_managers(world, name):
    path = world.sr / name
    path.write_bytes(world.image()[:-512])
    run = world.run("repair", path, "--yes", "--json")
    assert (run.code, status(run)) == (4, [("refused", "sm-pending")])


@pytest.mark.parametrize("kind", ["coalesce", "leaf", "relink", "inflate", "jvhd"])
def test_a_journal_of_the_storage_manager_beside_it(world, kind):
    path = world.damaged()
    (world.sr / f"{kind}_{BASE}").write_text("1")
    run = world.run("repair", path, "--yes", "--json")
    assert (run.code, status(run)) == (4, [("refused", "sm-pending")])


def test_the_coalesce_of_a_child_concerns_the_parent(world):
    path = world.damaged(BASE)
    world.put(world.image(LEAF, parent=BASE), LEAF)
    (world.sr / f"coalesce_{LEAF}").write_text(BASE)
    run = world.run("repair", path, "--yes", "--json")
    assert (run.code, status(run)) == (4, [("refused", "sm-pending")])


def test_a_reader_is_no_obstacle(world):
    path = world.damaged()
    with world.holding(path, "rb"):
        assert world.run("repair", path, "--yes").code == 1


@pytest.mark.root  # on a host with SM's locks, who cannot see every process must not write
def test_the_storage_managers_locks_are_taken_where_they_are_named(world, monkeypatch):
    monkeypatch.setattr("smfix.sm.locks.RUNNING_WAIT", 0.1)
    path = world.damaged()
    folder = world.folder / "lock"
    (folder / SR).mkdir(parents=True)
    lock = folder / SR / "running"
    lock.touch()
    program = (
        "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [os.sys.executable, "-c", program, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        run = world.run("repair", path, "--yes", "--json", "--sm-lock-dir", folder)
    assert (run.code, status(run)) == (12, [("refused", "locked")])
    again = world.run("repair", path, "--yes", "--json", "--sm-lock-dir", folder)
    assert (again.code, status(again)) == (1, [("repaired", None)])
    assert f"--sm-lock-dir {folder}" in again.json["images"][0]["outcome"]["undo"]
    assert (folder / BASE / "vdi").exists()


def test_another_smfix_at_work_is_locked(world):
    from smfix.host.image_file import open_image
    from smfix.sm import locks
    from smfix.values import Backing, Target

    path = world.damaged()
    before = path.read_bytes()
    image = open_image(Target(str(path), Backing.FILE))
    with image, locks.own_lock(image.identity, locks.state_folder()) as refusal:
        assert refusal is None
        run = world.run("repair", path, "--yes", "--json")
    assert (run.code, status(run)) == (12, [("refused", "locked")])
    assert path.read_bytes() == before


def test_a_journal_folder_that_cannot_be_written(world):
    path = world.damaged()
    before = path.read_bytes()
    world.journals.write_text("a file")
    run = world.run("repair", path, "--yes", "--json")
    assert (run.code, status(run)) == (12, [("failed", None)])
    assert str(world.journals) in run.json["images"][0]["outcome"]["message"]
    assert path.read_bytes() == before


def test_the_journal_folder_comes_from_the_environment_too(world, monkeypatch):
    path = world.damaged()
    monkeypatch.setenv("SMFIX_JOURNAL_DIR", str(world.folder / "by env"))
    assert app.run(["repair", str(path), "--yes", "--json"]) == 1
    out = world.capture.readouterr().out
    assert f"--journal-dir '{world.folder / 'by env'}'" in out
    assert stat.S_IMODE((world.folder / "by env").stat().st_mode) == 0o700


@pytest.mark.root
@pytest.mark.tools("mkfs.ext4", "mount", "umount", "losetup")
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_file_system_that_takes_nothing(world, how):
    disk = world.folder / "disk.img"
    with open(disk, "wb") as file:
        file.truncate(16 << 20)
    subprocess.run([need_tool("mkfs.ext4"), "-q", "-b", "4096", "-m", "0", disk], check=True, capture_output=True)
    mounted = subprocess.run(["mount", "-o", "loop", disk, world.sr], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no loop mounts here: {mounted.stderr.strip()}")
    try:
        raw = world.image()[:-512]
        path = world.put(raw + bytes(-len(raw) % 4096))
        if how == "full":
            with open(world.sr / "filler", "wb", buffering=0) as filler:
                try:
                    while filler.write(b"x" * 4096):
                        pass
                except OSError:
                    pass
        else:
            subprocess.run(["mount", "-o", "remount,ro", world.sr], check=True)
        before = path.read_bytes()
        run = world.run("repair", path, "--yes", "--json")
        assert (run.code, status(run)) == (12, [("failed", None)])
        message = run.json["images"][0]["outcome"]["message"]
        assert ("no space" if how == "full" else "Read-only file system") in message
        assert path.read_bytes() == before
    finally:
        subprocess.run(["umount", world.sr], check=True)


@pytest.mark.root  # on a host with SM's locks, who cannot see every process must not write
def test_on_a_host_of_its_own_the_next_step_is_a_scan(world, monkeypatch):
    path = world.damaged()
    inventory = world.folder / "inventory"
    inventory.touch()
    monkeypatch.setattr("smfix.sm.locks.INVENTORY", str(inventory))
    run = world.run("repair", path, "--yes", "--json", "--sm-lock-dir", world.folder / "lock")
    assert run.json["images"][0]["outcome"]["next"] == [f"xe sr-scan uuid={SR}"]


# --------------------------------------------------------------------------- show


def test_show_prints_the_metadata(world):
    path = world.put(world.image())
    run = world.run("show", BASE)
    assert run.code == 0
    assert run.out.startswith("VHD Footer Summary:\n-------------------\nCookie              : conectix\n")
    assert run.err == ""
    assert world.run("show", path, "--json").json["path"] == str(path)


def test_show_says_which_footer_it_shows(world):
    world.damaged()
    run = world.run("show", BASE)
    assert run.code == 0
    assert "what is shown is the backup footer" in run.err


@pytest.mark.skipif(shutil.which("hexdump") is None, reason="hexdump is not installed")
def test_show_hex_is_hexdump(world):
    path = world.damaged()
    out = world.run("show", path, "--hex").out
    for raw in (path.read_bytes()[:512], path.read_bytes()[-512:]):
        real = subprocess.run(["hexdump", "-C"], input=raw, capture_output=True, check=True).stdout.decode()
        offset = 0 if raw == path.read_bytes()[:512] else path.stat().st_size - 512
        for line in real.splitlines():
            if "|" in line:
                assert f"{int(line[:8], 16) + offset:08x}{line[8:]}" in out


def test_show_layout_is_a_picture(world, monkeypatch):
    path = world.damaged()
    run = world.run("show", path, "--layout")
    assert (run.code, run.err) == (0, "")
    assert run.out.startswith(f"{path}\n")
    assert "a footer belongs at byte" in run.out
    assert "no footer: invalid cookie" in run.out
    both = world.run("show", path, "--layout", "--hex").out
    assert both.startswith(run.out)
    assert "Footer at byte" in both
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("os.get_terminal_size", lambda: os.terminal_size((120, 40)))
    assert max(map(len, world.run("show", path, "--layout").out.splitlines()[1:])) == 120


def test_show_takes_one_readable_image(world):
    world.put(world.image(BASE), BASE)
    world.put(world.image(OTHER), OTHER)
    assert world.run("show", world.sr).code == 16
    assert world.run("show", world.folder / "nothing").code == 8
    os.mkfifo(world.sr / "fifo.vhd")
    assert world.run("show", world.sr / "fifo.vhd").code == 8
