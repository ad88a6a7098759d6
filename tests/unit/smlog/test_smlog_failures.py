"""Events: which image, which SR, how sure."""

from __future__ import annotations

import pytest

from smfix.smlog.correlate import failures as events_module
from smfix.smlog.correlate.failures import QUOTE_LINES, Quote, bounded
from smfix.smlog.rules.tool_output import Weight
from smlog_text import (
    LV,
    PATH,
    SR,
    SR2,
    VDI,
    VDI2,
    X,
    check,
    corrupted,
    events_of,
    failed,
    gc,
    incidents_of,
    noise_of,
    said,
)

COOKIE = "primary footer invalid: invalid cookie"
DUMP = f"{COOKIE}\n{PATH} appears invalid; dumping metadata\nCookie : conectix\n"
RESOURCE = "/dev/drbd/by-res/xcp-volume-00000000-1111-2222-3333-444444444444/0"


def brief(lines: list[str], per_block: int = 10_000) -> list[tuple[str, str | None, str | None, tuple[str, ...]]]:
    return [(event.vdi, event.sr, event.path, event.kinds) for event in events_of(lines, per_block)]


def test_a_failed_check_names_its_image():
    assert brief([check(), *failed(DUMP)]) == [(VDI, SR, PATH, ("footer-invalid",))]
    assert brief(failed(DUMP)) == [(VDI, SR, PATH, ("footer-invalid",))]
    assert brief([check(), *failed(COOKIE)]) == [(VDI, SR, PATH, ("footer-invalid",))]
    assert brief(failed(COOKIE)) == []


def test_the_exception_takes_over_what_the_check_said():
    found = brief([check(), *failed(DUMP), corrupted()])
    assert found[1] == (VDI, SR, PATH, ("coalesce-corrupted", "footer-invalid"))
    assert brief([check(), *failed(DUMP), corrupted(f"{VDI2[:8]}(1G)")])[1] == (
        VDI2[:8],
        SR,
        None,
        ("coalesce-corrupted",),
    )


@pytest.mark.parametrize(
    ("stdout", "kinds"),
    [
        ("primary footer invalid: creation time in future", ("clock",)),
        ("could not find parent /x.vhd", ("parent-missing",)),
        ("", ()),
        ("cannot stat /x: 2", ()),
        ("error reading primary footer: -5", ()),
    ],
)
def test_what_is_no_damage_needs_an_exception(stdout, kinds):
    record = [check(), *failed(stdout)]
    assert brief(record) == []
    assert sum(noise_of(record).values()) == 1
    assert brief([*record, corrupted()]) == [(VDI, SR, PATH, ("coalesce-corrupted", *kinds))]


def test_a_complaint_of_another_run_is_not_joined():
    record = [check(), *failed(DUMP)]
    for between in (gc(f"=== SR {SR2}: gc ==="), gc("Will finish as PID [26919]", 7)):
        assert brief([*record, between, corrupted()])[1][3] == ("coalesce-corrupted",)
    late = corrupted(at="Aug 10 12:00:01")
    assert brief([*record, late])[1][3] == ("coalesce-corrupted",)
    assert brief([*record, corrupted(pid=5)])[1][1:3] == (SR, PATH)  # named elsewhere in the log


def test_a_pid_that_names_another_sr_has_started_anew():
    other = PATH.replace(SR, SR2)
    lines = [check(), *failed(DUMP), check(other), *failed(DUMP.replace(SR, SR2)), corrupted()]
    assert brief(lines)[-1][1:3] == (SR2, other)


def test_digits_are_expanded_by_the_same_run_first():
    assert brief([check(), said("  pread SUCCESS"), corrupted()]) == [(VDI, SR, PATH, ("coalesce-corrupted",))]
    two = said(f"Renaming {PATH} -> {PATH.replace(SR, SR2)}")
    (event,) = events_of([two, corrupted()])
    assert (event.vdi, event.sr, event.path) == (VDI[:8], None, None)
    assert event.candidates == (PATH, PATH.replace(SR, SR2))


