"""A log that grows, read as it comes: the same events as when it is read whole, as soon as they are whole."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smfix.smlog import scanner as scanner_module
from smfix.smlog.correlate.failures import Failure
from smfix.smlog.correlate.incidents import Register
from smfix.smlog.parse.window import Block
from smfix.smlog.rules.resolutions import Proof
from smfix.smlog.scanner import SETTLE, Scanner
from smlog_corpus import LOGS

VDI = "1d994938-058e-102f-80dc-001ec95cb0b6"
SR = "7a142a29-9556-ee47-1e04-1a8517813369"
PATH = f"/run/sr-mount/{SR}/{VDI}.vhd"


def syslog(text, pid=1, ident="SM", at="00:18:35"):
    return f"May 15 {at} host {ident}: [{pid}] {text}\n"


RECORD = "".join(
    syslog(text, 7)
    for text in (
        f"['/usr/bin/vhd-util', 'check', '--debug', '-n', '{PATH}']",
        "FAILED in util.pread: (rc 22) stdout: 'primary footer invalid: invalid cookie",
        f"{PATH} appears invalid; dumping metadata",
        "', stderr: ''",
    )
)
EXCEPTION = syslog("coalesce: EXCEPTION <class 'util.SMException'>, VHD *1d994938(40G/14G) corrupted", 7, "SMGC")
CHECK = syslog(f"['/usr/bin/vhd-util', 'check', '--debug', '-n', '{PATH}']", 9)
SUCCESS = syslog("  pread SUCCESS", 9)
NOISE = syslog("lock: acquired /var/lock/sm/x/sr", 3)


class Log:
    """Feeds a scanner, and keeps count of lines and time."""

    def __init__(self, **options):
        self.reader = Scanner(grows=True, **options)
        self.line = 1
        self.now = 0.0
        self.events = []

    def feed(self, text, file=0):
        data = text.encode()
        self.reader.feed(data, file, self.line, self.now)
        self.line += data.count(b"\n")
        return self

    def wait(self, seconds=SETTLE):
        self.now += seconds
        new = list(self.reader.tell(self.now))
        self.events += new
        return new


@pytest.mark.parametrize("name", sorted(path.name for path in LOGS.glob("*.log")))
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_any_pieces_of_a_log_tell_the_same_incidents(name, data):
    lines = (LOGS / name).read_bytes().splitlines(keepends=True)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(lines) - 1)), max_size=12)))
    whole, pieces = _incidents(lines, []), _incidents(lines, cuts)
    assert pieces == whole


def _incidents(lines, cuts, *, grows=True):
    reader, register, line = Scanner(grows=grows), Register(), 1
    for start, stop in zip([0, *cuts], [*cuts, len(lines)], strict=True):
        piece = b"".join(lines[start:stop])
        reader.feed(piece, 0, line, 0.0)
        line += piece.count(b"\n")
        for event in reader.tell(0.0, flush=stop == len(lines)):
            register.take(event)
    return [(one.vdi, one.sr, one.path, one.kinds, one.count, one.proof is None) for one in register.found]


def test_a_record_is_told_when_it_has_settled():
    half = RECORD.rindex("\n", 0, RECORD.index("appears")) + 1
    log = Log().feed(RECORD[:half])
    assert log.reader.is_waiting
    assert log.wait(SETTLE / 2) == []
    log.feed(RECORD[half:])
    (failure,) = log.wait()
    assert isinstance(failure, Failure)
    assert (failure.vdi, failure.sr, failure.kinds) == (VDI, SR, ("footer-invalid",))
    assert log.reader.wanted == {VDI[:8]}
    assert not log.reader.is_waiting
    assert log.reader.settled == log.reader.end == len(RECORD)


@pytest.mark.parametrize("name", sorted(path.name for path in LOGS.glob("*.log")))
def test_a_log_that_grows_tells_what_it_tells_when_it_is_read_whole(name):
    lines = (LOGS / name).read_bytes().splitlines(keepends=True)
    text = b"".join(lines)
    scanner, register = Scanner(), Register()
    scanner.push(Block(text, len(text), 0, 1, text.count(b"\n")))
    for event in scanner.tell(flush=True):
        register.take(event)
    whole = [(one.vdi, one.sr, one.path, one.kinds, one.count, one.proof is None) for one in register.found]
    assert _incidents(lines, range(1, len(lines), 7), grows=False) == whole


def test_text_behind_it_settles_a_record_too(monkeypatch):
    monkeypatch.setattr(scanner_module, "_MERGED", 1)
    monkeypatch.setattr(scanner_module, "REACH_AHEAD", 100)
    log = Log().feed(RECORD)
    assert log.wait(0) == []
    log.feed(NOISE * 3)
    assert len(log.wait(0)) == 1


def test_what_is_not_settled_is_where_the_next_run_begins():
    log = Log().feed(NOISE + RECORD)
    log.wait(0)
    assert log.reader.settled == len(NOISE) + RECORD.index("FAILED") - len(syslog("", 7)) + 1 or (
        len(NOISE) <= log.reader.settled < len(NOISE + RECORD)
    )
    again = Log(begin=log.reader.settled).feed(NOISE + RECORD)
    assert len(again.wait()) == 1


def test_what_an_earlier_run_told_is_context_only():
    log = Log(begin=len(RECORD)).feed(RECORD)
    assert log.wait() == []
    assert log.reader.wanted == set()
    (failure,) = log.feed(EXCEPTION).wait()
    assert failure.vdi == VDI  # the digits found their name in the context


def test_a_proof_waits_for_the_end_of_its_command():
    log = Log().feed(RECORD).feed(CHECK)
    log.wait()
    assert log.feed(NOISE * 5).wait(1000) == []
    assert log.feed(syslog("something else", 99)).wait() == []
    (proof,) = log.feed(SUCCESS).wait(0)
    assert isinstance(proof, Proof)
    assert log.feed(SUCCESS).wait() == []


def test_a_command_that_failed_proves_nothing():
    log = Log().feed(RECORD).feed(CHECK)
    log.wait()
    assert log.feed(syslog("FAILED in util.pread: (rc 5) stdout: '', stderr: ''", 9)).wait() == []
    assert log.feed(SUCCESS).wait() == []


def test_a_proof_that_is_whole_needs_no_waiting():
    log = Log().feed(RECORD)
    log.wait()
    (proof,) = log.feed(CHECK + SUCCESS).wait()
    assert proof.vdi == VDI


def test_proofs_of_other_disks_are_not_read():
    log = Log().feed(CHECK + SUCCESS)
    assert log.wait() == []


def test_a_command_too_far_back_is_given_up(monkeypatch):
    monkeypatch.setattr(scanner_module, "REACH_AHEAD", 500)
    log = Log().feed(RECORD).feed(CHECK)
    log.wait()
    log.feed(NOISE * 20).wait()
    log.wait()
    assert log.feed(SUCCESS).wait() == []


def test_the_window_stays_bounded(monkeypatch):
    monkeypatch.setattr("smfix.smlog.parse.window.REACH_BACK", 10_000)
    monkeypatch.setattr(scanner_module, "_MERGED", 1000)
    log = Log()
    for _ in range(200):
        log.feed(NOISE * 20)
        log.wait()
    log.feed(RECORD).wait()
    assert sum(block.size for block in log.reader._window._blocks) < 20_000
    assert len(log.events) == 1


def test_a_block_without_an_end_and_another_file_take_in_nothing():
    log = Log()
    log.feed("no end")
    log.feed("another\n")
    log.line = 1
    log.feed(RECORD, file=1)
    (failure,) = log.wait()
    assert failure.evidence[0].line in (1, 2)
    assert failure.file == 1
    log.feed("").wait()


def test_more_disks_than_there_can_be_are_not_asked_for(monkeypatch):
    monkeypatch.setattr(scanner_module, "_MOST_WANTED", 0)
    log = Log().feed(RECORD)
    assert len(log.wait()) == 1
    assert log.reader.wanted == set()


def test_nothing_fed_is_nothing_told():
    assert Log().wait() == []
    assert Log().reader.settled == 0


def test_a_deletion_is_proved_once_the_process_has_gone_on():
    deleting = syslog("Deleting unlinked VDI *1d994938(40.000G/14.271G)", 9, "SMGC")
    log = Log().feed(syslog(f"=== SR {SR}: gc ===", 9, "SMGC")).feed(RECORD).feed(deleting)
    assert len(log.wait()) == 1
    assert log.feed(syslog("lock: released /var/lock/sm/x/sr", 9)).wait(60) == []
    (proof,) = log.feed(syslog(f"Starting asynch srUpdate for SR {SR}", 9, "SMGC")).wait()
    assert proof.vdi == VDI[:8]

    log = Log().feed(RECORD).feed(deleting)
    log.wait()
    log.feed(syslog("gc: EXCEPTION <class 'util.SMException'>, os.unlink(/x.vhd) failed", 9, "SMGC")).wait()
    assert log.feed(syslog("No work, exiting", 9, "SMGC")).wait() == []
