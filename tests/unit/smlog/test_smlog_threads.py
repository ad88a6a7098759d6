"""Today's storage manager names the thread behind the pid: what it says is read as before."""

from __future__ import annotations

import json
import os
import re

import pytest

from smlog_corpus import TRUTHS, as_truth, log_of, read
from smlog_text import PATH, VDI, VDI2, check, corrupted, failed, incidents_of, said

DUMP = f"primary footer invalid: invalid cookie\n{PATH} appears invalid; dumping metadata\nCookie : conectix\n"
UNWRAPPED = [truth for truth in TRUTHS if "wrapped" not in truth.name]
WITHOUT_PID = re.compile(rb'(\b(?:SM|SMGC): (?:message repeated \d+ times: \[ ?)?|"MESSAGE" ?: ?"|- - - )(\[\d+\]) ')


@pytest.mark.parametrize("thread", [b"MainThread", b"ThreadPoolExecutor-0_1", b"Thread-1 (run)"])
@pytest.mark.parametrize(
    "truth", [truth for truth in TRUTHS if "wrapped" not in truth.name], ids=lambda truth: truth.name
)
def test_the_corpus_with_thread_names_holds_the_same_incidents(truth, thread, tmp_path):
    log = log_of(truth)
    copy = tmp_path / log.name
    copy.write_bytes(WITHOUT_PID.sub(rb"\1\2[" + thread + rb"] ", log.read_bytes()))
    os.utime(copy, (log.stat().st_atime, log.stat().st_mtime))
    told = json.loads(truth.read_text(encoding="utf-8"))
    reading = read(copy, told["options"])
    assert [as_truth(incident) for incident in reading.incidents] == told["incidents"]


def threaded(lines: list[str], thread: str) -> list[str]:
    return [re.sub(r"(: \[\d+\]) ", rf"\1[{thread}] ", line) for line in lines]


def test_threads_that_log_between_each_others_records():
    """Two threads of one scan fail at the same time: each line of a record is written by itself."""
    other = PATH.replace(VDI, VDI2)
    one = threaded([check(), *failed(DUMP)], "VhdUtil_0")
    two = threaded(
        [check(other), *failed(f"header is invalid: invalid cookie\n{other} appears invalid; x\n")], "VhdUtil_1"
    )
    mixed = [line for pair in zip(one, two, strict=False) for line in pair] + one[len(two) :]
    assert {(i.vdi, *i.kinds) for i in incidents_of(mixed)} == {(VDI, "footer-invalid"), (VDI2, "header-invalid")}


def test_success_of_one_thread_is_not_anothers():
    bad = threaded([check(), *failed(DUMP), corrupted()], "MainThread")
    again = threaded([check()], "VhdUtil_0") + threaded([said("  pread SUCCESS")], "VhdUtil_1")
    (one,) = incidents_of([*bad, *again])
    assert one.proof is None
    (one,) = incidents_of([*bad, *again, *threaded([said("  pread SUCCESS")], "VhdUtil_0")])
    assert one.proof is not None
