"""The pass over the blocks: any blocks, any engine, the same events."""

from __future__ import annotations

import json

import pytest

from smfix.smlog import lines as lines_module
from smfix.smlog import sweep as sweep_module
from smfix.smlog.engine import PlainEngine
from smfix.smlog.events import Failure
from smfix.smlog.lines import Block
from smfix.smlog.proofs import Proof, Strength
from smfix.smlog.sweep import Looking, Memory, Sweep, in_question, recall
from smlog_text import LV, PATH, SR, SR2, VDI, VDI2, blocks_of, check, corrupted, events_of, failed, gc, said

MAPPER = f"/dev/mapper/VG_XenStorage--{SR.replace('-', '--')}-VHD--{VDI.replace('-', '--')}"
DUMP = f"primary footer invalid: invalid cookie\n{PATH} appears invalid; dumping metadata\n"
RUN = [check(), *failed(DUMP), corrupted()]
OK = said("  pread SUCCESS")
OTHER = PATH.replace(VDI, VDI2)
LOG = [gc(f"=== SR {SR}: gc ==="), check(), OK, *RUN, check(OTHER), OK, check(), OK, *RUN, said("end")]


def kinds(found: list[object]) -> list[str]:
    return [type(event).__name__ for event in found]


@pytest.mark.parametrize("per_block", [1, 2, 3, 5, 100])
def test_any_blocks_tell_the_same(per_block):
    whole = [(event.place, kinds([event])) for event in events_of(LOG)]
    assert [(event.place, kinds([event])) for event in events_of(LOG, per_block)] == whole
    assert kinds(events_of(LOG, per_block)) == ["Failure", "Failure", "Proof", "Failure", "Failure"]


def test_proofs_only():
    wanted = in_question({(VDI2, SR): -1})
    sweep = Sweep(PlainEngine(), looking=Looking.PROOFS, wanted=wanted)
    found = [event for block in blocks_of(LOG, 3) for event in sweep.feed(block)] + list(sweep.finish())
    assert [(type(event), event.vdi) for event in found] == [(Proof, VDI2)]
    assert list(wanted) == [VDI2[:8]]


def test_vdis_that_were_reported_before():
    wanted = in_question({(VDI2, SR): -1})
    sweep = Sweep(PlainEngine(), wanted=wanted)
    found = [event for block in blocks_of(LOG, 3) for event in sweep.feed(block)] + list(sweep.finish())
    assert [event.vdi for event in found if isinstance(event, Proof)] == [VDI2, VDI]
    assert {digits: sought.disk for digits, sought in wanted.items()} == {VDI[:8]: (VDI, SR), VDI2[:8]: (VDI2, SR)}


def test_the_first_proof_after_each_report_is_told():
    again = [*LOG, check(), OK, check(), OK, check(PATH, "-B"), OK, check(PATH, "-B"), OK, *RUN, check(), OK]
    strengths = [event.strength for event in events_of(again) if isinstance(event, Proof)]
    assert strengths == [Strength.CHECKED, Strength.CHECKED, Strength.CHECKED_FAST, Strength.CHECKED]
    deleted = gc(f"Deleting unlinked VDI *{VDI[:8]}(1G)")
    assert kinds(events_of([*RUN, deleted, deleted])) == ["Failure", "Failure", "Proof"]


RELINK = [
    gc(f"  Running VHD coalesce on *{VDI[:8]}(1G)"),
    gc("  Child process completed successfully"),
    gc(f"  Relinking 3f994938(1G) from *{VDI[:8]}(1G) to *{VDI2[:8]}(1G)"),
]


def test_a_coalesce_is_asked_only_where_no_check_said_it_before():
    assert kinds(events_of([*RUN, *RELINK])) == ["Failure", "Failure", "Proof"]
    assert kinds(events_of([*RUN, check(), OK, *RELINK])) == ["Failure", "Failure", "Proof"]
    other = [line.replace(VDI, VDI2) for line in RUN]
    assert len(events_of([*RUN, *other, *RELINK])) == 6
    assert len(events_of([*RUN, *other, check(), OK, *RELINK])) == 7
    assert len(events_of([*RUN, *other, check(), OK, check(OTHER), OK, *RELINK])) == 6