def test_digits_are_not_expanded_by_an_older_run_on_another_sr():
    lines = [said(f"x {PATH.replace(SR, SR2)}"), gc(f"IPCFlag: set {SR}:success"), corrupted()]
    assert brief(lines) == [(VDI[:8], SR, None, ("coalesce-corrupted",))]


def test_digits_are_expanded_by_the_log_on_the_same_sr():
    elsewhere = [said(f"x {PATH}", 1), said(f"x {PATH.replace(SR, SR2)}", 2), said(f"x {LV.replace(VDI, VDI2)}", 3)]
    assert brief([gc(f"=== SR {SR}: gc ==="), corrupted(), *elsewhere])[0][:3] == (VDI, SR, PATH)
    (event,) = events_of([corrupted(), *elsewhere])
    assert event.vdi == VDI[:8]
    assert event.candidates == (PATH, PATH.replace(SR, SR2))
    assert brief([corrupted(), said(f"x {PATH}", 1, host="xen2")])[0][2] is None
    assert brief([corrupted()]) == [(VDI[:8], None, None, ("coalesce-corrupted",))]


def test_temporary_names():
    temporary = PATH.replace(VDI, f"OLD_{VDI}")
    record = [check(temporary), *failed(f"{COOKIE}\n{temporary} appears invalid; dumping metadata\n")]
    assert brief([*record, corrupted(f"OLD_{VDI[:4]}(1G)")])[-1][:3] == (VDI, SR, temporary)
    assert brief([*record, corrupted("*DELETED_(1G)")])[-1][:3] == (VDI, SR, temporary)
    assert brief([check(), *failed(DUMP), corrupted(f"OLD_{VDI[:4]}(1G)")])[-1][:3] == (VDI[:4], SR, None)


def test_tags():
    for tag, kind in (
        ("coalesce", "coalesce-corrupted"),
        ("leaf-coalesce", "leaf-coalesce-corrupted"),
        ("_doCoalesceLeaf", "leaf-coalesce-corrupted"),
        ("gc", "coalesce-corrupted"),
    ):
        assert brief([corrupted(tag=tag)])[0][3] == (kind,)


def test_formats():
    (event,) = events_of([gc("EXCEPTION while coalescing: COW image *1d994938(1G)[qcow2] corrupted")])
    assert event.format == "qcow2"
    qcow2 = PATH.replace(".vhd", ".qcow2")
    lines = [said(str(["/usr/bin/qemu-img", "check", qcow2])), *failed("1 errors were found\n", code=2), corrupted()]
    (event,) = events_of(lines)
    assert (event.path, event.format) == (qcow2, "qcow2")
    lines[0] = said(str(["/usr/bin/qemu-img", "check", "-f", "qcow2", qcow2]))
    lines[-1] = gc(f"coalesce: EXCEPTION {X}, COW image *1d994938(1G)[qcow2] corrupted")
    (event,) = events_of(lines)
    assert (event.path, event.format) == (qcow2, "qcow2")


def test_failures_of_other_programs_are_noise():
    for program, count in (("/usr/sbin/cbt-util", 1), ("/usr/sbin/tap-ctl", 1), ("/sbin/vgs", 1)):
        record = [said(str([program, "x"])), *failed(DUMP)]
        assert brief(record) == []
        assert sum(noise_of(record).values()) == count
    assert len(noise_of([said("['/sbin/vgs']"), *failed(""), said("['/usr/sbin/tap-ctl']"), *failed("")])) == 2


def test_a_repair_that_failed():
    repair = said(str(["/usr/bin/vhd-util", "repair", "-n", PATH]))
    assert brief([repair, *failed("", code=28)]) == [(VDI, SR, PATH, ("repair-failed",))]
    assert brief([repair, said("  pread SUCCESS")]) == []


