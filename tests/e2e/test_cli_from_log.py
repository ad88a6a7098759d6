from __future__ import annotations

import json
import os
import shlex
import shutil

import pytest

from smfix.cli import app
from smfix.usecases import from_log, repair_image
from world import BASE, LEAF, OTHER, SR, exception, failed, make_world


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


def state(folder):
    """Every file below `folder`, with its bytes and its time."""
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


# --------------------------------------------------------------------------- the main job


def test_the_wikis_excerpt_names_the_disk(world):
    log = os.path.join(os.path.dirname(__file__), "..", "..", "fixtures", "logs", "raw-2012-coalesce-footer.log")
    document = world.run("from-log", log, "--tz", "UTC", "--json").json
    (incident,) = document["incidents"]
    assert incident["vdi"] == BASE
    assert incident["sr"] == SR
    assert incident["path"] == f"/var/run/sr-mount/{SR}/{BASE}.vhd"
    assert sorted(incident["kinds"]) == ["coalesce-corrupted", "footer-invalid"]
    assert incident["count"] == 1
    assert incident["first_seen"] == "2012-05-15T00:18:35.127755+00:00"
    assert incident["last_seen"] == "2012-05-15T00:18:35.129850+00:00"
    assert incident["outcome"]["status"] == "not-found"
    assert str(world.sr / f"{BASE}.vhd") in incident["outcome"]["message"]
    assert document["exit"] == 4


def test_a_lost_footer_is_repaired_from_the_log(world):
    path = world.damaged()
    world.smlog(failed())
    run = world.run("from-log", world.log, "--yes", "--json")
    document = run.json
    assert run.code == document["exit"] == 1
    assert document["summary"] == {"incidents": 1, "repaired": 1, "left": 0}
    outcome = document["incidents"][0]["outcome"]
    assert outcome["status"] == "repaired"
    assert document["incidents"][0]["path"] == str(path)
    assert [finding["code"] for finding in outcome["findings"]] == ["VHD101"]
    assert outcome["remaining"] == []
    assert outcome["plan"]["edits"] == [{"op": "write", "offset": len(path.read_bytes()) - 512, "length": 512}]
    assert path.read_bytes()[-512:] == path.read_bytes()[:512]
    assert outcome["undo"] == f"smfix undo {outcome['journal']} --journal-dir {world.journals}"


def test_the_second_run_writes_nothing(world):
    world.damaged()
    world.smlog(failed())
    assert world.run("from-log", world.log, "--yes").code == 1
    before = state(world.folder)
    second = world.run("from-log", world.log, "--yes", "--json")
    assert second.code == 0
    assert second.json["incidents"][0]["outcome"]["status"] == "valid"
    assert state(world.folder) == before


def test_undo_as_printed_gives_the_damaged_file_back(world):
    path = world.damaged()
    before = path.read_bytes()
    world.smlog(failed())
    outcome = world.run("from-log", world.log, "--yes", "--json").json["incidents"][0]["outcome"]
    assert app.run([*shlex.split(outcome["undo"])[1:], "--yes"]) == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("how", [["--dry-run"], ["-n"], []])
def test_a_dry_run_changes_nothing_and_says_how_to_go_on(world, how):
    path = world.damaged()
    world.smlog(failed())
    before = state(world.folder)
    run = world.run("from-log", world.log, *how)
    assert run.code == 4
    assert "[would-repair]" in run.out
    assert "dry run: VHD101 would be repaired, nothing was" in run.out
    again = run.out.rstrip().splitlines()[-1].strip()
    assert again == (f"smfix from-log {world.log} --yes --sr-mount {world.mount} --journal-dir {world.journals}")
    assert state(world.folder) == before
    assert sorted(os.listdir(world.folder)) == ["SMlog", "sr-mount"]
    assert app.run(shlex.split(again)[1:]) == 1
    assert path.read_bytes()[-512:] == path.read_bytes()[:512]


def test_json_never_asks_and_keeps_stdout_clean(world, monkeypatch):
    world.damaged()
    world.smlog(failed())
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    run = world.run("from-log", world.log, "--json")
    document = json.loads(run.out)
    (outcome,) = [one["outcome"] for one in document["incidents"]]
    assert outcome["status"] == "would-repair"
    assert "Nothing was changed: this was a dry run." in run.err
    assert app.run(shlex.split(outcome["next"][0])[1:]) == 1


def test_every_time_option_is_in_the_command_to_go_on(world):
    world.damaged()
    world.smlog(failed())
    run = world.run(
        "from-log", world.log, "--since", "2012-05-14 12:00", "--until", "2012-06-01", "--tz", "UTC", "--year", "2012"
    )
    assert "--since '2012-05-14 12:00' --until 2012-06-01 --tz UTC --year 2012 --yes" in run.out.splitlines()[-1]


# --------------------------------------------------------------------------- several incidents