@pytest.mark.parametrize("twin", [PATH.replace(SR, SR2), PATH.replace("058e", "ffff")], ids=["other SR", "same digits"])
def test_a_check_of_a_namesake_says_nothing_of_a_coalesce(twin):
    """Two disks whose UUIDs start alike, or one UUID on two SRs: a coalesce names eight digits."""
    strengths = [Strength.CHECKED, Strength.CHECKED]
    assert [event.strength for event in proofs([*RUN, check(twin), OK, *RELINK])] == strengths
    namesake = [line.replace(PATH, twin) for line in RUN]
    assert [event.strength for event in proofs([*RUN, *namesake, check(twin), OK, *RELINK])] == strengths
    assert [event.strength for event in proofs([*RUN, *RUN, check(), OK, *RELINK])] == [Strength.CHECKED]


def proofs(lines):
    return [event for event in events_of(lines) if isinstance(event, Proof)]


def test_a_memory_takes_no_namesake_for_the_disk():
    lines = [check(PATH.replace(SR, SR2)), OK, *RELINK]
    for per_block in (1, 100):
        memory = remembered(lines, per_block)
        for asked in ([(VDI, SR)], [(VDI, SR), (VDI, SR2)], [(VDI[:8], SR)]):
            assert len(list(recall(PlainEngine(), memory, dict.fromkeys(asked, -1)))) == 2
        assert len(list(recall(PlainEngine(), memory, {(VDI, SR2): -1}))) == 1


def test_the_commands_that_are_remembered_are_bounded(monkeypatch):
    monkeypatch.setattr(sweep_module, "_MOST_TOLD", 1)
    lines = [*RUN, check(), OK, check(OTHER), OK, check(PATH, "-B"), OK, check(), OK, check(OTHER, "-B"), OK]
    assert kinds(events_of(lines)) == ["Failure", "Failure", "Proof", "Proof"]


@pytest.mark.parametrize(
    "line",
    [
        check(PATH, "-B"),
        check(LV),
        check(LV.replace("VHD-", "LV-")),
        check(LV.replace("VHD-", "QCOW2-")),
        check(PATH.replace(VDI, f"OLD_{VDI}")),
        check(LV.replace(VDI, f"OLD_{VDI}")),
        check(LV.replace("VHD-", "LV-DELETED_")),
        check(MAPPER),
        said(f"['/sbin/lvremove', '-f', '{LV}']"),
        f'{{"_HOSTNAME": "xen1", "MESSAGE": {json.dumps(check()[25:])}, "_EXE": "/usr/bin/python3"}}',
    ],
)
def test_every_way_to_name_a_vdi_in_a_command(line):
    done = line.replace(line[line.index("['") :], "  pread SUCCESS" + ('"}' if line.startswith("{") else ""))
    found = [event for event in events_of([*RUN, line, done]) if isinstance(event, Proof)]
    assert [event.vdi for event in found] == [VDI]


def test_a_part_tells_only_what_lies_in_it():
    first, second, third = blocks_of(LOG, 7)
    place = 1000
    sweep = Sweep(PlainEngine(), place=place, begin=place + first.size)
    found = [*sweep.feed(first), *sweep.feed(second)]
    sweep.close()
    found += [*sweep.feed(third), *sweep.finish()]
    inside = [event for event in events_of(LOG) if first.size <= event.place < first.size + second.size]
    assert [event.place - place for event in found] == [event.place for event in inside]
    assert found