@pytest.mark.parametrize("code", [2, 5, 13, 16, 30, 116])
def test_a_repair_that_storage_refused_is_no_damage(code):
    """A read-only SR, for example: a coalesce fails there, and so does the repair of its parent."""
    repair = said(str(["/usr/bin/vhd-util", "repair", "-n", PATH]))
    assert brief([repair, *failed("", code=code)]) == []
    assert brief([repair, *failed(COOKIE, code=code)]) == [(VDI, SR, PATH, ("footer-invalid",))]
    assert brief([repair, *failed("", code=22)]) == [(VDI, SR, PATH, ("repair-failed",))]


def test_a_check_of_a_read_only_sr_proves_nothing():
    record = [check(), *failed("", code=30)]
    assert brief([*record, corrupted()]) == []
    assert brief([*record, check(), *failed(DUMP), corrupted()])[-1][3] == ("coalesce-corrupted", "footer-invalid")
    assert brief([*record, corrupted(f"*{VDI2[:8]}(1G)")]) == [(VDI2[:8], SR, None, ("coalesce-corrupted",))]


@pytest.mark.parametrize(
    "why",
    [
        'Failed to get shared "write" lock\nIs another process using the image [{}]?',
        'Failed to get "write" lock\nIs another process using the image [{}]?',
        'Failed to get "consistent read" lock',
        "Failed to lock byte 100",
    ],
)
@pytest.mark.parametrize("thread", [" ", "[MainThread] "])
def test_an_image_that_is_open_elsewhere_is_not_damaged(why, thread):
    """Tapdisk or an export holds QEMU's byte locks: `qemu-img check` cannot open the image, and says no more."""
    path = PATH.replace(".vhd", ".qcow2")
    stderr = f"qemu-img: Could not open '{path}': {why.format(path)}\n"
    record = f"FAILED in util.pread: (rc 1) stdout: '', stderr: '{stderr}'"
    lines = [said(str(["/usr/bin/qemu-img", "check", "-f", "qcow2", path])), *map(said, record.split("\n"))]
    blamed = gc(f"coalesce: EXCEPTION {X}, COW image *1d994938(1G)[qcow2] corrupted")
    while_coalescing = gc("EXCEPTION while coalescing: COW image *1d994938(1G)[qcow2] corrupted")
    for line in (blamed, while_coalescing):
        assert brief([one.replace("] ", f"]{thread}", 1) for one in [*lines, line]]) == []
    assert any("open elsewhere" in reason for reason in noise_of([*lines, blamed]))
    corrupt = record.replace(why.format(path), "Image is corrupt; cannot be opened read/write")
    damaged = [lines[0], *map(said, corrupt.split("\n")), blamed]
    assert brief(damaged) == [(VDI, SR, path, ("coalesce-corrupted",))]


def test_a_dump_names_no_place_of_another_disk():
    """A child's dump says where its parent is, as the child believes: relative, or on another SR once."""
    for name in (
        f"./{VDI}.vhd",
        f"./VG_XenStorage--{SR2.replace('-', '--')}-VHD--{VDI.replace('-', '--')}",
        PATH.replace(SR, SR2),
    ):
        for dumped in (said(f"       decoded name : {name}", 5), said(f"Parent name         : {name}")):
            assert brief([dumped, gc(f"=== SR {SR}: gc ==="), said(f"x {PATH}", 6), corrupted()]) == [
                (VDI, SR, PATH, ("coalesce-corrupted",))
            ]
            assert brief([dumped, corrupted()]) == [(VDI[:8], None, None, ("coalesce-corrupted",))]


def test_other_actions_count_only_if_they_name_damage():
    query = said(str(["/usr/bin/vhd-util", "query", "-v", "-n", PATH]))
    assert brief([query, *failed(f"error opening {PATH}: -22")]) == [(VDI, SR, PATH, ("open-failed",))]
    assert brief([query, *failed(f"error opening {PATH}: -2")]) == []
    assert brief([query, *failed("")]) == []
    assert brief([query, *failed("error opening /etc/fstab: -22")]) == []