def test_a_parent_is_treated_before_its_child(world, monkeypatch):
    world.damaged(BASE)
    world.damaged(LEAF, parent=BASE)
    world.smlog(failed(LEAF, pid=11), failed(BASE, pid=12, at="00:20:00"))
    order = []
    treat = repair_image.repair_image

    def noted(found, run_options):
        order.append(found.target.vdi)
        return treat(found, run_options)

    monkeypatch.setattr(repair_image, "repair_image", noted)
    document = world.run("from-log", world.log, "--yes", "--json").json
    assert order == [BASE, LEAF]
    assert [incident["vdi"] for incident in document["incidents"]] == [LEAF, BASE]
    assert document["summary"]["repaired"] == 2


def test_repaired_and_refused_is_five(world):
    world.damaged(BASE)
    held = world.damaged(OTHER)
    world.smlog(failed(BASE), failed(OTHER, pid=2))
    before = held.read_bytes()
    with world.holding(held) as pid:
        run = world.run("from-log", world.log, "--yes", "--json")
    assert run.code == 5
    refused = run.json["incidents"][1]["outcome"]
    assert (refused["status"], refused["reason"]) == ("refused", "in-use")
    assert f"(pid {pid}) read-write" in refused["message"]
    assert held.read_bytes() == before


def test_a_prefix_alone_is_resolved_below_its_mounts(world):
    world.damaged()
    world.smlog(exception())
    document = world.run("from-log", world.log, "--json").json
    (incident,) = document["incidents"]
    assert incident["vdi"] == BASE
    assert incident["sr"] == SR
    assert incident["outcome"]["status"] == "would-repair"


def test_two_candidates_are_listed_and_neither_is_touched(world):
    other = "1d994938-0000-102f-80dc-001ec95cb0b6"
    world.damaged(BASE)
    world.damaged(other)
    world.smlog(exception())
    before = state(world.sr)
    run = world.run("from-log", world.log, "--yes", "--json")
    assert run.code == 4
    (incident,) = run.json["incidents"]
    assert incident["vdi"] == "1d994938"
    assert incident["path"] is None
    outcome = incident["outcome"]
    assert outcome["status"] == "ambiguous"
    for vdi in (BASE, other):
        assert str(world.path(vdi)) in outcome["message"]
        assert f"smfix check {world.path(vdi)}" in outcome["next"]
    assert state(world.sr) == before


def test_a_copy_is_refused_with_the_wikis_advice_even_when_it_is_gone(world):
    world.smlog(failed(folder="tmpFco2q9/"))
    run = world.run("from-log", world.log, "--yes", "--json")
    assert run.code == 4
    outcome = run.json["incidents"][0]["outcome"]
    assert (outcome["status"], outcome["reason"]) == ("refused", "image-copy")
    assert "repair that server's disk" in outcome["message"]
    assert "take a new image" in outcome["message"]


def test_a_sound_disk_is_valid_and_not_written(world):
    path = world.put(world.image())
    world.smlog(failed())
    before = state(world.folder)
    run = world.run("from-log", world.log, "--yes", "--json")
    assert run.code == 0
    assert run.json["incidents"][0]["outcome"]["status"] == "valid"
    assert state(world.folder) == before
    assert path.exists()


def test_ids_are_stable_and_differ(world):
    world.damaged(BASE)
    world.smlog(failed(BASE), failed(OTHER, pid=2))
    first = [one["id"] for one in world.run("from-log", world.log, "--json").json["incidents"]]
    world.smlog(failed(OTHER, pid=2), failed(BASE, at="03:00:00"))
    second = [one["id"] for one in world.run("from-log", world.log, "--json").json["incidents"]]
    assert len(set(first)) == 2
    assert first == second[::-1]


# --------------------------------------------------------------------------- logs that cannot be read


@pytest.mark.parametrize("as_json", [True, False])
def test_a_missing_log_is_one_line(world, as_json):
    run = world.run("from-log", world.folder / "nothing", *(["--json"] if as_json else []))
    assert run.code == 8
    assert run.err.count("\n") == 1
    assert run.err.startswith("smfix: ")
    assert str(world.folder / "nothing") in run.err
    if as_json:
        assert run.json["schema"] == "smfix.error/1"
        assert run.json["exit"] == 8
    else:
        assert run.out == ""


def test_a_machine_without_smlog_is_told_to_name_one(world, monkeypatch):
    monkeypatch.setattr(from_log, "SMLOG", str(world.folder / "SMlog of a host"))
    run = world.run("from-log")
    assert run.code == 8
    assert run.err.endswith("No such file or directory; name the log: smfix from-log FILE\n")


def test_a_log_without_incidents_is_zero(world):
    world.smlog("[1] 2012-05-15 00:18:35.127755\tlock: acquired\n")
    run = world.run("from-log", world.log)
    assert run.code == 0
    assert run.out.endswith("No damaged disk is named in this log.\n")