def test_blocks_out_of_reach_are_given_back(monkeypatch):
    monkeypatch.setattr(lines_module, "REACH_BACK", 300)
    monkeypatch.setattr(sweep_module, "REACH_AHEAD", 300)
    sweep = Sweep(PlainEngine())
    found = []
    for block in blocks_of([*LOG, *LOG], 2):
        found.extend(sweep.feed(block))
    assert len(sweep.spare) > 5
    found.extend(sweep.finish())
    assert {event.vdi for event in found if isinstance(event, Failure)} == {VDI}


def test_behind_a_report_of_a_volume_whose_vdi_is_unknown_all_proofs_are_new():
    volume = "/dev/drbd/by-res/xcp-volume-1/0"
    bare = [check(volume, pid=4), *failed(DUMP.replace(PATH, volume), 4)]
    again = [*RUN, check(), OK, *bare, check(), OK, gc(f"VDI {VDI} disappeared since last scan")]
    assert kinds(events_of(again))[-4:] == ["Proof", "Failure", "Proof", "Proof"]
    assert [event.vdi for event in events_of(again) if isinstance(event, Failure)][-1] == ""


def test_what_is_proved_in_front_of_the_part_lets_nothing_pass_untold():
    gone = gc(f"VDI {VDI} disappeared since last scan")
    lines = [*RUN, gone, gone]
    begin = sum(len(line) + 1 for line in lines[:-1])
    for per_block in (1, 100):
        sweep = Sweep(PlainEngine(), begin=begin)
        found = [event for block in blocks_of(lines, per_block) for event in sweep.feed(block)] + list(sweep.finish())
        assert [(kinds([event]), event.place) for event in found] == [(["Proof"], begin)]


def test_the_vdis_in_question_are_bounded(monkeypatch):
    monkeypatch.setattr(sweep_module, "_MOST_WANTED", 0)
    assert not [event for event in events_of(LOG) if isinstance(event, Proof)]


def test_a_proof_on_a_line_of_any_length():
    end = said("Deleting unlinked VDI *" + VDI[:8] + "(1G)" + "x" * 9000)
    assert kinds(events_of([*RUN, end])) == ["Failure", "Failure", "Proof"]
    far = said("x" * 9000 + "Deleting unlinked VDI *" + VDI[:8] + "(1G)")
    assert kinds(events_of([*RUN, far])) == ["Failure", "Failure"]
    last = [*RUN, said(f"Deleting unlinked VDI *{VDI[:8]}(1G)")]
    assert kinds(events_of(last)) == ["Failure", "Failure", "Proof"]


def test_noise_is_counted():
    sweep = Sweep(PlainEngine())
    for block in blocks_of([said("['/sbin/vgs']"), *failed("x"), gc("gc: EXCEPTION <type 'x.KeyError'>, 'y'")]):
        list(sweep.feed(block))
    list(sweep.finish())
    (tally,) = sweep.tally()
    assert [count for _, count in tally.noise] == [1, 1]


@pytest.mark.parametrize("per_block", [1, 2, 5, 100])
def test_a_volume_that_is_removed_soon_after_it_was_reported(per_block, monkeypatch):
    """Also where only files were in question when its removal was looked for."""
    monkeypatch.setattr(sweep_module, "REACH_AHEAD", 900)
    volume = LV.replace(VDI, VDI2)
    removed = [said(str(["/sbin/lvremove", "-f", volume])), OK]
    log = [
        *RUN,
        *[said("x")] * 30,
        check(volume),
        *failed(DUMP.replace(PATH, volume)),
        corrupted(f"*{VDI2[:8]}(1G)"),
        said("x"),
        *removed,
    ]
    assert [(event.vdi, event.strength) for event in events_of(log, per_block) if isinstance(event, Proof)] == [
        (VDI2, Strength.REMOVED)
    ]


