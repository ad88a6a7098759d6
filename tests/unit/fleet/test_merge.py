"""All documents together: each disk once, sums that add up, bounds that are told."""

from __future__ import annotations

from fleet_values import BASE, LEAF, OTHER, SHARED, SR, check, error, from_log, incident, outcome, path_of, raw
from smfix.fleet import merge as pictures
from smfix.fleet.documents import DiskObservation, HostDocument, read_document
from smfix.fleet.merge import FleetMerge


class Listed:
    """A store in memory."""

    def __init__(self, keys=1):
        self.rows = []

    def add(self, *keys, value=None):
        self.rows.append((*keys, value))

    def __iter__(self):
        return iter(sorted(self.rows))

    def count_distinct(self):
        return len({row[0] for row in self.rows})


def gathered(*documents):
    gathering = FleetMerge(Listed)
    for host, document in documents:
        gathering.add(host, read_document(raw(document)))
    return gathering


def merged(*documents):
    return gathered(*documents).picture()


def told(picture):
    return [(disk.best.vdi, disk.best.sr, disk.best.status) for disk in picture.each_disk()]


def srs(picture):
    return {one.sr: one for one in picture.each_sr()}


def views(picture):
    return [dict(host.view.statuses) for host in picture.each_host()]


def names(picture):
    return [host.name for host in picture.each_host()]


def test_nothing():
    picture = merged()
    assert (told(picture), srs(picture), picture.causes, views(picture), picture.exit) == ([], {}, {}, [], 0)


def test_a_shared_srs_disk_counts_once_and_the_strongest_word_holds():
    picture = merged(
        ("a", from_log(incident(sr=SHARED, how=outcome("refused", "shared-sr-unknown")))),
        ("b", from_log(incident(sr=SHARED, how=outcome("repaired"), first_seen="2026-11-01T00:00:00+00:00"))),
        ("c", from_log(incident(sr=SHARED, how=outcome("not-found", codes=())))),
    )
    assert told(picture) == [(BASE, SHARED, "repaired")]
    assert picture.total.disks == picture.total.groups["repaired"] == picture.causes["VHD101"].disks == 1
    assert srs(picture)[SHARED].hosts == ["a", "b", "c"]
    assert (picture.causes["VHD101"].hosts, picture.causes["VHD101"].srs) == (3, 1)
    assert srs(picture)[SHARED].sum.since.isoformat() == "2026-11-01T00:00:00+00:00"
    assert views(picture) == [{"refused": 1}, {"repaired": 1}, {"not-found": 1}]
    assert next(picture.each_host()).view.reasons == {"shared-sr-unknown": 1}
    assert picture.exit == 1


def test_the_same_disk_in_two_srs_is_two():
    picture = merged(("a", from_log(incident(sr=SR), incident(sr=SHARED))))
    assert picture.total.disks == 2


def test_eight_digits_are_the_one_disk_that_they_fit():
    for order in (1, -1):
        documents = [("a", from_log(incident(how=outcome()))), ("b", from_log(incident(vdi=BASE[:8])))]
        assert told(merged(*documents[::order])) == [(BASE, SR, "repaired")]
    both = BASE[:9] + BASE[9:].replace("0", "f")
    twins = merged(("a", from_log(incident(), incident(vdi=both), incident(vdi=BASE[:8]))))
    assert twins.total.disks == 3
    assert merged(("a", from_log(incident(), incident(vdi="1d994938-0aaa")))).total.disks == 2


def test_a_disk_without_an_sr_is_the_one_that_its_host_saw():
    seen = from_log(incident(how=outcome("refused", "in-use")), incident(vdi=BASE[:8], sr=None))
    assert merged(("a", seen)).total.disks == 1
    elsewhere = merged(("a", from_log(incident())), ("b", from_log(incident(vdi=BASE[:8], sr=None))))
    assert elsewhere.total.disks == 2
    assert None in srs(elsewhere)
    assert (elsewhere.srs, elsewhere.rows) == (1, 2)
    whole = merged(("a", from_log(incident())), ("b", from_log(incident(sr=None))))
    assert told(whole) == [(BASE, SR, "reported")]


def test_disks_without_a_name_are_told_apart_by_host_and_path():
    named = check(("/x/1.vhd", "invalid"), ("/x/2.vhd", "invalid"))
    assert merged(("a", named), ("b", named), ("a", named)).total.disks == 4