def test_a_resize_whose_journal_cannot_be_made():
    """A coalesce grows the parent first; libvhd refuses to journal a footer, a backup footer or a batmap it rejects."""
    resize = said(
        str(["/usr/bin/vhd-util", "resize", "-s", "16", "-n", PATH, "-j", "/run/sr-mount/s/.journal-1d994938"])
    )
    record = [resize, *failed("creating journal failed: -22\n")]
    assert brief(record) == [(VDI, SR, PATH, ("open-failed",))]
    blamed = [*record, gc("coalesce: EXCEPTION <class 'util.CommandException'>, Invalid argument")]
    assert brief(blamed) == [(VDI, SR, PATH, ("open-failed",))]
    assert brief([resize, *failed("creating journal failed: -28\n", code=28)]) == []
    assert brief([resize, *failed("resize failed: -5\n", code=5)]) == []
    assert brief([resize, *failed("")]) == []


def test_linstor_volumes():
    record = [said(f"vdi_attach {{'sr_uuid': '{SR}'}}"), check(RESOURCE), *failed(DUMP.replace(PATH, RESOURCE))]
    assert brief(record) == [("", SR, RESOURCE, ("footer-invalid",))]
    joined = brief([*record, corrupted("*2e994938(1G)")])
    assert joined[1] == ("2e994938", SR, RESOURCE, ("coalesce-corrupted", "footer-invalid"))
    told = said(f"Successful access on x for device {RESOURCE} ({VDI2}): `check` => True", 3)
    assert brief([told, *record])[0][0] == VDI2
    assert brief([told, *record, corrupted(f"*{VDI2[:8]}(1G)")])[1][:3] == (VDI2, SR, RESOURCE)
    near_miss = said(f"for device {RESOURCE} (nobody)", 3)
    assert brief([near_miss, *record])[0][0] == ""


def test_verdicts_outside_records():
    assert brief([COOKIE, f"{PATH} appears invalid; dumping metadata"]) == [(VDI, SR, PATH, ("footer-invalid",))]
    assert brief([said(COOKIE), said(f"{PATH} appears invalid; dumping metadata")])[0][3] == ("footer-invalid",)
    assert brief([f"error opening {LV}: -22"]) == [(VDI, SR, LV, ("open-failed",))]
    assert brief([f"{PATH} appears invalid; dumping metadata"]) == []
    assert brief(["primary footer invalid: creation time in future", f"{PATH} appears invalid; dumping metadata"]) == []
    assert brief([COOKIE, "/etc/fstab appears invalid; dumping metadata"]) == []


def test_two_verdicts_in_a_row_keep_their_complaints():
    other = PATH.replace(VDI, VDI2)
    lines = [
        COOKIE,
        f"{PATH} appears invalid; dumping metadata",
        "header is invalid: x",
        f"{other} appears invalid; dumping metadata",
    ]
    assert [(event.vdi, event.kinds) for event in events_of(lines)] == [
        (VDI, ("footer-invalid",)),
        (VDI2, ("header-invalid",)),
    ]


def test_an_undated_verdict_is_from_the_time_above():
    (event,) = events_of([gc("In cleanup"), "x", COOKIE, f"{PATH} appears invalid; dumping metadata"])
    assert (event.stamp.hour, event.pid, event.copy) == (12, None, False)
    (event,) = events_of([COOKIE, f"{PATH} appears invalid; dumping metadata"])
    assert event.stamp is None


