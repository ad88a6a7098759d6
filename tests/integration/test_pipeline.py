"""What the commands' own tests do not reach: states of incidents, resolve, and trouble in between."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest

from smfix.errors import Unreadable, UsageError
from smfix.usecases import check, from_log, journal, repair, resolve, show
from smfix.usecases import run_options as run_options_of
from smfix.usecases.from_log import LogQuestion
from smfix.usecases.run_options import RunOptions
from smfix.values import Extent, Incident, LogReading, Outcome, Reason, Refusal, State, Status, VdiRef, Verdict
from steps import lines
from world import BASE, LEAF, OTHER, SR, make_world

WHEN = datetime(2012, 5, 15, tzinfo=UTC)


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


@pytest.fixture
def run_options(world):
    return RunOptions((str(world.mount),), str(world.journals), decide=lambda *_: True)


def incident(vdi=BASE, **changes):
    told = Incident(VdiRef(vdi), SR, None, ("coalesce-corrupted",), WHEN, WHEN, 1, ())
    return told._replace(**changes)


@pytest.fixture
def logged(monkeypatch, run_options):
    """A function incidents -> what from_log makes of them."""

    def treat(*incidents):
        reading = LogReading(("x",), 1, None, None, False, False, incidents)
        monkeypatch.setattr("smfix.smlog.reader.read_logs", lambda *_, **__: reading)
        return from_log.from_log(LogQuestion(("x",)), run_options)[1]

    return treat


# --------------------------------------------------------------------------- incidents


def test_a_resolved_incident_stays_resolved_where_its_disk_is_sound(world, logged):
    world.put(world.image())
    (treated,) = logged(incident(state=State.RESOLVED))
    assert (treated.state, treated.outcome, treated.path) == (State.RESOLVED, None, str(world.path()))


def test_a_resolved_incident_out_of_reach_stays_resolved(logged):
    (treated,) = logged(incident(state=State.RESOLVED))
    assert (treated.state, treated.outcome, treated.path) == (State.RESOLVED, None, None)


@pytest.mark.parametrize("raw", [b"", b"x" * 4096])
def test_a_resolved_incident_whose_disk_is_damaged_is_open(world, logged, raw):
    world.put(raw)
    (treated,) = logged(incident(state=State.RESOLVED))
    assert treated.state is State.OPEN
    assert treated.outcome.reason is Reason.NOT_A_VHD


def test_a_resolved_incident_whose_footer_is_lost_again_is_repaired(world, logged):
    world.damaged()
    (treated,) = logged(incident(state=State.RESOLVED))
    assert (treated.state, treated.outcome.status) == (State.OPEN, Status.REPAIRED)
    assert not treated.left


def test_a_resolved_incident_whose_disk_is_in_use_stays_resolved(world, logged):
    path = world.put(world.image()[:-512] + b"\xc7" * 512)
    with world.holding(path):
        (treated,) = logged(incident(state=State.RESOLVED))
    assert (treated.state, treated.outcome) == (State.RESOLVED, None)


def test_contradicting_paths_are_ambiguous(world, logged):
    world.damaged()
    paths = tuple(f"/var/run/sr-mount/{SR}/{n:08x}-0000-4000-8000-000000000000.vhd" for n in range(12))
    (treated,) = logged(incident("1d994938", candidates=paths))
    assert treated.outcome.status is Status.AMBIGUOUS
    assert "and 4 more" in treated.outcome.message
    assert len(treated.outcome.next) == 12


def test_a_path_in_a_tmp_folder_is_a_copy_even_if_the_log_does_not_say_so(logged):
    (treated,) = logged(incident(path=f"/var/run/sr-mount/{SR}/tmpFco2q9/{BASE}.vhd"))
    assert treated.outcome.reason is Reason.IMAGE_COPY
    (marked,) = logged(incident(copy=True))
    assert marked.outcome.reason is Reason.IMAGE_COPY


def test_not_found_says_where_it_looked_and_what_to_ask(world, logged):
    whole, part = logged(incident(BASE), incident("5b0c1a7e", sr=None))
    assert f"looked at: {world.path()}" in whole.outcome.message
    assert lines(whole.outcome.next) == (f"xe vdi-list uuid={BASE}",)
    assert part.outcome.status is Status.NOT_FOUND
    assert part.vdi == "5b0c1a7e"
    assert lines(part.outcome.next) == ("xe vdi-list params=uuid,sr-uuid,name-label | grep -A2 ': 5b0c1a7e'",)
    (known,) = logged(incident("5b0c1a7e", sr=OTHER))
    assert lines(known.outcome.next)[-1].startswith(("xe pbd-list", f"xe vdi-list sr-uuid={OTHER}"))


def test_an_sr_that_cannot_be_listed_fails_its_incident_only(world, logged, monkeypatch):
    world.damaged()

    def locate(vdi, sr, path, mounts):
        if vdi.text == OTHER:
            raise Unreadable("cannot list it")
        return real(vdi, sr, path, mounts)

    real = resolve.locate
    monkeypatch.setattr(resolve, "locate", locate)
    bad, good = logged(incident(OTHER), incident(BASE))
    assert (bad.outcome.status, bad.outcome.message) == (Status.FAILED, "cannot list it")
    assert good.outcome.status is Status.REPAIRED


def test_ids_tell_hosts_and_whole_names_apart():
    same = [incident(BASE), incident(BASE, host="a"), incident(BASE, sr=None)]
    assert len(set(from_log._ids(same))) == 3
    twins = [incident("1d994938-0000-4000-8000-000000000000"), incident("1d994938-1111-4000-8000-000000000000")]
    assert len(set(from_log._ids(twins))) == 2
    assert from_log._ids([incident("1d994938")]) == from_log._ids([incident(BASE)])


def test_the_question_as_words():
    assert LogQuestion(("a", "b")).options() == []
    asked = LogQuestion(("a",), tz="UTC", year=2012, since="2h", until="1h")
    assert asked.options() == ["--since", "2h", "--until", "1h", "--tz", "UTC", "--year", "2012"]


def test_consent_is_to_codes_that_exist():
    assert run_options_of.consent(["vhd108", "VHD108"]) == {"VHD108"}
    with pytest.raises(UsageError, match="VHD000"):
        run_options_of.consent(["VHD000"])


def test_planned_counts_what_would_be_written():
    assert run_options_of.planned([Outcome(Status.WOULD_REPAIR, ""), Outcome(Status.VALID, "")]) == 1


# --------------------------------------------------------------------------- targets


def test_a_uuid_that_is_nowhere_is_missing(world, run_options):
    (image,) = repair.repair([f"{SR}/{OTHER}"], run_options)
    assert (image.outcome.status, image.missing) == (Status.NOT_FOUND, True)
    assert lines(image.outcome.next) == (f"xe vdi-list uuid={OTHER}",)


def test_a_chain_is_checked_once(world, run_options):
    world.put(world.image(BASE))
    world.put(world.image(LEAF, parent=BASE), LEAF)
    images = check.check([str(world.path(LEAF)), str(world.path(BASE))], run_options, parents=True)
    assert [os.path.basename(image.path)[:8] for image in images] == [LEAF[:8], BASE[:8]]


@pytest.mark.parametrize("trouble", ["unreadable", "refused"])
def test_trouble_between_two_looks_is_a_verdict(world, run_options, monkeypatch, trouble):
    world.put(world.image())

    def fails(target, **_):
        if trouble == "refused":
            return Refusal(Reason.UNSAFE_PATH, "replaced")
        raise Unreadable("EIO")

    monkeypatch.setattr(check, "open_image", fails)
    (image,) = check.check([str(world.path())], run_options, parents=True)
    assert image.verdict is Verdict.UNREADABLE
    assert image.note in ("replaced", "EIO")


def test_what_this_user_cannot_see_is_said(world, run_options, monkeypatch):
    from smfix.host.open_files import OpenState
    from smfix.values import InUse

    blind = OpenState(InUse.UNKNOWN, ("tapdisk (pid 7) read-only",), "the files of 3 processes of other users")
    monkeypatch.setattr("smfix.usecases.check.usage_of", lambda identities, **_: (blind,) * len(identities))
    monkeypatch.setattr("smfix.usecases.repair_image.open_state", lambda _: blind)
    world.damaged()
    (image,) = check.check([str(world.path())], run_options)
    assert image.note == (
        "held by tapdisk (pid 7) read-only; not seen by this user: the files of 3 processes of other users"
    )
    (dry,) = repair.repair([str(world.path())], run_options._replace(decide=None))
    assert dry.outcome.message.endswith("; not seen by this user: the files of 3 processes of other users")


def test_the_structures_of_a_closed_image_are_there_its_bytes_are_not(world, run_options):
    world.put(world.image())
    _, image, _ = show.show(str(world.path()), run_options)
    assert image.size == world.path().stat().st_size
    with pytest.raises(Unreadable, match="cannot read"):
        image.view.read(Extent(1 << 16, 1))


# --------------------------------------------------------------------------- undo


def test_an_image_that_is_a_link_by_now_is_not_put_back(world, run_options):
    path = world.damaged()
    (image,) = repair.repair([str(path)], run_options)
    path.rename(world.folder / "aside.vhd")
    path.symlink_to(world.folder / "aside.vhd")
    undone = journal.undo(image.outcome.journal, run_options, lambda _: True)
    assert (undone.outcome.reason, undone.outcome.journal) == (Reason.UNSAFE_PATH, image.outcome.journal)


def test_a_no_leaves_the_repair(world, run_options):
    path = world.damaged()
    (image,) = repair.repair([str(path)], run_options)
    after = path.read_bytes()
    asked = []
    refused = journal.undo(image.outcome.journal, run_options, lambda record: bool(asked.append(record)))
    assert refused.outcome.status is Status.WOULD_REPAIR
    assert asked[0].path == str(path)
    assert path.read_bytes() == after


def test_a_record_tells_resizes_too(world, run_options):
    raw = world.image()
    path = world.put(raw[: len(raw) - 512 - (1 << 20)])
    (image,) = repair.repair([str(path)], run_options)
    assert image.outcome.status is Status.REPAIRED
    (record,) = journal.journals(run_options)
    assert [type(edit).__name__ for edit in record.edits] == ["Resize", "Write"]
