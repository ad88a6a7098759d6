"""What is written is what the path means to the kernel, and every path that is told leads to what was written.

Each test names a way in which the text of a path, or one name of a file, is not the whole truth.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smfix.host import aliases, device_mapper, image_file, kernel_path
from smfix.host.device_mapper import named_device
from smfix.host.image_file import Identity, open_image
from smfix.sm.paths import read_path
from smfix.values import Backing, Reason, Refusal, Target
from world import BASE, LEAF, OTHER, ROOT, SR, failed, make_world

OTHER_SR = "8b253b3a-a667-ff58-2f15-2b9628924470"


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


def repaired_and_undone(world, given, meant: Path, *untouched: Path) -> str:
    """Repair `given`, which means `meant`: every path that is told leads there, and the undo puts it back; its path."""
    before = {path: path.read_bytes() for path in (meant, *untouched)}
    foreseen = world.run("repair", given, "--dry-run", "--json").json["images"][0]
    done = world.run("repair", given, "--yes", "--json").json["images"][0]
    outcome = done["outcome"]
    assert outcome["status"] == "repaired", outcome["message"]
    assert foreseen["path"] == done["path"]
    told = [done["path"], shlex.split(foreseen["outcome"]["next"][0])[2], shlex.split(outcome["next"][0])[2]]
    assert all(os.path.isabs(path) and os.path.samefile(path, meant) for path in told), told
    assert meant.read_bytes() != before[meant]
    assert {path: path.read_bytes() for path in untouched} == {path: before[path] for path in untouched}
    assert world.run("undo", outcome["journal"], "--yes").code == 0
    assert {path: path.read_bytes() for path in before} == before
    return done["path"]


# ------------------------------------------------------------------------------ paths that are not what they look like


def test_dots_behind_a_link_are_where_the_kernel_says(world, tmp_path, monkeypatch):
    meant = world.damaged()
    (world.sr / "sub").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(world.sr / "sub")
    decoy = tmp_path / "here" / meant.name
    decoy.write_bytes(meant.read_bytes())
    assert repaired_and_undone(world, f"{tmp_path}/here/link/../{meant.name}", meant, decoy) == str(meant)
    monkeypatch.chdir(tmp_path / "here")
    assert repaired_and_undone(world, f"link/../{meant.name}", meant, decoy) == str(meant)


@pytest.mark.parametrize("command", ["check", "show", "scan"])
def test_what_only_reads_tells_the_true_path_too(world, tmp_path, monkeypatch, command):
    path = world.put(world.image())
    (world.sr / "sub").mkdir()
    (tmp_path / "link").symlink_to(world.sr / "sub")
    monkeypatch.chdir(tmp_path)
    run = world.run(command, f"link/../{path.name}", "--json")
    assert run.code == 0
    told = json.loads(run.out)
    assert (told if command == "show" else told["images"][0])["path"] == str(path)


def test_a_relative_path_is_told_whole(world, monkeypatch):
    meant = world.damaged()
    monkeypatch.chdir(world.sr)
    assert repaired_and_undone(world, meant.name, meant) == str(meant)
    monkeypatch.chdir(world.mount)
    assert repaired_and_undone(world, f"./{SR}//{meant.name}", meant) == str(meant)


def test_a_plain_path_through_a_link_of_the_host_stays_as_it_was_given(world, tmp_path):
    meant = world.damaged()
    (tmp_path / "var-run").symlink_to(world.mount)
    given = f"{tmp_path}/var-run/{SR}/{meant.name}"
    assert repaired_and_undone(world, given, meant) == given


@pytest.mark.parametrize("way", ["cwd", "fd", "root", "link to cwd", "dev-fd"])
def test_a_magic_link_is_told_by_the_name_of_what_it_leads_to(world, tmp_path, monkeypatch, way):
    """Another process resolves such a link elsewhere, or not at all."""
    meant = world.damaged()
    monkeypatch.chdir(world.sr)
    folder = os.open(world.sr, os.O_RDONLY | os.O_DIRECTORY)
    (tmp_path / "magic").symlink_to("/proc/self/cwd")
    given = {
        "cwd": f"/proc/self/cwd/{meant.name}",
        "fd": f"/proc/self/fd/{folder}/{meant.name}",
        "root": f"/proc/{os.getpid()}/root{meant}",
        "link to cwd": f"{tmp_path}/magic/{meant.name}",
        "dev-fd": f"/dev/fd/{folder}/{meant.name}",
    }[way]
    try:
        assert repaired_and_undone(world, given, meant) == str(meant)
    finally:
        os.close(folder)


def test_a_link_to_the_image_itself_by_procfs_is_refused(world):
    meant = world.damaged()
    held = os.open(meant, os.O_RDONLY)
    try:
        for given in (f"/proc/self/fd/{held}", f"/dev/fd/{held}"):
            run = world.run("repair", given, "--yes", "--json")
            assert run.json["images"][0]["outcome"]["reason"] == "unsafe-path"
            assert run.code == 4
    finally:
        os.close(held)
    assert meant.read_bytes() == world.image()[:-512] + b"x" * 512


@pytest.mark.parametrize("name", ["a\nb.vhd", "a\x1b[31mb.vhd", "a (deleted)", "a\u202eb.vhd", "-n", "a b'c\"$(x).vhd"])
def test_odd_names_are_names(world, name):
    folder = world.sr / name
    folder.mkdir()
    meant = folder / name
    shutil.copy(world.damaged(), meant)
    run = world.run("repair", meant, "--yes", "--json")
    image = run.json["images"][0]
    assert (image["path"], image["outcome"]["status"]) == (str(meant), "repaired")
    assert shlex.split(image["outcome"]["undo"])[1] == "undo"
    assert world.run("undo", image["outcome"]["journal"], "--yes").code == 0


def test_a_folder_that_was_deleted_is_not_the_one_named_so(world, tmp_path, monkeypatch):
    """The kernel calls it "NAME (deleted)", and somebody may make a folder of that name."""
    decoy = tmp_path / "gone (deleted)"
    decoy.mkdir()
    trap = decoy / "x.vhd"
    trap.write_bytes(world.image()[:-512])
    gone = tmp_path / "gone"
    gone.mkdir()
    descriptor = os.open(gone, os.O_RDONLY)
    gone.rmdir()
    try:
        with pytest.raises(kernel_path.UnsafePath, match="deleted"):
            kernel_path.place_of(f"/proc/self/fd/{descriptor}")
        run = world.run("repair", f"/proc/self/fd/{descriptor}/x.vhd", "--yes")
    finally:
        os.close(descriptor)
    assert run.code in (4, 8, 12)
    assert "bug" not in run.err
    assert trap.read_bytes() == world.image()[:-512]


# ------------------------------------------------------------------------------ whose locks?


def test_a_link_named_as_one_sr_into_another_takes_the_locks_of_the_file(world, tmp_path):
    meant = world.damaged()
    (tmp_path / OTHER_SR).symlink_to(world.sr)
    locks = tmp_path / "sm"
    run = world.run("repair", f"{tmp_path}/{OTHER_SR}/{meant.name}", "--yes", "--sm-lock-dir", locks, "--json")
    assert run.json["images"][0]["path"] == str(meant)
    assert run.json["images"][0]["outcome"]["status"] == "repaired"
    assert sorted(os.listdir(locks)) == sorted([SR, BASE])


def test_a_log_does_not_lead_from_one_sr_into_another(world):
    meant = world.damaged()
    (world.mount / OTHER_SR).symlink_to(world.sr)
    before = meant.read_bytes()
    world.smlog(failed(sr=OTHER_SR))
    run = world.run("from-log", world.log, "--yes", "--json")
    assert run.json["incidents"][0]["outcome"]["reason"] == "unsafe-path"
    assert str(meant) in run.json["incidents"][0]["outcome"]["message"]
    assert run.code == 4
    assert meant.read_bytes() == before


@pytest.mark.parametrize("where", ["another SR", "the same SR", "outside"])
def test_a_file_with_two_names_is_not_written(world, tmp_path, where):
    meant = world.damaged()
    before = meant.read_bytes()
    other = {
        "another SR": world.mount / OTHER_SR / f"{OTHER}.vhd",
        "the same SR": world.path(LEAF),
        "outside": tmp_path / "x.vhd",
    }[where]
    other.parent.mkdir(exist_ok=True)
    os.link(meant, other)
    for given in (meant, other):
        for words in (["--dry-run"], ["--yes"]):
            run = world.run("repair", given, *words, "--json")
            outcome = run.json["images"][0]["outcome"]
            assert (run.code, outcome["status"], outcome["reason"]) == (4, "refused", "unsafe-path")
            assert "2 names (hard links)" in outcome["message"]
            assert "\n" not in outcome["message"]
            assert outcome["next"] == [f"find {given.parent} -xdev -samefile {given}"]
    assert meant.read_bytes() == before
    assert world.run("check", meant, "--json").json["images"][0]["verdict"] == "invalid"
    other.unlink()
    assert world.run("repair", meant, "--yes").code == 1


def test_a_second_name_made_after_the_plan_is_seen(world, tmp_path, monkeypatch):
    meant = world.damaged()
    before = meant.read_bytes()
    asked = aliases.alias_refusal
    looks = []

    def link_first(image, proc="/proc"):
        looks.append(1)
        if len(looks) == 2:
            os.link(meant, tmp_path / "second.vhd")
        return asked(image, proc)

    monkeypatch.setattr("smfix.usecases.guard.alias_refusal", link_first)
    run = world.run("repair", meant, "--yes", "--json")
    assert run.json["images"][0]["outcome"]["reason"] == "unsafe-path"
    assert meant.read_bytes() == before


def in_a_namespace(tmp_path: Path, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script with mounts of its own; its words are $1, $2 ..., smfix is $SMFIX."""
    environment = os.environ | {"SMFIX": f"{sys.executable} -m smfix", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    line = ["unshare", "-m", "sh", "-ec", script, "sh", *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment, timeout=60)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    return done


@pytest.mark.root
@pytest.mark.tools("unshare", "mount")
def test_a_second_mount_of_an_sr_does_not_hide_whose_disk_it_is(world, tmp_path):
    meant = world.damaged()
    before = meant.read_bytes()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / OTHER_SR).mkdir()
    (tmp_path / "x.vhd").write_bytes(b"")
    seconds = [("elsewhere", world.sr, meant.name), (OTHER_SR, world.sr, meant.name), ("x.vhd", meant, ".")]
    for name, mounted, inside in seconds:
        done = in_a_namespace(
            tmp_path, 'mount --bind "$1" "$2"; $SMFIX repair "$3" --yes --json --journal-dir "$4" || exit $?',
            str(mounted), str(tmp_path / name), str(Path(tmp_path, name, inside)), str(world.journals),
        )  # fmt: skip
        outcome = json.loads(done.stdout)["images"][0]["outcome"]
        assert (done.returncode, outcome["reason"]) == (4, "unsafe-path"), outcome
        assert str(meant) in outcome["message"]
    assert meant.read_bytes() == before


