"""A policy: every mistake one line, and what it forbids."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest

from smfix.follow.policy import Hook, Policy, forbids, read, seconds
from smfix.values import Disposition, Finding, Severity

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SR = "7a142a29-9556-ee47-1e04-1a8517813369"
CODES = ("VHD101", "VHD105")
EVENTS = ("seen", "repaired", "waiting")


def fix(code="VHD101", disposition=Disposition.SAFE):
    return Finding(code, "t", "m", Severity.ERROR, disposition)


WHOLE = """
version = 1
dry-run = true
[repair]
srs = ["7a142a29*", "*"]
not-srs = ["deadbeef-0000-0000-0000-000000000000"]
findings = ["SAFE", "VHD105"]
per-hour = 5
per-day = 20
[quiet]
hours = ["22:00-06:00", "12:00-13:30"]
[remind]
first = "30m"
at-most = "12h"
[[hook]]
command = ["/usr/bin/logger", "-t", "smfix"]
events = ["repaired", "waiting"]
timeout = 5
[[hook]]
command = ["/bin/true"]
"""


def test_a_policy_says_everything_it_can():
    policy = read(WHOLE, CODES, EVENTS)
    assert policy == Policy(
        dry_run=True,
        srs=("7a142a29*", "*"),
        not_srs=("deadbeef-0000-0000-0000-000000000000",),
        findings=frozenset({"SAFE", "VHD105"}),
        per_hour=5,
        per_day=20,
        quiet=((time(22), time(6)), (time(12), time(13, 30))),
        hooks=(
            Hook(("/usr/bin/logger", "-t", "smfix"), frozenset({"repaired", "waiting"}), 5.0),
            Hook(("/bin/true",), frozenset(), 10.0),
        ),
        remind_first=timedelta(minutes=30),
        remind_last=timedelta(hours=12),
    )
    assert policy.consent == {"VHD105"}
    assert policy.hooks[0].wants("waiting")
    assert not policy.hooks[0].wants("seen")
    assert policy.hooks[1].wants("seen")


def test_an_empty_policy_is_what_yes_means():
    assert read("", CODES, EVENTS) == Policy()
    assert Policy().consent == frozenset()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = ", "no TOML: "),
        ("version = 2", "version: 2 is unknown"),
        ("wat = 1", "policy.wat: there is no such setting; policy knows dry-run"),
        ("repair = 1", "repair: must be a table"),
        ("dry-run = 'yes'", "dry-run: must be true or false, not 'yes'"),
        ("[repair]\nper-hour = -1", "repair.per-hour: must be a whole number from 0 to 10000, not -1"),
        ("[repair]\nper-hour = true", "repair.per-hour: must be a whole number"),
        ("[repair]\nper-day = 'x'", "repair.per-day: must be a whole number"),
        ("[repair]\nfindings = 'SAFE'", "repair.findings: must be a list of SAFE or a finding"),
        ("[repair]\nfindings = ['VHD999']", "repair.findings: 'VHD999' is not SAFE or a finding"),
        ("[repair]\nsrs = [1]", "repair.srs: 1 is not an SR's UUID"),
        ("[repair]\nsrs = ['NFS storage']", "repair.srs: 'NFS storage' is not an SR's UUID"),
        ("[quiet]\nhours = ['24:00-06:00']", "quiet.hours: '24:00-06:00' is not hours such as"),
        ("[quiet]\nhours = ['6-7']", "quiet.hours: '6-7' is not hours such as"),
        ("[remind]\nfirst = 5", "remind.first: 5 is not a time such as 90s"),
        ("[remind]\nfirst = '0h'", "remind.first: '0h' is not a time such as 90s"),
        ("[hook]\ncommand = ['/x']", "hook: write [[hook]]"),
        ("[[hook]]\ncommand = ['x']", "hook 1.command: must be a list that begins with a full path"),
        ("[[hook]]\nevents = []", "hook 1.command: must be a list that begins with a full path"),
        ("[[hook]]\ncommand = ['/x']\nevents = ['no']", "hook 1.events: 'no' is not one of repaired, seen, waiting"),
        ("[[hook]]\ncommand = ['/x']\ntimeout = 301", "hook 1.timeout: must be a whole number from 0 to 300"),
    ],
)
def test_a_mistake_is_one_clear_line(text, said):
    mistakes = read(text, CODES, EVENTS)
    assert isinstance(mistakes, tuple)
    assert [one for one in mistakes if one.startswith(said)], mistakes
    assert all("\n" not in one for one in mistakes)


def test_every_mistake_is_told():
    assert len(read("wat = 1\n[repair]\nper-hour = -1\nsrs = ['!']", CODES, EVENTS)) == 3


def test_what_is_allowed_is_not_forbidden():
    assert forbids(Policy(), SR, [fix()], [], NOW) is None
    assert forbids(Policy(srs=("7a14*",)), SR, [fix()], [], NOW) is None
    allowed = Policy(findings=frozenset({"VHD105"}))
    assert forbids(allowed, SR, [fix("VHD105", Disposition.CONFIRM)], [], NOW) is None


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (Policy(dry_run=True), "dry-run"),
        (Policy(srs=("dead*",)), f"does not allow repairs on SR {SR}"),
        (Policy(not_srs=("7a14*",)), f"does not allow repairs on SR {SR}"),
        (Policy(findings=frozenset()), "does not allow to repair VHD101"),
        (Policy(findings=frozenset({"VHD105"})), "does not allow to repair VHD101"),
    ],
)
def test_what_is_forbidden_says_by_which_rule(policy, said):
    why, until = forbids(policy, SR, [fix()], [], NOW)
    assert said in why
    assert until is None


def test_an_unknown_sr_is_allowed_only_by_a_star():
    assert forbids(Policy(), None, [fix()], [], NOW) is None
    assert "SR (unknown)" in forbids(Policy(srs=("7a14*",)), None, [fix()], [], NOW)[0]


def test_safe_does_not_mean_confirm():
    assert forbids(Policy(), SR, [fix("VHD105", Disposition.CONFIRM)], [], NOW) is not None


@pytest.mark.parametrize(
    ("hour", "until"),
    [(23, datetime(2026, 11, 23, 6, tzinfo=UTC)), (3, datetime(2026, 11, 22, 6, tzinfo=UTC)), (12, None), (6, None)],
)
def test_quiet_hours_reach_over_midnight(hour, until):
    policy = Policy(quiet=((time(22), time(6)),))
    answer = forbids(policy, SR, [fix()], [], NOW.replace(hour=hour))
    assert answer == (None if until is None else ("quiet hours until 06:00", until))


def test_quiet_hours_of_one_day():
    policy = Policy(quiet=((time(12), time(13)),))
    assert forbids(policy, SR, [fix()], [], NOW)[1] == NOW.replace(hour=13)
    assert forbids(policy, SR, [fix()], [], NOW.replace(hour=13)) is None


def test_a_rate_is_free_again_when_the_oldest_repair_is_old_enough():
    policy = Policy(per_hour=2)
    times = [NOW - timedelta(minutes=age) for age in (90, 50, 10)]
    why, until = forbids(policy, SR, [fix()], times, NOW)
    assert why == "the policy allows 2 repairs per hour"
    assert until == NOW + timedelta(minutes=10)
    assert forbids(policy, SR, [fix()], times, NOW + timedelta(minutes=11)) is None
    assert forbids(Policy(per_hour=0), SR, [fix()], [], NOW) == ("the policy allows 0 repairs per hour", None)
    assert "per day" in forbids(Policy(per_day=3), SR, [fix()], times, NOW)[0]


@pytest.mark.parametrize(
    ("line", "patience"),
    [
        ("", None),
        ('gc-patience = "never"', None),
        ('gc-patience = "90min"', timedelta(minutes=90)),
        ('gc-patience = "6h"', timedelta(hours=6)),
    ],
)
def test_how_long_a_repair_waits_for_gc(line, patience):
    assert read(line, CODES, EVENTS).gc_patience == patience


@pytest.mark.parametrize("value", ["0s", "soon", 5, True])
def test_a_patience_that_is_no_time_is_a_mistake(value):
    text = f'gc-patience = "{value}"' if isinstance(value, str) else f"gc-patience = {str(value).lower()}"
    (mistake,) = read(text, CODES, EVENTS)
    assert mistake.startswith("gc-patience: ")


def test_durations():
    assert [seconds(text) for text in ("0s", "90s", "15m", "15min", "2 h", "1d")] == [0, 90, 900, 900, 7200, 86400]
    assert [seconds(text) for text in ("", "5", "2H", "1y", "-1s", "٣s", "1s\n")] == [None] * 7
