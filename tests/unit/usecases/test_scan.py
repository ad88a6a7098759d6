"""`scan`: every image of an SR once, with the verdict of `check`, in its chain."""

from __future__ import annotations

import os
import uuid

import pytest

from schemas import valid
from smfix.errors import Unreadable, UsageError
from smfix.formats.vhd import build
from smfix.report import jsondoc, scan_report
from smfix.usecases import scan
from smfix.usecases.check import check
from smfix.usecases.run_options import RunOptions
from smfix.values import Exit, InUse, Verdict

SR = "7a142a29-9556-ee47-1e04-1a8517813369"
BASE, LEAF, LONE = (str(uuid.UUID(int=n << 96)) for n in (0x1D994938, 0x2D994938, 0x3D994938))
SIZE = 8 << 20


def _write(path, made, cut=0):
    raw = made.to_bytes()
    path.write_bytes(raw[: len(raw) - cut])


@pytest.fixture
def mount(tmp_path):
    """An SR: a hidden base without its footer, its leaf, and a lone disk of odd length."""
    sr = tmp_path / "mount" / SR
    sr.mkdir(parents=True)
    base, leaf, lone = (uuid.UUID(each).bytes for each in (BASE, LEAF, LONE))
    _write(sr / f"{BASE}.vhd", build.sparse(SIZE, base, {0: {0: b"b" * 512}}, hidden=1), cut=512)
    parent = build.ParentRef(base, f"{BASE}.vhd")
    _write(sr / f"{LEAF}.vhd", build.sparse(SIZE, leaf, {1: {7: b"l" * 512}}, parent=parent))
    _write(sr / f"{LONE}.vhd", build.sparse(SIZE, lone, {}), cut=100)
    return tmp_path / "mount"


def _by_vdi(images):
    return {image.vdi: image for image in images}


def test_without_a_target_every_attached_sr_is_scanned(mount):
    (mount / str(uuid.UUID(int=5))).mkdir()  # an SR without a VHD is passed over
    images = _by_vdi(scan.scan([], [str(mount)]))
    assert images.keys() == {BASE, LEAF, LONE}
    assert [images[vdi].checked.verdict for vdi in (BASE, LEAF, LONE)] == [
        Verdict.INVALID,
        Verdict.VALID,
        Verdict.INVALID,
    ]
    assert images[BASE].hidden
    assert images[BASE].aligned
    assert images[BASE].virtual_size == SIZE
    assert images[LEAF].parent == images[BASE].checked.path
    assert images[LEAF].depth == 1
    assert images[LEAF].allocated == 1
    assert images[LEAF].parent_uuid == images[BASE].uuid == BASE
    assert images[LONE].aligned is False
    assert images[LONE].in_use is not InUse.READ_WRITE


def test_the_verdict_is_that_of_check(mount):
    paths = sorted(str(path) for path in (mount / SR).iterdir())
    checked = check(paths, RunOptions(sr_mounts=(str(mount),)))
    scans = {image.checked.path: image.checked for image in scan.scan([SR], [str(mount)])}
    assert {one.path: (one.verdict, one.findings) for one in checked} == {
        path: (one.verdict, one.findings) for path, one in scans.items()
    }


def test_an_sr_a_folder_and_an_image_name_the_same_disks_once(mount):
    folder = str(mount / SR)
    assert len(scan.scan([SR, folder, os.path.join(folder, f"{LONE}.vhd")], [str(mount)])) == 3


def test_where_no_process_can_be_made_this_one_looks_at_them(mount, monkeypatch):
    def none():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    alone = _by_vdi(scan.scan([], [str(mount)]))
    _on_two_cores(monkeypatch)
    monkeypatch.setattr(os, "fork", none)
    monkeypatch.setattr(scan, "unanswered", lambda *_: {})
    assert _by_vdi(scan.scan([], [str(mount)])) == alone


def _on_two_cores(monkeypatch):
    monkeypatch.setattr(scan, "BATCH", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})


def test_many_images_are_looked_at_by_several_processes(mount, monkeypatch):
    serial = scan.scan([SR], [str(mount)])
    _on_two_cores(monkeypatch)
    told = []
    assert scan.scan([SR], [str(mount)], lambda done, total: told.append((done, total))) == serial
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_what_cannot_be_read_is_said_and_the_rest_is_scanned(mount):
    (mount / SR / "link.vhd").symlink_to(f"{LONE}.vhd")
    (mount / SR / "text.vhd").write_text("no disk at all\n" * 99)
    images = {os.path.basename(image.checked.path): image for image in scan.scan([SR], [str(mount)])}
    assert images["link.vhd"].checked.verdict is Verdict.UNREADABLE
    assert images["link.vhd"].checked.note
    assert images["text.vhd"].checked.verdict is Verdict.NOT_A_VHD
    assert len(images) == 5


@pytest.mark.parametrize("target", ["no-such-thing", str(uuid.UUID(int=77)), "/nowhere/at/all.vhd"])
def test_a_target_that_is_not_there_is_one_line(mount, target):
    with pytest.raises((Unreadable, UsageError), match=target):
        scan.scan([target], [str(mount)])


def test_a_prefix_that_fits_two_images_is_a_usage_error(mount):
    twin = BASE[:-1] + "1"
    (mount / SR / f"{twin}.vhd").write_bytes((mount / SR / f"{BASE}.vhd").read_bytes())
    with pytest.raises(UsageError, match="2 images"):
        scan.scan([BASE[:8]], [str(mount)])
    images = _by_vdi(scan.scan([SR], [str(mount)]))
    assert images[LEAF].standing == "parent-ambiguous"
    assert images[LEAF].parent is None


def test_a_mount_without_any_sr_is_unreadable(tmp_path):
    with pytest.raises(Unreadable, match="no SR with a VHD"):
        scan.scan([], [str(tmp_path)])


def test_json_is_complete_and_its_exit_code_counts_the_invalid(mount):
    document = valid(scan_report.document(scan.scan([], [str(mount)])))
    assert document["exit"] == int(Exit.LEFT)
    assert document["summary"] == {"images": 3, "invalid": 2, "unaligned": 1, "longest_chain": 2}
    assert jsondoc.dumps(document)


def test_text_draws_the_chain_and_names_what_is_wrong(mount):
    lines = scan_report.text(scan.scan([], [str(mount)])).splitlines()
    at = next(number for number, line in enumerate(lines) if BASE in line)
    assert "INVALID, hidden" in lines[at]
    assert lines[at + 1].strip() == "2.0 MiB file"
    assert lines[at + 2].strip() == "VHD101 footer lost, backup footer sound"
    assert lines[at + 3].startswith("    " + LEAF)
    assert "valid" in lines[at + 3]
    assert " ".join(lines[-2:]) == (
        "3 images: 1 valid, 2 invalid; 1 with a size that is not a multiple of 512; the longest chain has 2 images."
    )


def test_hostile_names_are_escaped(mount):
    (mount / SR / "x\x1b[31m.vhd").write_bytes(b"not a disk")
    assert "\x1b" not in scan_report.text(scan.scan([SR], [str(mount)]))