@pytest.mark.root
@pytest.mark.tools("unshare", "mount")
def test_a_folder_that_was_mounted_over_is_not_taken_for_what_is_on_top(world, tmp_path):
    below = world.damaged()
    over = tmp_path / "over"
    over.mkdir()
    on_top = over / below.name
    on_top.write_bytes(below.read_bytes())
    done = in_a_namespace(
        tmp_path, 'cd "$1"; mount --bind "$2" "$1"; $SMFIX repair "$3" --yes --json --journal-dir "$4" || exit $?',
        str(world.sr), str(over), below.name, str(world.journals),
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert json.loads(done.stdout)["images"][0]["outcome"]["reason"] == "unsafe-path"
    assert below.read_bytes() == on_top.read_bytes() == world.image()[:-512] + b"x" * 512


@pytest.mark.root
@pytest.mark.tools("unshare", "mount")
def test_a_path_in_another_mount_namespace_is_not_taken_for_one_of_ours(world, tmp_path):
    ours = world.damaged()
    other = tmp_path / "other"
    other.mkdir()
    theirs = other / ours.name
    theirs.write_bytes(ours.read_bytes())
    line = ["unshare", "-m", "sh", "-c", 'mount --bind "$1" "$2" && echo ready && exec cat', "sh", other, world.sr]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != "ready\n":
            pytest.skip("no mounts here")
        run = world.run("repair", f"/proc/{holder.pid}/root{ours}", "--yes", "--json")
        assert holder.stdin is not None
        holder.stdin.close()
    assert run.code == 4
    assert run.json["images"][0]["outcome"]["reason"] == "unsafe-path"
    assert "mount namespace" in run.json["images"][0]["outcome"]["message"]
    assert ours.read_bytes() == theirs.read_bytes() == world.image()[:-512] + b"x" * 512


def test_other_mounts_of_a_file_system_are_read_from_its_own_table(tmp_path):
    path = tmp_path / "sr x" / "disk"
    path.parent.mkdir()
    path.write_bytes(b"x")
    about = path.stat()
    identity = Identity(about.st_dev, about.st_ino, None, 1, "/mnt/a/sr x/disk")
    device = f"{os.major(about.st_dev)}:{os.minor(about.st_dev)}"
    escaped = str(path.parent).replace(" ", "\\040")
    (tmp_path / "self").mkdir()
    table = tmp_path / "self" / "mountinfo"
    table.write_text(
        f"1 1 {device} / /mnt/a rw - ext4 x rw\n2 1 {device} /sr\\040x {escaped} rw - ext4 x rw\n"
        f"3 1 {device} /other /mnt/c rw - ext4 x rw\n4 1 0:9999 / / rw - tmpfs x rw\n",
        encoding="utf-8",
    )
    assert list(aliases._other_names(identity, str(tmp_path))) == [str(path)]
    assert list(aliases._other_names(identity._replace(path="/elsewhere"), str(tmp_path))) == []
    assert list(aliases._other_names(identity, str(tmp_path / "none"))) == []


# ------------------------------------------------------------------------------ volumes

VOLUME = f"/dev/VG_XenStorage-{SR}/VHD-{BASE}"
MAPPED = f"/dev/mapper/VG_XenStorage--{SR.replace('-', '--')}-VHD--{BASE.replace('-', '--')}"


@pytest.mark.parametrize(
    ("given", "mapped", "expected"),
    [
        (VOLUME, MAPPED, (VOLUME, BASE, SR)),
        (MAPPED, MAPPED, (MAPPED, BASE, SR)),
        ("/dev/dm-3", MAPPED, (MAPPED, BASE, SR)),
        ("/tmp/node", MAPPED, (MAPPED, BASE, SR)),
        ("/dev/dm-3", "/dev/mapper/vg-lv", ("/dev/mapper/vg-lv", None, None)),
        ("/dev/vg/lv", "/dev/mapper/vg-lv", ("/dev/vg/lv", None, None)),
        ("/dev/sdb", None, ("/dev/sdb", None, None)),
        (VOLUME, None, (VOLUME, BASE, SR)),
    ],
)
def test_a_volume_has_the_name_of_its_group_and_never_its_nodes(monkeypatch, given, mapped, expected):
    monkeypatch.setattr(device_mapper, "mapper_path", lambda _rdev: mapped)
    name = read_path(given)
    target = named_device(Target(given, Backing.BLOCK, name.vdi, name.sr), 5)
    assert isinstance(target, Target)
    assert (target.path, target.vdi, target.sr) == expected


def test_a_volumes_link_that_leads_to_another_volume_is_refused(monkeypatch):
    monkeypatch.setattr(device_mapper, "mapper_path", lambda _rdev: MAPPED)
    refusal = named_device(Target(VOLUME.replace(BASE, LEAF), Backing.BLOCK, LEAF, SR), 5)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.UNSAFE_PATH
    assert MAPPED in refusal.message


def test_a_device_of_device_mapper_is_asked_for_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(device_mapper, "DEVICES", str(tmp_path))
    monkeypatch.setattr(device_mapper, "BLOCK_DEVICES", str(tmp_path / "block"))
    (tmp_path / "mapper").mkdir()
    folder = tmp_path / "block" / "252:3" / "dm"
    folder.mkdir(parents=True)
    (folder / "name").write_text("vg-lv\n", encoding="utf-8")
    rdev = os.makedev(252, 3)
    assert device_mapper.mapper_path(rdev) is None  # no such node
    (tmp_path / "mapper" / "vg-lv").write_bytes(b"")
    assert device_mapper.mapper_path(rdev) is None  # it is another device
    assert device_mapper.mapper_path(os.makedev(252, 4)) is None
    monkeypatch.setattr(os, "stat", lambda _path: os.stat_result((0o60600, *[0] * 9), {"st_rdev": rdev}))
    assert device_mapper.mapper_path(rdev) == f"{tmp_path}/mapper/vg-lv"


# ------------------------------------------------------------------------------ no current directory


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    folder = tmp_path / "nowhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()


@pytest.mark.parametrize("command", ["check", "repair", "scan", "show"])
@pytest.mark.parametrize("given", ["x.vhd", "./x.vhd", ".", "sub/x.vhd", "1d994938", BASE])
def test_a_name_in_a_deleted_directory_is_one_line(world, nowhere, command, given):
    run = world.run(command, given)
    assert "bug" not in run.err
    assert run.code & ~(4 | 8 | 16) == 0
    assert run.code != 0
    assert (run.out + run.err).strip()


def test_a_whole_path_is_good_without_a_directory(world, nowhere):
    meant = world.damaged()
    assert repaired_and_undone(world, meant, meant) == str(meant)
    assert repaired_and_undone(world, f"../sr-mount/{SR}/{meant.name}", meant) == str(meant)
    world.smlog(failed())
    assert world.run("from-log", world.log, "--dry-run").code == 4
    assert world.run("from-log", "../SMlog", "--dry-run").code == 4
    assert world.run("repair", f"../sr-mount/{SR}/{meant.name}", "-n").out.count(f"repair {meant} --yes") == 2


@pytest.mark.parametrize(
    "words",
    [
        ["from-log", "log"],
        ["from-log", "-f", "log"],
        ["journal", "--journal-dir", "j"],
        ["status", "--state-dir", "s"],
        ["demo", "--keep", "k"],
        ["service", "install", "--unit-dir", "u"],
        ["fleet", "report", "x.json"],
    ],
)
def test_a_folder_or_log_in_a_deleted_directory_is_one_line(world, nowhere, words):
    world.smlog(failed())
    capture = world.capture
    capture.readouterr()
    from smfix.cli import app

    code = app.run(words)
    said = capture.readouterr().err
    assert "bug" not in said
    assert code in (8, 16)
    assert len(said.strip().splitlines()) == 1


# ------------------------------------------------------------------------------ the journals' folder


@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_journal_folder_that_is_a_link_is_not_followed(world, tmp_path, monkeypatch, by):
    """Whoever owns the link could lead the journals elsewhere between the repair and its undo."""
    meant = world.damaged()
    before = meant.read_bytes()
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    world.journals.symlink_to(real)
    if by == "environment":
        monkeypatch.setenv("SMFIX_JOURNAL_DIR", str(world.journals))
        monkeypatch.setattr(world, "options", lambda _command: ["--sr-mount", str(world.mount)])
    run = world.run("repair", meant, "--yes", "--json")
    outcome = run.json["images"][0]["outcome"]
    assert outcome["status"] == "failed"
    assert "symbolic link" in outcome["message"]
    assert str(real) in outcome["message"]
    assert os.listdir(real) == []
    assert meant.read_bytes() == before
    monkeypatch.undo()
    listed = world.run("journal")
    assert listed.code == 8
    assert "symbolic link" in listed.err
    assert len(listed.err.strip().splitlines()) == 1


def test_a_link_to_nothing_is_no_journal_folder_either(world, tmp_path):
    meant = world.damaged()
    world.journals.symlink_to(tmp_path / "nothing")
    run = world.run("repair", meant, "--yes", "--json")
    assert run.json["images"][0]["outcome"]["status"] == "failed"
    assert not (tmp_path / "nothing").exists()


def test_a_link_above_the_journals_counts_by_its_owner(world, tmp_path):
    """The host's own links are followed; one that somebody else made would choose where root writes."""
    if os.geteuid() != 0:
        pytest.skip("links of two users need root")
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(real)
    world.journals = link / "journal"
    meant = world.damaged()
    assert repaired_and_undone(world, meant, meant) == str(meant)
    os.chown(link, 65534, 65534, follow_symlinks=False)
    run = world.run("repair", meant, "--yes", "--json")
    assert run.json["images"][0]["outcome"]["status"] == "failed"
    assert "belongs to another user" in run.json["images"][0]["outcome"]["message"]


def test_the_journals_folder_is_told_as_the_kernel_finds_it(world, tmp_path, monkeypatch):
    meant = world.damaged()
    (tmp_path / "deep" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "sub")
    monkeypatch.chdir(tmp_path)
    world.journals = Path("link/../journal")
    monkeypatch.setattr(world, "options", lambda _c: ["--journal-dir", "link/../journal"])
    outcome = world.run("repair", meant, "--yes", "--json").json["images"][0]["outcome"]
    assert f"--journal-dir {tmp_path}/deep/journal" in outcome["undo"]
    assert os.listdir(tmp_path / "deep" / "journal")
    monkeypatch.chdir("/")
    monkeypatch.setattr(world, "options", lambda _c: [])
    words = shlex.split(outcome["undo"])[1:]
    assert world.run(*words, "--yes").code == 0


# ------------------------------------------------------------------------------ the functions


def test_a_name_that_is_not_there_yet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert kernel_path.named("a/b/c") == f"{tmp_path}/a/b/c"
    assert kernel_path.named("a/./b/") == f"{tmp_path}/a/b"
    assert kernel_path.named("/none//such/./x") == "/none/such/x"
    assert kernel_path.named("/") == "/"
    assert kernel_path.named(".") == str(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    assert kernel_path.named(f"{tmp_path}/file/x") == f"{tmp_path}/file/x"
    for wrong in ("", "a\0b", "none/..", "none/../x", "file/x"):
        with pytest.raises(kernel_path.UsageError):
            kernel_path.named(wrong)


def test_a_loop_of_links_ends(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert len(kernel_path._links(f"{tmp_path}/loop/x")) > 1
    with pytest.raises(OSError, match="symbolic links"):
        kernel_path.place_of(f"{tmp_path}/loop")


def test_without_procfs_the_text_is_resolved_and_verified(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "sub")
    monkeypatch.setattr(kernel_path, "_PROC", str(tmp_path / "no-proc"))
    assert kernel_path.place_of(f"{tmp_path}/link") == (f"{tmp_path}/link", f"{tmp_path}/sub")
    assert kernel_path.place_of(f"{tmp_path}/link/..") == (str(tmp_path), str(tmp_path))


def test_a_word_to_type(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert kernel_path.typed("x/./y") == f"{tmp_path}/x/y"
    assert kernel_path.typed("link/../x") == f"{tmp_path}/link/../x"  # what it means is the kernel's to say
    assert kernel_path.typed("/a/b/../c") == "/a/b/../c"
    assert kernel_path.typed("/a//b") == "/a/b"
    assert kernel_path.typed("/proc/self/cwd/x") == f"{tmp_path}/x"


def test_an_image_swapped_under_its_path_is_not_opened(world, tmp_path, monkeypatch):
    meant = world.damaged()
    other = tmp_path / "other.vhd"
    other.write_bytes(b"other")
    real = image_file._identify

    def swap(descriptor, path):
        os.replace(other, meant)
        return real(descriptor, path)

    monkeypatch.setattr(image_file, "_identify", swap)
    refusal = open_image(Target(str(meant), Backing.FILE, BASE, SR))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.STALE