def test_images_are_counted_once():
    first = check((path_of(BASE, SHARED), "valid"), (path_of(OTHER, SHARED), "invalid"))
    second = check((path_of(OTHER, SHARED), "invalid"), (path_of(LEAF, SR), "in-use"))
    picture = merged(("a", first), ("b", second))
    assert picture.images == 3
    assert picture.total.disks == 1


def test_a_status_nobody_knows_is_left():
    document = from_log(incident(how=outcome()))
    document["incidents"][0]["outcome"]["status"] = "brand-new"
    picture = merged(("a", document))
    assert ([disk.group for disk in picture.each_disk()], picture.exit) == (["left"], 4)


def sample(**options):
    return from_log(incident(how=outcome(**options)))


def test_one_hosts_strongest_view_is_its_view():
    picture = merged(("a", check((path_of(BASE), "invalid"))), ("a", sample()), ("a", sample(status="refused")))
    assert views(picture) == [{"repaired": 1}]


def test_exit_bits():
    silent = ("x", error("unreachable"))
    assert merged(("a", sample())).exit == 1
    assert merged(("a", sample(status="valid"))).exit == 0
    assert merged(("a", sample(status="failed"))).exit == 12
    assert merged(("a", sample()), silent).exit == 9
    gathering = gathered(("a", sample()))
    gathering.add_unreadable("b", "it is empty")
    picture = gathering.picture()
    assert (picture.exit, picture.hosts, picture.silent, picture.unreadable) == (9, 2, 1, 1)
    assert [host.trouble for host in picture.each_host()] == [[], ["it is empty"]]


def test_the_most_urgent_come_first():
    picture = merged(
        ("a", from_log(incident(how=outcome()), incident(vdi=LEAF, first_seen=None), incident(vdi=OTHER))),
    )
    assert [vdi for vdi, _, _ in told(picture)] == [OTHER, LEAF, BASE]


def test_a_bug_report_names_its_hosts_itself():
    gathering = FleetMerge(Listed)
    gathering.add("archive", HostDocument("bug-report", (DiskObservation(BASE, SR, None, "reported", host="inner"),)))
    picture = gathering.picture()
    assert names(picture) == ["archive", "inner"]
    assert views(picture) == [{}, {"reported": 1}]


def test_hosts_come_by_their_names():
    assert names(merged(("b", from_log()), ("a", from_log()), ("b", from_log()))) == ["a", "b"]


def test_what_is_beyond_a_bound_is_counted(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_SIGHTS", 2)
    monkeypatch.setattr(pictures, "MOST_IMAGES", 3)
    gathering = gathered(
        ("a", from_log(incident(), incident(vdi=OTHER), incident())),
        ("b", check((path_of(BASE), "valid"), (path_of(OTHER), "valid"), (path_of(BASE), "valid"))),
        ("b", check((path_of(LEAF), "valid"))),
    )
    gathering.add(
        "b", HostDocument("bug-report", (DiskObservation(BASE, SR, None, "reported", host="inner"),), left_out=1)
    )
    picture = gathering.picture()
    assert picture.total.disks == 2
    assert picture.images == 2
    assert picture.left_out == 1 + 1 + 1 + 1
    assert names(picture) == ["a", "b", "inner"]


def test_disks_of_the_same_digits_are_bounded(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_ALIKE", 2)
    alike = [BASE[:-1] + digit for digit in "0123"]
    picture = merged(("a", from_log(*(incident(vdi=vdi) for vdi in [*alike, *alike[:2], OTHER]))))
    assert (picture.total.disks, picture.left_out) == (3, 2)


def test_words_are_bounded(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_WORDS", 2)
    vdis = [f"{number}{BASE[1:]}" for number in range(4)]
    incidents = [incident(vdi=vdi, sr=f"{vdi[0]}{SR[1:]}", kinds=[f"kind-{vdi[0]}"]) for vdi in vdis]
    picture = merged(("a", from_log(*incidents)), ("b", from_log(*incidents)))
    assert {cause: (one.disks, one.srs, one.hosts) for cause, one in picture.causes.items()} == {
        "other": (2, 2, 2),
        "kind-0": (1, 1, 2),
        "kind-1": (1, 1, 2),
    }


def test_views_of_one_disk_are_bounded(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_VIEWS", 2)
    gathering = gathered(*((name, sample()) for name in "abc"))
    for _ in range(9):
        gathering.add_unreadable("a", "why")
    picture = gathering.picture()
    (disk,) = picture.each_disk()
    assert list(disk.views) == ["a", "b"]
    assert views(picture) == [{"repaired": 1}, {"repaired": 1}, {}]
    assert len(next(picture.each_host()).trouble) == pictures.MOST_TROUBLES
