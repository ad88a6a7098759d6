"""Text that a message only quotes: no name makes a report, a proof, an SR or a place of a disk."""

from __future__ import annotations

import time

import pytest

from smfix.smlog.inputs.unwrap_paste import mend
from smfix.smlog.parse.quoted_text import is_open, merely_tells, without_quoted_text
from smlog_text import LV, PATH, SR, SR2, VDI, VDI2, X, check, corrupted, failed, gc, incidents_of, said

DUMP = f"primary footer invalid: invalid cookie\n{PATH} appears invalid; dumping metadata\n"
REPORT = f"coalesce: EXCEPTION {X}, VHD *{VDI[:8]}(16.000M/1.0M) corrupted"
OUTPUT = rf"primary footer invalid: x\n{PATH} appears invalid; dumping metadata\n"
RECORD = f"FAILED in util.pread: (rc 22) stdout: '{OUTPUT}'"
OPENING = f"error opening {PATH}: -22"
REFUSED = f"The SR scan failed  [opterr=uuid={VDI}]"
BLOCKED = f"gc: EXCEPTION {X}, Parent VDI {VDI2} of {VDI} not found"
SCANNED = f"vhd={PATH} scan-error=-22 error-message='opening file'"
WHOLE = f"Aug  9 12:00:00 xen1 SMGC: [77] {REPORT}"
NAMES = [REPORT, RECORD, OPENING, REFUSED, BLOCKED, SCANNED, WHOLE, f"x' {REPORT}", f'x" {REPORT}', f"it's \"{REPORT}"]
HEALTHY = [gc(f"=== SR {SR}: gc ===", 77), check(pid=77), said("  pread SUCCESS", 77)]


def command(name: str) -> str:
    """How the storage manager logs the creation of a disk with that name."""
    params = {"args": ["8192", name, "a description"], "sr_uuid": SR, "vdi_uuid": VDI2, "command": "vdi_create"}
    return said(f"vdi_create {params}", 77)