def test_a_volume_that_is_removed_in_the_block_of_its_report():
    """Only files were in question when the block was searched."""
    volume = LV.replace(VDI, VDI2)
    removed = [said(str(["/sbin/lvremove", "-f", volume])), OK]
    log = [check(volume), *failed(DUMP.replace(PATH, volume)), corrupted(f"*{VDI2[:8]}(1G)"), *removed]
    sweep = Sweep(PlainEngine())
    first, second = blocks_of(RUN)[0], blocks_of(log)[0]
    found = [*sweep.feed(first), *sweep._work_off(*sweep._waiting.popleft()), *sweep.feed(second), *sweep.finish()]
    assert [(event.vdi, event.strength) for event in found if isinstance(event, Proof)] == [(VDI2, Strength.REMOVED)]


# --------------------------------------------------------------------------- memory


def remembered(lines, per_block, *, close_at=None, can_be_read_again=True):
    """A memory of `lines`; what lies behind block `close_at` is somebody else's."""
    memory = Memory()
    sweep = Sweep(PlainEngine(), memory=memory)
    for number, block in enumerate(blocks_of(lines, per_block)):
        if number == close_at:
            sweep.close()
        text = bytes(block.data)
        again = (lambda text=text: bytearray(text)) if can_be_read_again else None
        kept = Block(bytearray(text), block.size, block.file, block.first_line, block.lines, again=again)
        list(sweep.feed(kept))
    list(sweep.finish())
    return memory


def searched(lines, per_block, wanted):
    sweep = Sweep(PlainEngine(), looking=Looking.PROOFS, wanted=in_question(dict.fromkeys(wanted, -1)))
    found = [event for block in blocks_of(lines, per_block) for event in sweep.feed(block)]
    return found + list(sweep.finish())


PROVING = [
    *(line for turn in range(20) for line in (check(OTHER, pid=50 + turn), said("  pread SUCCESS", 50 + turn))),
    check(OTHER, "-B"), OK, check(MAPPER), OK, said(str(["/sbin/lvremove", "-f", LV])), OK,
    gc(f"Deleting unlinked VDI *{VDI2[:8]}(1G)"), gc(f"VDI {VDI} disappeared since last scan"), *RUN, check(), OK,
]  # fmt: skip


@pytest.mark.parametrize("per_block", [1, 3, 100])
@pytest.mark.parametrize("wanted", [[(VDI, SR)], [(VDI2, SR)], [(VDI, SR), (VDI2, None)], [("0" * 8, None)]])
def test_a_memory_answers_as_a_second_pass_would(per_block, wanted):
    memory = remembered(PROVING, per_block)
    assert memory.holds
    told = list(recall(PlainEngine(), memory, dict.fromkeys(wanted, -1)))
    assert told == searched(PROVING, per_block, wanted)
    assert bool(told) == (("0" * 8, None) not in wanted)


def test_a_memory_tells_what_is_proved_since_a_place():
    lines = [check(), OK, *RUN, check(), OK, check(), OK]
    memory = remembered(lines, 3)
    places = [event.place for event in searched(lines, 3, [(VDI, SR)])]
    reported = [event.place for event in events_of(lines) if isinstance(event, Failure)]
    assert places == [0]
    (proof,) = recall(PlainEngine(), memory, {(VDI, SR): reported[-1]})
    assert proof.place > reported[-1]
    assert not list(recall(PlainEngine(), memory, {(VDI, SR): 1 << 40}))
    # What one proves of a disk from its place on, another may need from its own.
    assert len(list(recall(PlainEngine(), memory, {(VDI, SR): 1, (VDI, SR2): 2}))) == 2


def test_a_memory_tells_nothing_of_the_next_part():
    memory = remembered([*PROVING, check(OTHER, "-i"), check(OTHER), OK], 1, close_at=2)
    assert [event.strength for event in recall(PlainEngine(), memory, {(VDI2, SR): -1})] == [Strength.CHECKED]
    assert not list(recall(PlainEngine(), memory, {(VDI, SR): -1}))


def test_a_memory_that_cannot_hold_says_so(monkeypatch):
    assert not remembered(PROVING, 3, can_be_read_again=False).holds
    monkeypatch.setattr(sweep_module, "_MOST_KEPT", 10)
    full = remembered(PROVING, 3)
    assert not full.holds
    assert not full.blocks