def test_copies():
    temporary = f"/var/run/sr-mount/{SR}/tmpFco2q9/{VDI}.vhd"
    (event,) = events_of([COOKIE, f"{temporary} appears invalid; dumping metadata"])
    assert event.copy
    trace = "2012-10-31 18:06:12 TRACE nova.utils Failure: ['XENAPI_PLUGIN_FAILURE', 'upload_vhd', 'x']"
    (event,) = events_of([trace, COOKIE, f"{PATH} appears invalid; dumping metadata"])
    assert event.copy
    assert [quote.line for quote in event.evidence] == [1, 2, 3]
    one_line = rf"{trace} '{COOKIE}\n{PATH} appears invalid; dumping metadata\n'"
    (event,) = events_of([one_line])
    assert event.copy


SCAN = f"***** VHD scan error: vhd={PATH} scan-error=-22 error-message='opening file'"
BLOCKED = gc(f"gc: EXCEPTION {X}, Scan error")


def test_scan_errors():
    assert brief([said(SCAN)]) == [(VDI, SR, PATH, ("scan-error",))]
    assert brief([said(SCAN.replace("-22", "-2"))]) == []
    assert brief([said(SCAN.replace(PATH, "/etc/fstab"))]) == []
    bare = said(SCAN.replace(PATH, f"VHD-{VDI}"))
    assert brief([gc(f"=== SR {SR}: gc ==="), bare]) == [(VDI, SR, LV, ("scan-error",))]
    assert brief([bare]) == [(VDI, None, None, ("scan-error",))]
    file = said(SCAN.replace(PATH, f"{VDI}.vhd"))  # which folder is mounted where is another question
    assert brief([gc(f"=== SR {SR}: gc ==="), file]) == [(VDI, SR, None, ("scan-error",))]
    assert brief([said(SCAN.replace(PATH, RESOURCE))]) == [("", None, RESOURCE, ("scan-error",))]


def test_a_scan_that_blocks_the_collection():
    assert brief([said(SCAN), said(SCAN), BLOCKED]) == [(VDI, SR, PATH, ("scan-error",))] * 3
    assert brief([said(SCAN.replace("-22", "-5")), BLOCKED]) == [(VDI, SR, PATH, ("scan-error",))]
    assert brief([check(), *failed(DUMP), BLOCKED]) == [(VDI, SR, PATH, ("footer-invalid",))]
    assert noise_of([BLOCKED])
    for told in (
        f"*** vhd-scan error: {VDI}",
        f"*** VHD info missing: {VDI}",
        f" [VDI {VDI}: failed to read VHD metadata]",
    ):
        lines = [gc(f"=== SR {SR}: gc ==="), said(told), BLOCKED]
        assert brief(lines) == [(VDI, SR, None, ("scan-error",))]
    assert brief([said(f"*** vhd-scan error: {VDI}", 4), BLOCKED]) == []


def test_a_scan_that_is_refused():
    refused = said(f"***** sr_scan: EXCEPTION <class 'SR.SROSError'>, The SR scan failed  [opterr=uuid={VDI}]")
    assert brief([said(SCAN), refused])[1] == (VDI, SR, PATH, ("scan-error",))
    assert brief([said(f"sr_scan {{'sr_uuid': '{SR}'}}"), refused]) == [(VDI, SR, None, ("scan-error",))]
    assert brief([said(SCAN.replace(VDI, VDI2)), refused])[1] == (VDI, SR, None, ("scan-error",))
    assert brief([f"opterr=Error scanning VDI {VDI.upper()}"]) == [(VDI, None, None, ("scan-error",))]


def test_a_parent_that_is_missing():
    line = gc(f"gc: EXCEPTION {X}, Parent VDI {VDI2.upper()} of {VDI} not found")
    assert brief([gc(f"=== SR {SR}: gc ==="), line]) == [(VDI2, SR, None, ("parent-missing",))]