def test_an_empty_log_beside_older_ones_says_what_to_type(world, monkeypatch):
    log = world.smlog("")
    for name in ("SMlog.1", "SMlog.2.gz"):
        (world.folder / name).write_bytes(b"")
    monkeypatch.chdir(world.folder)
    run = world.run("from-log", log.name, "--since", "2012-05-14")
    assert run.code == 0
    assert "There is nothing in it.\n" in run.out
    assert "2 older logs beside it were not read (SMlog.1, SMlog.2.gz). To read all of them:\n" in run.out
    assert f"   smfix from-log {world.folder} --since 2012-05-14 --sr-mount {world.mount}" in run.out
    assert "not read" not in world.run("from-log", world.folder).out


def test_disks_of_an_sr_that_is_elsewhere_lead_to_its_hosts(world):
    away = "99999999-9556-ee47-1e04-1a8517813369"
    world.smlog(failed(sr=away), failed(OTHER, sr=away, pid=7, at="00:19:35"))
    asked = f"xe pbd-list sr-uuid={away} params=host-uuid,currently-attached"
    told = world.run("from-log", world.log).out
    assert f"   next     {asked}\n" in told
    assert told.partition("What is left")[2].count(away) == 2
    assert told.endswith(f"1-2)\n      {asked}\n")


def test_verbose_tells_what_was_set_aside_and_why(world):
    world.smlog("[1] 2012-05-15 00:18:35.127755\tcoalesce: EXCEPTION util.SMException, Timed out\n" * 2)
    told = "2 reports of trouble were set aside, because they name no damaged VHD:\n"
    told += "   2        the work was stopped or took too long, and"
    run = world.run("from-log", world.log, "--verbose")
    assert run.code == 0
    assert told in run.out
    assert "set aside" not in world.run("from-log", world.log).out
    document = world.run("from-log", world.log, "-v", "--json")
    assert told in document.err
    assert json.loads(document.out)["incidents"] == []


def test_terminal_escapes_of_a_log_do_not_act(world):
    world.smlog(failed().replace("In cleanup", "In \x1b[2Jcleanup"), exception("\x1b]0;x\x07abcdef"))
    run = world.run("from-log", world.log)
    assert "\x1b" not in run.out + run.err


@pytest.mark.parametrize(
    "words",
    [
        ["--year", "x"],
        ["--year", "20"],
        ["--tz", "Nowhere/Land"],
        ["--since", "yesterweek"],
        ["--yes", "--dry-run"],
        ["--follow", "--verbose"],
        ["--confirm", "VHD999"],
        ["--sr-mount", "/nowhere/at/all"],
        ["--no-such-option"],
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(world, words):
    world.smlog(failed())
    run = world.run("from-log", world.log, *words)
    assert run.code == 16
    assert run.out == ""
    assert run.err.startswith("smfix: ")
    assert run.err.count("\n") == 1


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_names_with_blanks_and_quotes_survive_the_shell(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    world = make_world(folder, capsys, monkeypatch)
    world.damaged()
    world.smlog(failed())
    outcome = world.run("from-log", world.log, "--yes", "--json").json["incidents"][0]["outcome"]
    words = shlex.split(outcome["undo"])
    assert words == ["smfix", "undo", outcome["journal"], "--journal-dir", str(world.journals)]


# --------------------------------------------------------------------------- another host's SRs


def test_the_disks_of_an_sr_that_another_host_treats_are_left_alone(world):
    path = world.damaged()
    before = path.read_bytes()
    run = world.run("from-log", world.smlog(failed()), "--yes", "--leave-sr", SR.upper(), "--json")
    (one,) = run.json["incidents"]
    assert (run.code, one["outcome"]["status"], one["outcome"]["reason"]) == (4, "refused", "policy")
    assert one["sr"] == SR
    assert path.read_bytes() == before
    # The log says eight digits only: the SR is the one in which the disk was found.
    run = world.run("from-log", world.smlog(exception()), "--yes", "--leave-sr", SR, "--json")
    assert [(one["sr"], one["outcome"]["reason"]) for one in run.json["incidents"]] == [(SR, "policy")]
    assert path.read_bytes() == before


def test_a_disk_that_is_not_here_is_left_alone_too_by_its_sr(world):
    run = world.run("from-log", world.smlog(failed()), "--leave-sr", SR, "--json")
    assert run.json["incidents"][0]["outcome"]["reason"] == "policy"


def test_other_srs_are_treated_and_the_hint_says_it_all(world):
    world.damaged()
    other = "99999999-9556-ee47-1e04-1a8517813369"
    run = world.run("from-log", world.smlog(failed()), "--leave-sr", other)
    assert f"--leave-sr {other}" in run.out
    run = world.run("from-log", world.smlog(failed()), "--leave-sr", other, "--yes", "--json")
    assert run.json["incidents"][0]["outcome"]["status"] == "repaired"


def test_what_is_no_sr(world):
    run = world.run("from-log", world.smlog(failed()), "--leave-sr", "pool")
    assert (run.code, run.out) == (16, "")
    assert "--leave-sr pool: an SR's UUID" in run.err