def around(name: str) -> list[str]:
    """Lines in which `name` is the name of something."""
    xapi = "Aug  9 12:00:00 xen1 xapi: "
    return [
        command(name),
        command(name)[:-40],  # syslog cuts long lines
        command(name)[30:],  # a paste that begins within a line
        gc(f"SR 7a14 ('{name}') (4 VDIs in 3 VHD trees): no changes", 77),
        gc(f"SR 7a14 ('{name}", 77),
        f"{xapi}[info||7 ||dispatch] VM.set_name_label x {name}",
        f"{xapi}[debug||7 |VDI.create R:1|audit] VDI.create: SR = '{SR}'; {name}",
        f"{xapi}[error||7 |VM.start R:1|x] VM.start failed: 'name_label': {name!r}",
        f"[20121031T18:06:12.123Z| info|xen1|12|VM.create|x] {name}",
        said(f"'name_label': {name!r}", 77),
        f"Aug  9 12:00:00 xen1 qemu-dm-5[77]: {name}" if name is not OPENING and name is not REFUSED else "",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_report(name):
    for line in around(name):
        assert incidents_of([*HEALTHY, line]) == [], line


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_report_in_a_paste(name):
    for line in around(name):
        text = "\n".join([*HEALTHY, line])
        found = mend(text.encode())
        lines = text.split("\n") if found is None else found.data.decode().split("\n")
        assert incidents_of(lines) == [], line


def test_a_line_quoted_by_the_storage_manager_is_no_report():
    assert incidents_of([*HEALTHY, said(f"Setting comment to '{REPORT}'", 77)]) == []
    assert len(incidents_of([*HEALTHY, said(f"***** {REPORT}", 77)])) == 1


ARGUMENTS = [
    "['/opt/xensource/bin/xe', 'vm-start', {!r}]",
    "[b'/usr/bin/logger', {!r}]",
    "host_call_plugin {{'args': {{'x': {!r}}}}}",
    "on-slave.multi: {{'vgName': {!r}}}",
    'request {{"label": "{}"}}',
    "VDI label is {!r}",
    "comment \u2018{}\u2019",
    "u{!r} renamed",
    "SR 7a14 ('a') (3 VDIs in 1 VHD trees): ') '{}",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("around_it", ARGUMENTS)
def test_a_quoted_argument_is_no_report(name, around_it):
    """Of the storage manager's own lines, and of those of other programs, which hand on its errors."""
    for line in (
        said(around_it.format(name), 77),
        f"Aug  9 12:00:00 xen1 xapi: [error||7 ||x] {around_it.format(name)}",
    ):
        assert incidents_of([*HEALTHY, line]) == [], line


def test_what_a_tool_printed_is_handed_on_in_quotes():
    for line in (
        said(f"Unexpected output '{OUTPUT}'", 77),
        f"Aug  9 12:00:00 xen1 xapi: [error||7 ||x] ['SR_BACKEND_FAILURE_40', '', '{REFUSED}', '']",
        said(f"***** sr_scan: EXCEPTION <class 'SR.SROSError'>, {REFUSED}", 77),
    ):
        assert len(incidents_of([*HEALTHY, line])) == 1, line


def test_a_name_proves_nothing():
    reported = [gc(f"=== SR {SR}: gc ==="), check(), *failed(DUMP), corrupted()]
    deleted = f"Deleting unlinked VDI *{VDI[:8]}(16.000M/5.000K?)"
    for line in (*around(deleted)[:-1], f"Aug  9 12:00:00 xen1 qemu-dm-5[26919]: {deleted}"):
        (one,) = incidents_of([*reported, line])
        assert one.proof is None, line
    (one,) = incidents_of([*reported, gc(deleted)])
    assert one.proof is not None


def test_a_name_moves_no_disk_and_names_no_sr():
    for name in (f"/run/sr-mount/{SR2}/{VDI}.vhd", f"'sr_uuid': '{SR2}'", f"\"sr_uuid\": \"{SR2}\" 'sr_uuid': '{SR2}'"):
        for line in around(name):
            (one,) = incidents_of([*HEALTHY, line, corrupted(pid=77)])
            assert (one.vdi, one.sr, one.path, one.candidates) == (VDI, SR, PATH, {}), line
        params = {"args": [name], "sr_uuid": SR, "command": "vdi_create"}
        (one,) = incidents_of([said(f"vdi_create {params}", 77), corrupted(pid=77)])
        assert one.sr == SR


def test_reports_that_others_hand_on_still_count():
    trace = f"Unexpected output '{OUTPUT}'"
    for line in (
        f"Aug  9 12:00:00 xen1 xapi: [error||7 |host.call_plugin D:1|backtrace] {trace}",
        f"Aug  9 12:00:00 xen1 nova-compute[99]: {trace}",
        f"2012-10-31 18:06:12 TRACE nova.utils {trace}",
        f"Aug  9 12:00:00 xen1 xapi: [error||7||] SR_BACKEND_FAILURE_40: [ ; {REFUSED}; ]",
    ):
        assert [one.vdi for one in incidents_of([line])] == [VDI], line
    assert incidents_of([f"2012-10-31 18:06:12 DEBUG nova.utils {trace}"]) == []


def test_what_is_left_of_a_message():
    assert (
        without_quoted_text(f"vdi_create {{'args': ['x'], 'sr_uuid': '{SR}', 'a': 'b'}}")
        == f"vdi_create {{'sr_uuid': '{SR}'"
    )
    assert without_quoted_text("vdi_create {'sr_uuid': 'x', 'sr_uuid") == "vdi_create {"
    assert without_quoted_text("SR 7a14 ('a') (1 VDIs in 1 VHD trees): ") == "SR 7a14 ('') (1 VDIs in 1 VHD trees): "
    assert without_quoted_text("SR 7a14 ('') (0 VDIs in 0 x') (2 VDIs in 1 COW trees): ") == (
        "SR 7a14 ('') (2 VDIs in 1 COW trees): "
    )
    assert without_quoted_text("SR 7a14 ('a") == "SR 7a14 ('"
    assert without_quoted_text("Set name_label to x") == "Set "
    assert without_quoted_text(f"       decoded name : {PATH}") == "       decoded name :"
    assert without_quoted_text("Parent name         : x.vhd") == "Parent name         :"
    assert without_quoted_text(f"renamed {LV} {{") == f"renamed {LV} {{"
    assert without_quoted_text("names of (' nothing") == "names of (' nothing"


def test_where_a_name_is_open():
    assert is_open("vdi_create {'args': ['x")
    assert is_open("vdi_create {'args': ['x'], 'a': {}")
    assert not is_open(r"vdi_create {'args': ['x', '\'}', " + '"}"]}')
    assert is_open("xapi: [info||7||] x")
    assert is_open("x name_label: y")
    assert not is_open("xapi: [error||7||] x")
    assert merely_tells("[debug||7||x] y")
    assert not merely_tells("[error||7||x] y")


def test_several_lines_in_one_stay_several():
    text = " ".join([*HEALTHY, command("x"), WHOLE])
    found = mend(text.encode())
    assert found is not None
    assert found.data.decode().split("\n") == [*HEALTHY, command("x"), WHOLE]


QUOTES = ["vdi_x {" + "'" * 50_000, "vdi_x {" + "'\\" * 50_000]
HOSTILE = [*QUOTES, "SR 1234 ('" + "') (1 VDIs in " * 9_000, "vdi_" * 30_000]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_quick(text):
    start = time.perf_counter()
    without_quoted_text(text)
    is_open(text)
    assert time.perf_counter() - start < 1


def test_a_hostile_paste_is_quick():
    line = "Aug  9 12:00:00 xen1 xapi: [info||7||] vdi_x {" + f" {WHOLE}" * 4000
    start = time.perf_counter()
    mend(line.encode())
    assert time.perf_counter() - start < 10