def test_a_scan_record_is_read_line_by_line():
    scan = said(str(["/usr/bin/vhd-util", "scan", "-f", "-m", f"/run/sr-mount/{SR}/*.vhd"]))
    stdout = f"vhd={VDI2}.vhd capacity=1 size=1\nvhd={PATH} scan-error=-22 error-message='opening file'\n"
    assert brief([scan, *failed(stdout)]) == [(VDI, SR, PATH, ("scan-error",))]


def test_a_record_is_read_once(monkeypatch):
    record = failed(DUMP)
    for per_block in (1, 2, 100):
        assert len(brief([check(), *record, said("x"), *[said("y", 3)] * 5], per_block)) == 1


def test_reports_of_a_pid_that_was_used_again_are_fresh():
    run = [check(), *failed(DUMP)]
    one, two = events_of([*run, *run])
    assert (one.fresh, two.fresh) == (False, False)
    _, two = events_of([*run, gc(f"=== SR {SR}: gc ==="), *run])
    assert two.fresh


def test_memory_has_bounds(monkeypatch):
    monkeypatch.setattr(events_module, "_PROCESSES", 2)
    lines = []
    for pid in (1, 2, 3, 4):
        lines += [check(pid=pid), *failed("", pid)]
    lines += [corrupted(pid=pid) for pid in (1, 2, 4)]
    assert [event.kinds for event in events_of(lines)] == [("coalesce-corrupted",)] * 3
    monkeypatch.setattr(events_module, "_CHECKS", 1)
    other = PATH.replace(VDI, VDI2)
    lines = [check(), *failed(""), check(other), *failed(""), corrupted()]
    assert events_of(lines)[0].path == PATH  # by the run's own words


def test_nothing_to_tell():
    assert events_of([gc("In cleanup"), "EXCEPTION", "", "FAILED"]) == []


def test_weights():
    (event,) = events_of([check(), *failed(DUMP)])
    assert event.weight is Weight.DAMAGE
    assert event.host == "xen1"


def test_quotes_are_bounded():
    quotes = tuple(Quote(0, number, "x") for number in range(50))
    assert bounded(quotes) == (*quotes[: QUOTE_LINES - 1], quotes[-1])
    assert bounded((*quotes[:3], *quotes[:3])) == quotes[:3]


def test_a_tapdisk_that_refuses_what_is_no_image():
    refused = f"***** ['/usr/sbin/tap-ctl', 'open', '-a', 'vhd:{PATH}'] failed: status=22, x: EXCEPTION <class 'x'>, z"
    assert brief([said(refused)]) == [(VDI, SR, PATH, ("open-failed",))]
    assert brief([said(refused.replace(PATH, "/etc/passwd"))]) == []
    assert brief([said(refused.replace("status=22", "status=2"))]) == []


@pytest.mark.parametrize(
    ("code", "kinds"), [(-11, ("tool-crashed",)), (-6, ("tool-crashed",)), (-15, None), (-9, None)]
)
@pytest.mark.parametrize("action", ["check", "coalesce", "query", "scan"])
def test_a_program_that_a_signal_ended(code, kinds, action):
    record = [said(str(["/usr/bin/vhd-util", action, "--debug", "-n", PATH])), *failed("", code=code)]
    assert brief(record) == ([] if kinds is None else [(VDI, SR, PATH, kinds)])
    spoken = [record[0], *failed(DUMP, code=-11)]
    assert brief(spoken)[0][3][0] == "footer-invalid"


def test_a_bare_name_is_looked_for_in_the_folder_before():
    name = PATH.rpartition("/")[2]
    said_of = [COOKIE, f"{name} appears invalid; dumping metadata"]
    folder = PATH.rpartition("/")[0]
    assert brief([f"[root@x ~]# cd {folder}", *said_of]) == [(VDI, SR, PATH, ("footer-invalid",))]
    assert brief([f"[root@x ~]# ls && cd {folder}/", "x", *said_of]) == [(VDI, SR, PATH, ("footer-invalid",))]
    assert brief([f"[root@x {SR}]# vhd-util check -n {name}", *said_of]) == [(VDI, SR, None, ("footer-invalid",))]
    assert brief(["# cd /etc", *said_of]) == [(VDI, None, f"/etc/{name}", ("footer-invalid",))]
    assert brief(said_of) == [(VDI, None, None, ("footer-invalid",))]


