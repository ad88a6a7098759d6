"""The follower: events told once, disks repaired once, refusals told and reminded of, restarts without a seam."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from schemas import valid
from smfix.errors import WriteFailed
from smfix.follow import incident_state, loop
from smfix.follow.event_wait import EventWait
from smfix.follow.incident_state import Stage
from smfix.follow.loop import Follower, FollowSetup
from smfix.follow.policy import Hook, Policy
from smfix.follow.state_store import AlreadyFollowed
from smfix.usecases import resolve
from smfix.usecases.run_options import RunOptions
from world import BASE, LEAF, OTHER, SR, exception, failed, make_world

CHECKED = (
    "[27000] 2012-05-15 02:00:00\t['/usr/sbin/vhd-util', 'check', '--debug', '-n', "
    "'/var/run/sr-mount/{sr}/{vdi}.vhd']\n[27000] 2012-05-15 02:00:01\t  pread SUCCESS\n"
)


class Live:
    """A follower in this process; `rounds` lets it work until something holds."""

    def __init__(self, world, lock_dir=None):
        self.world = world
        self.lock_dir = lock_dir
        self.told = []
        self.said = []
        self.listens = True
        self.follower = None
        self.wake = None

    def start(self, policy=None, **options):
        world = self.world
        run_options = RunOptions(
            sr_mounts=(str(world.mount),),
            journal_dir=str(world.journals),
            state_dir=str(world.folder / "locks"),
            lock_dir=self.lock_dir,
            words=("smfix", "from-log", "-f"),
        )
        asked = FollowSetup(
            log=str(world.log),
            state_dir=str(world.folder / "state"),
            localize=lambda moment: moment.replace(tzinfo=UTC),
            policy=policy or Policy(),
            **{"may_write": True, **options},
        )
        self.wake = EventWait(str(world.folder), use_inotify=False)
        self.follower = Follower(asked, run_options, self.wake, self.tell, self.said.append)
        return self

    def tell(self, document):
        self.told.append(valid(json.loads(json.dumps(document))))
        return self.listens

    def until(self, holds, seconds=10.0):
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, self.names()
            self.follower.round()
            time.sleep(0.01)
        self.follower.round()
        return self

    def names(self, vdi=None):
        return [one["event"] for one in self.told if vdi in (None, one["incident"]["vdi"])]

    def last(self):
        return self.told[-1]["incident"]["outcome"]

    def kill(self):
        """As SIGKILL does: nothing is saved, the kernel closes the files."""
        self.follower._tail.close()
        self.follower._store.release()
        self.wake.__exit__()

    def stop(self):
        self.follower._stop()
        self.wake.__exit__()

    def append(self, text):
        with open(self.world.log, "a", encoding="utf-8") as file:
            file.write(text)

    def case(self):
        (case,) = self.follower._state.incidents.values()
        return case


def measure(live):
    follower = live.follower
    follower._metrics.write(follower._state, follower._tail, follower._tracker.left_out)


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


@pytest.fixture
def live(world):
    made = Live(world)
    yield made
    if made.follower is not None and made.follower._store._lock >= 0:
        made.stop()


def test_from_the_line_to_the_confirmed_cure(live, world):
    path = world.damaged()
    live.start().append(failed())
    live.until(lambda: "repaired" in live.names())
    assert live.names() == ["seen", "diagnosed", "repaired"]
    assert [one["number"] for one in live.told] == [1, 2, 3]
    assert len({one["incident"]["id"] for one in live.told}) == 1
    seen, diagnosed, repaired = (one["incident"] for one in live.told)
    assert seen["outcome"] is None
    assert seen["vdi"] == BASE
    assert sorted(seen["kinds"]) in (["footer-invalid"], ["coalesce-corrupted", "footer-invalid"])
    assert diagnosed["outcome"]["status"] == "would-repair"
    assert repaired["outcome"]["status"] == "repaired"
    assert path.read_bytes()[-512:] == world.image()[-512:]
    live.append(CHECKED.format(sr=SR, vdi=BASE))
    live.until(lambda: "confirmed" in live.names())
    confirmed = live.told[-1]["incident"]
    assert confirmed["state"] == "resolved"
    assert confirmed["outcome"] is None
    assert "pread SUCCESS" in confirmed["evidence"][-1]["text"]
    assert live.follower._state.outbox == []


def test_a_restart_misses_nothing_and_repeats_nothing(live, world):
    world.damaged()
    world.damaged(OTHER)
    live.start().append(failed())
    live.until(lambda: "repaired" in live.names())
    live.stop()
    live.append(failed(OTHER, pid=400))
    live.start().until(lambda: live.names(OTHER)[-1:] == ["repaired"])
    assert live.names(BASE) == ["seen", "diagnosed", "repaired"]
    assert live.names(OTHER) == ["seen", "diagnosed", "repaired"]


def test_an_exception_finds_its_record_across_a_kill_and_a_rotation(live, world):
    path = world.damaged()
    live.start().append("[1] 2012-05-15 00:00:00\thello\n")
    live.until(lambda: live.follower._reader.end > 0)
    live.append(failed().split(f"<{26919}>")[0])
    live.follower.round()
    live.follower._save()
    live.kill()
    os.rename(world.log, f"{world.log}.1")
    live.append(exception())
    live.start().until(lambda: "repaired" in live.names())
    incident = live.told[-1]["incident"]
    assert incident["count"] == 1
    assert incident["vdi"] == BASE
    assert path.read_bytes()[-512:] == world.image()[-512:]


@pytest.mark.parametrize("is_proved", [False, True])
def test_killed_after_the_repair_and_before_it_was_told(live, world, monkeypatch, is_proved):
    world.damaged()
    live.start().append(failed())
    settle = Follower._record_result

    class Killed(BaseException):
        pass

    def die(*_args):
        raise Killed

    monkeypatch.setattr(Follower, "_record_result", die)
    with pytest.raises(Killed):
        live.until(lambda: False)
    live.kill()
    monkeypatch.setattr(Follower, "_record_result", settle)
    if is_proved:
        live.append(CHECKED.format(sr=SR, vdi=BASE))
    live.start().until(lambda: "repaired" in live.names() and (not is_proved or live.names()[-1] == "confirmed"))
    outcome = next(one for one in live.told if one["event"] == "repaired")["incident"]["outcome"]
    assert outcome["status"] == "repaired"
    assert outcome["journal"]
    assert outcome["undo"].startswith(f"smfix undo {outcome['journal']}")
    assert len(list(world.journals.iterdir())) == 1
    assert live.names().count("seen") == 1


def test_killed_between_the_last_byte_and_the_mark_with_the_proof_in_the_log_already(live, world):
    """SM finds the disk sound, because all is written; its journal is still open. It is closed, and nothing written."""
    path = world.damaged()
    assert world.run("repair", path, "--yes").code == 1
    (journal,) = world.journals.iterdir()
    journal.rename(journal.with_suffix(".unfinished"))
    live.start().append(failed())
    live.append(CHECKED.format(sr=SR, vdi=BASE))
    live.until(lambda: live.names()[-1:] == ["confirmed"])
    outcome = next(one for one in live.told if one["event"] == "diagnosed")["incident"]["outcome"]
    assert (outcome["status"], outcome["journal"], outcome["recovered"][0]["state"]) == (
        "valid",
        journal.stem,
        "verified",
    )
    assert sorted(each.suffix for each in world.journals.iterdir()) == [".verified"]
    assert path.read_bytes()[-512:] == world.image()[-512:]


def test_damage_within_a_day_is_refused_and_escalated(live, world):
    path = world.damaged()
    live.start().append(failed())
    live.until(lambda: "repaired" in live.names())
    live.append(failed(pid=3, at="01:18:35"))  # from before the repair, for all the follower knows
    live.until(lambda: live.case().count == 2 and live.case().progress.due is None)
    assert live.names()[-1] == "repaired"
    path.write_bytes(damaged := path.read_bytes()[:-512])
    live.append(failed(pid=4, at="02:18:35"))
    live.until(lambda: "recurred" in live.names())
    outcome = live.last()
    assert (outcome["status"], outcome["reason"]) == ("refused", "recurred")
    assert "damaged again after the repair of" in outcome["message"]
    assert path.read_bytes() == damaged
    live.stop()
    live.start().until(lambda: True)
    assert live.case().progress.stage is Stage.RECURRED
    live.follower._state.repairs.clear()  # a day later
    live.append(failed(pid=5, at="03:18:35"))
    live.until(lambda: live.names()[-1] == "repaired")


@pytest.mark.parametrize("may_write", [False, True])
def test_without_leave_nothing_is_written(live, world, may_write):
    path = world.damaged()
    before = path.read_bytes()
    policy = Policy(srs=("dead*",)) if may_write else None
    live.start(policy, may_write=may_write).append(failed())
    live.until(lambda: "waiting" in live.names())
    assert live.names() == ["seen", "diagnosed", "waiting"]
    outcome = live.last()
    expected = ("refused", "policy") if may_write else ("would-repair", None)
    assert (outcome["status"], outcome["reason"]) == expected
    assert path.read_bytes() == before
    assert outcome["next"][0].startswith("smfix repair ")
    assert not world.journals.exists()


def test_what_waits_is_told_once_and_reminded_of(live, world):
    world.put(b"no VHD at all" * 99)
    live.start().append(failed())
    live.until(lambda: "waiting" in live.names())
    for _ in range(5):
        live.follower.round()
    assert live.names().count("waiting") == 1
    case = live.case()
    case.progress = replace(case.progress, announced=case.progress.announced - timedelta(hours=2))
    live.until(lambda: live.names()[-1] == "reminder")
    assert live.names().count("reminder") == 1
    assert live.told[-1]["incident"]["outcome"]["status"] == "refused"


def test_a_disk_in_use_is_repaired_when_it_is_free(live, world, monkeypatch):
    path = world.damaged()
    monkeypatch.setattr(incident_state, "_SOONEST", timedelta(milliseconds=100))
    with world.holding(path):
        live.start().append(failed())
        live.until(lambda: "waiting" in live.names())
        assert live.last()["reason"] == "in-use"
    live.until(lambda: "repaired" in live.names())


def test_a_confirm_finding_needs_the_policys_leave(live, world):
    raw = bytearray(world.image())
    raw[-512 + 40 : -512 + 48] = (16 << 20).to_bytes(8, "big")
    live.start()
    assert live.follower._scheduler.run_options.consent == frozenset()
    live.stop()
    live.start(Policy(findings=frozenset({"SAFE", "VHD106"})))
    assert live.follower._scheduler.run_options.consent == {"VHD106"}


def test_hooks_are_told_of_every_event_they_want(live, world):
    world.damaged()
    heard = world.folder / "heard"
    hooks = (
        Hook(("/bin/sh", "-c", f"cat >> {heard}")),
        Hook(("/bin/sh", "-c", "exit 3"), frozenset({"repaired"})),
        Hook(("/nonexistent",), frozenset({"seen"})),
        Hook(("/bin/sleep", "9"), frozenset({"diagnosed"}), 0.2),
    )
    live.start(Policy(hooks=hooks)).append(failed())
    live.until(lambda: "repaired" in live.names() and not live.follower._state.outbox)
    documents = [json.loads(line) for line in heard.read_text(encoding="utf-8").splitlines()]
    assert documents == live.told
    assert sorted(live.said) == [
        "smfix: hook /bin/sh: ended with 3",
        "smfix: hook /bin/sleep: killed after 0.2 s",
        "smfix: hook /nonexistent: No such file or directory",
    ]


def test_an_event_whose_hook_did_not_end_is_told_again(live, world):
    world.damaged()
    live.start(Policy(hooks=(Hook(("/bin/sleep", "30")),))).append(failed())
    live.until(lambda: "repaired" in live.names())
    began = time.monotonic()
    live.stop()
    assert time.monotonic() - began < 2
    live.start()
    assert [one.name for one in live.follower._state.outbox] == ["seen", "diagnosed", "repaired"]
    assert all(one.is_printed for one in live.follower._state.outbox)


def test_the_log_waits_while_hooks_lag(live, world, monkeypatch):
    monkeypatch.setattr(loop, "MOST_PENDING", 1)
    world.damaged()
    world.damaged(OTHER)
    live.start(Policy(hooks=(Hook(("/bin/sleep", "30")),))).append(failed())
    live.until(lambda: "repaired" in live.names())
    live.append(failed(OTHER, pid=5))
    for _ in range(40):
        live.follower.round()
        time.sleep(0.01)
    assert live.names(OTHER) == []


def test_nobody_listens_and_nothing_is_struck_out(live, world):
    world.damaged()
    live.start().append(failed())
    live.listens = False
    live.until(lambda: live.told != [])
    assert live.follower._has_ended()
    assert len(live.follower._state.outbox) >= 1


def test_parents_are_treated_before_their_children(live, world):
    world.damaged(LEAF, parent=BASE)
    world.damaged(BASE)
    live.start().append(failed(LEAF, pid=1) + failed(BASE, pid=2))
    live.until(lambda: live.names().count("repaired") == 2)
    assert [one["incident"]["vdi"] for one in live.told if one["event"] == "repaired"] == [BASE, LEAF]


def test_two_followers_of_one_log_exclude_each_other(live, world):
    live.start()
    with pytest.raises(AlreadyFollowed, match="another smfix follows this log"):
        Live(world).start()


def test_a_state_that_cannot_be_read_is_set_aside_and_the_log_read_anew(live, world):
    world.damaged()
    live.start().append(failed())
    live.until(lambda: "repaired" in live.names())
    live.stop()
    state = live.follower._store.path
    with open(state, "r+b") as file:
        file.truncate(200)
    live.start().until(lambda: live.names().count("seen") == 2)
    assert "the state cannot be read" in live.said[0]
    assert any(".damaged-" in name for name in os.listdir(world.folder / "state"))
    live.until(lambda: live.names()[-1] == "diagnosed")
    assert live.last()["status"] == "valid"


def test_nothing_is_repaired_while_the_state_cannot_be_saved(live, world, monkeypatch):
    path = world.damaged()
    before = path.read_bytes()
    live.start()

    def full(*_args):
        raise WriteFailed("/state: No space left on device")

    monkeypatch.setattr(live.follower._store, "save", full)
    live.append(failed())
    live.until(lambda: "waiting" in live.names())
    assert path.read_bytes() == before
    assert live.last()["status"] == "failed"
    assert "No space left on device; nothing was written" in live.last()["message"]
    assert [line for line in live.said if "cannot be saved" in line][1:] == []
    monkeypatch.undo()
    case = live.case()
    case.progress = replace(case.progress, due=datetime.now(UTC))
    live.until(lambda: "repaired" in live.names())


def test_storage_that_does_not_answer_holds_nobody_up(live, world, monkeypatch):
    dead, alive = "deadbeef-0000-4000-8000-000000000001", SR
    world.damaged()
    live.start()
    live.follower._scheduler.patience = 0.3
    real = resolve.find_image
    answers = []

    def find(incident, mounts):
        if incident.sr == dead:
            while not answers:
                time.sleep(0.02)
        return real(incident, mounts)

    monkeypatch.setattr("smfix.usecases.resolve.find_image", find)
    live.append(failed(OTHER, sr=dead, pid=7) + failed(BASE, sr=alive, pid=8))
    live.until(lambda: "repaired" in live.names(BASE))
    assert live.names(OTHER) == ["seen", "waiting"]
    (silent,) = [one for one in live.told if one["event"] == "waiting"]
    said = silent["incident"]["outcome"]["message"]
    assert said.startswith(f"the storage of SR {dead} has not answered for 0.3 s: it was not looked at. See whether")
    assert said.endswith("are up, smfix looks as soon as it answers")
    answers.append("now")
    live.until(lambda: live.names(OTHER).count("waiting") == 2)
    assert live.last()["status"] == "not-found"


def test_a_bug_in_one_disk_does_not_end_the_service(live, world, monkeypatch):
    world.damaged()

    def bug(*_args):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("smfix.usecases.from_log.treat_incident", bug)
    live.start().append(failed())
    live.until(lambda: "waiting" in live.names())
    assert live.last()["message"] == "unexpected ZeroDivisionError: oops; this is a bug, please report it"


def test_a_slow_rescan_holds_up_neither_the_log_nor_the_end(live, world):
    world.damaged()
    world.damaged(OTHER)
    may_end, asked = threading.Event(), []

    def rescan(sr):
        asked.append(sr)
        assert may_end.wait(30)
        return True, "rescanned"

    live.start(rescan=rescan).append(failed(pid=1))
    live.until(lambda: asked == [SR])
    live.append(failed(OTHER, pid=2))  # while the storage manager is still at the first
    live.until(lambda: "repaired" in live.names(OTHER))
    live.stop()
    assert "rescanned" not in live.names()
    may_end.set()
    may_end.clear()
    live.start(rescan=rescan)  # nobody knows whether it was done: it is asked for again
    live.until(lambda: asked == [SR, SR])
    may_end.set()
    live.until(lambda: live.names().count("rescanned") == 2)
    assert asked == [SR, SR]


def test_a_rescan_that_cannot_be_is_said_and_not_asked_for_again(live, world):
    world.damaged()
    asked = []

    def rescan(sr):
        asked.append(sr)
        raise ZeroDivisionError("oops")

    live.start(rescan=rescan).append(failed())
    live.until(lambda: live.said != [])
    assert "unexpected ZeroDivisionError" in live.said[0]
    for _ in range(5):
        live.follower.round()
    assert asked == [SR]


def test_the_sr_is_rescanned_once_for_several_repairs(live, world):
    world.damaged()
    world.damaged(OTHER)
    asked = []

    def rescan(sr):
        asked.append(sr)
        return True, "rescanned"

    live.start(rescan=rescan).append(failed(pid=1) + failed(OTHER, pid=2))
    live.until(lambda: live.names().count("rescanned") == 2)
    assert asked == [SR]
    assert live.names(BASE) == ["seen", "diagnosed", "repaired", "rescanned"]


def test_the_policy_is_read_again(live, world):
    world.damaged()
    policies = [Policy(), WriteFailed("policy.toml: wrong")]

    def read():
        one = policies.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    live.start(Policy(dry_run=True), read_policy=read).append(failed())
    live.until(lambda: "waiting" in live.names())
    live.wake.reload = True
    live.follower.round()
    case = live.case()
    case.progress = replace(case.progress, due=datetime.now(UTC))
    live.until(lambda: "repaired" in live.names())
    live.wake.reload = True
    live.follower.round()
    assert live.said == ["smfix: the policy was read again", "smfix: policy.toml: wrong; the policy stays as it was"]


def test_metrics_are_written_for_the_node_exporter(live, world):
    world.damaged()
    target = world.folder / "smfix.prom"
    live.start(metrics=str(target)).append(failed())
    live.until(lambda: "repaired" in live.names())
    live.stop()
    text = target.read_text(encoding="utf-8")
    log = f'log="{world.log}"'
    assert f'smfix_incidents{{{log},stage="repaired"}} 1\n' in text
    assert f"smfix_repairs_total{{{log}}} 1\n" in text
    assert f'smfix_events_total{{{log},event="seen"}} 1\n' in text
    assert text.count("# TYPE") == text.count("# HELP")
    assert target.stat().st_mode & 0o777 == 0o644


def test_a_metrics_file_that_is_replaced_by_something_else_is_said_once_and_stays(live, world):
    """The follower lives on, and measures again when the name is free."""
    target = world.folder / "smfix.prom"
    live.start(metrics=str(target))
    measure(live)
    target.unlink()
    target.write_bytes(b"conectix, and the rest of a disk")
    for _ in range(3):
        measure(live)
    (said,) = live.said
    assert said.startswith("smfix: the metrics cannot be written: ")
    assert "is not a metrics file of smfix" in said
    assert target.read_bytes() == b"conectix, and the rest of a disk"
    target.unlink()
    os.mkfifo(target)
    measure(live)
    assert "not a regular file" in live.said[1]
    target.unlink()
    measure(live)
    assert target.read_text(encoding="utf-8").startswith("# smfix metrics")
    assert len(live.said) == 2


def test_a_clock_that_jumps_changes_no_order(live, world, monkeypatch):
    world.damaged()
    live.start().append(failed(at="23:59:59"))
    live.until(lambda: "repaired" in live.names())
    real = loop._now
    monkeypatch.setattr(loop, "_now", lambda: real() - timedelta(days=3))
    live.append(CHECKED.format(sr=SR, vdi=BASE).replace("02:00", "01:00"))
    live.until(lambda: live.case().proof is not None)
    monkeypatch.setattr(loop, "_now", real)
    live.until(lambda: "confirmed" in live.names())


@pytest.mark.parametrize("restart", [False, True])
def test_a_clock_that_is_set_back_prolongs_no_wait(live, world, monkeypatch, restart):
    path = world.damaged()
    real = loop._now
    ahead = [timedelta(days=3000)]
    monkeypatch.setattr(loop, "_now", lambda: real() + ahead[0])
    with world.holding(path):
        live.start().append(failed())
        live.until(lambda: "waiting" in live.names())
    if restart:
        live.stop()
    ahead[0] = timedelta(0)
    if restart:
        live.start()
    live.until(lambda: "repaired" in live.names())
    assert live.follower._state.repairs[-1][1] <= real()
    assert live.case().progress.since <= real()


def test_repairs_of_a_future_that_was_none_are_of_today(live, world, monkeypatch):
    path = world.damaged()
    real = loop._now
    ahead = [timedelta(days=3000)]
    monkeypatch.setattr(loop, "_now", lambda: real() + ahead[0])
    live.start().append(failed())
    live.until(lambda: "repaired" in live.names())
    ahead[0] = timedelta(0)
    path.write_bytes(path.read_bytes()[:-512])
    live.append(failed(pid=4, at="02:18:35"))
    live.until(lambda: "recurred" in live.names())
    (_, at) = live.follower._state.repairs[-1]
    assert at <= real()