@pytest.mark.parametrize("before", ["", "./", f"{SR}/", f"./{SR}/"])
def test_every_way_to_give_a_name(before):
    name, mount = PATH.rpartition("/")[2], PATH.partition(f"/{SR}")[0]
    folder = mount if SR in before else f"{mount}/{SR}"
    given = f"{before}{name}"
    for lines in (
        [COOKIE, f"{given} appears invalid; dumping metadata"],
        ["header is invalid: invalid checksum", "", f"{given} appears invalid; dumping headers"],
        [f"error opening {given}: -22"],
        [f"vhd={given} scan-error=-22 error-message='opening file'"],
    ):
        (found,) = brief([f"# cd {folder}", *lines])
        assert found[:3] == (VDI, SR, PATH), lines
    assert brief([f"# cd {folder}", f"error opening {given}: -2"]) == []
    assert brief([f"# cd {folder}", f"{given} is valid"]) == []


def test_two_disks_with_the_same_digits_in_one_line_stay_two():
    other = PATH.replace("058e", "ffff")
    (event,) = events_of([said(f"x {PATH} {other}"), corrupted()])
    assert (event.vdi, event.candidates) == (VDI[:8], (PATH, other))


def test_digits_that_stand_in_many_lines_are_decoded_once():
    others = [said(f"x {PATH}", number) for number in range(1, 9)] + [said(f"lock: /var/lock/sm/{VDI}/vdi", 20)]
    assert brief([*others, corrupted(), *others]) == [(VDI, SR, PATH, ("coalesce-corrupted",))]


def test_a_missing_parent_in_a_terminal_counts_for_files_only():
    lost = "parent locator 0 points to missing file ./x.vhd (resolved to (null))"
    assert brief([lost, f"{PATH} appears invalid; dumping metadata"]) == [(VDI, SR, PATH, ("parent-missing",))]
    assert brief([lost, f"{LV} appears invalid; dumping metadata"]) == []
    assert brief([said(lost), said(f"{PATH} appears invalid; dumping metadata")]) == []


def test_a_verdict_without_a_reason_is_counted():
    lone = [said(f"{PATH} appears invalid; dumping metadata")]
    assert brief(lone) == []
    assert any("does not say why" in reason for reason in noise_of(lone))


@pytest.mark.parametrize("near", ["before", "after"])
def test_linstor_tells_the_disk_of_a_volume_after_its_check(near):
    record = [check(RESOURCE, pid=5), *failed(DUMP.replace(PATH, RESOURCE), 5)]
    told = [
        gc(f"=== SR {SR}: gc ===", 7),
        said(f"Failed to call method on master for device {RESOURCE} ({VDI2}): check. Trying x... (cause: y)", 7),
    ]
    lines = [*told, *record] if near == "before" else [*told[:1], *record, *told[1:]]
    (one,) = incidents_of([*lines, corrupted(f"*{VDI2[:8]}(1G)", pid=7)])
    assert (one.vdi, one.sr, one.path) == (VDI2, SR, RESOURCE)
    assert one.count == (1 if near == "after" else 2)


def test_a_volume_is_named_by_an_operators_look_up():
    volume = RESOURCE.split("/")[4].removeprefix("xcp-volume-")
    record = [check(RESOURCE), *failed(f"error opening {RESOURCE}: -22\n")]
    assert brief([*record, f'"xcp/volume/{VDI2}/volume-name": "{volume}",'])[0][:3] == (VDI2, None, RESOURCE)
    assert brief([*record, f'"xcp/volume/nobody/volume-name": "{volume}",'])[0][0] == ""
