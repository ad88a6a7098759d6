"""Names of disks: what a path or a short name says, and nothing more."""

from __future__ import annotations

import re

import pytest

from smfix.smlog.parse.disk_names import (
    VDI_NAME,
    image_path,
    image_paths,
    is_uuid,
    linstor_volume,
    short_name,
    volume_path,
)
from smlog_text import LV, PATH, SR, VDI

MAPPER = f"/dev/mapper/VG_XenStorage--{SR.replace('-', '--')}-VHD--{VDI.replace('-', '--')}"


@pytest.mark.parametrize(
    ("path", "vdi", "sr", "copy", "temporary"),
    [
        (PATH, VDI, SR, False, False),
        (PATH.upper().replace("/RUN/SR-MOUNT", "/run/sr-mount").replace(".VHD", ".vhd"), VDI, SR, False, False),
        (f"/var/run/sr-mount/{SR}/{VDI}.vhd", VDI, SR, False, False),
        (f"/run/sr-mount/{SR}/{VDI}.qcow2", VDI, SR, False, False),
        (f"/run/sr-mount/{SR}/OLD_{VDI}.vhd", VDI, SR, False, True),
        (f"/run/sr-mount/{SR}/DELETED_{VDI}.vhd", VDI, SR, False, True),
        (f"/var/run/sr-mount/{SR}/tmpFco2q9/{VDI}.vhd", VDI, SR, True, False),
        (f"/images/tmpFco2q9/{VDI}.vhd", VDI, None, True, False),
        (LV, VDI, SR, False, False),
        (LV.replace("VHD-", "LV-"), VDI, SR, False, False),
        (LV.replace("VHD-", "QCOW2-"), VDI, SR, False, False),
        (LV.replace("VHD-", "VHD-OLD_"), VDI, SR, False, True),
        (MAPPER, VDI, SR, False, False),
        (f"VHD-{VDI}", VDI, None, False, False),
        (f"{VDI}.vhd", VDI, None, False, False),
        (f"/somewhere/{VDI}.vhd", VDI, None, False, False),
        ("/dev/drbd/by-res/xcp-volume-1/0", None, None, False, False),
    ],
)
def test_what_a_path_says(path, vdi, sr, copy, temporary):
    image = image_path(path)
    assert image is not None
    assert (image.path, image.vdi, image.sr) == (path, vdi, sr)
    assert (image.copy, image.temporary) == (copy, temporary)


@pytest.mark.parametrize(
    "path",
    [
        "/run/sr-mount/x/y.vhd",
        f"/dev/VG_XenStorage-{SR}/coalesce_{VDI}_1",
        f"{PATH}.bak",
        "",
        "/",
        "/dev/drbd/by-res/x/y",
    ],
)
def test_what_is_no_image(path):
    assert image_path(path) is None


def test_formats():
    assert [image_path(path).format for path in (PATH, f"/x/{VDI}.qcow2", LV, LV.replace("VHD-", "QCOW2-"))] == [
        "vhd",
        "qcow2",
        "vhd",
        "qcow2",
    ]


def test_paths_in_a_line_end_where_quotes_do():
    text = f"/etc/hosts error opening {PATH}: -22 and ['{LV}', \"{PATH}\"] (x={LV})"
    assert [image.path for image in image_paths(text)] == [PATH, LV, PATH, LV]


def test_a_folder_of_the_sr_holds_copies():
    assert image_path(f"/var/run/sr-mount/{SR}/os-images/instance-1/{VDI}.vhd")[1:4] == (VDI, SR, True)
    for folder in (".", "..", "%2e%2e", "a b"):
        assert image_path(f"/var/run/sr-mount/{SR}/{folder}/{VDI}.vhd")[1:4] == (VDI, None, False)


@pytest.mark.parametrize("before", [".", "..", "x", "x/..", "~", "a-", SR])
def test_a_relative_name_is_no_path(before):
    """What stands before its slash is missing: "./UUID.vhd" is a parent locator."""
    assert [*image_paths(f"name : {before}/{VDI}.vhd")] == []
    assert [*image_paths(f"name : {before}/VG_XenStorage--{SR.replace('-', '--')}-VHD--{VDI.replace('-', '--')}")] == []


@pytest.mark.parametrize("before", ["", "vhd:", "vhd=", "'", '"', "(", "[", "aio:", "file="])
def test_an_absolute_name_is_a_path(before):
    assert [image.path for image in image_paths(f"name {before}{PATH}")] == [PATH]


def test_is_uuid():
    assert is_uuid(SR)
    assert not is_uuid(SR[:-1])
    assert not is_uuid(SR + "\n")


def test_linstor_volume():
    assert linstor_volume("/dev/drbd/by-res/xcp-volume-1/0")
    assert not linstor_volume(PATH)


@pytest.mark.parametrize(
    ("name", "digits", "temporary"),
    [
        ("*1d994938(40.00G/14.27G)", "1d994938", False),
        ("1D994938(40.000G?)", "1d994938", False),
        ("1d994938(??)", "1d994938", False),
        ("*85ff84a8[VHD](65.000G///33.836G|n)", "85ff84a8", False),
        ("*85ff84a8[VHD](8.00G//8.02G|no)", "85ff84a8", False),
        ("1234abcd(2.000G)[RAW]", "1234abcd", False),
        ("dce4b0fc(2.000G/170.336M?)[qcow2]", "dce4b0fc", False),
        ("OLD_b545[VHD](8.000G//8.020G|n)", "b545", True),
        ("*DELETED_(8.000G)", "", True),
        ("1d994938", "1d994938", False),
    ],
)
def test_short_names_of_every_era(name, digits, temporary):
    found = re.fullmatch(VDI_NAME, name)
    assert found
    short = short_name(found["short"])
    assert (short.digits, short.temporary) == (digits, temporary)


@pytest.mark.parametrize("name", ["*1d99493(40.00G)", "OLD_b54(1G)", "(40G)", "xyz12345(1G)", "1d994938(40(G)"])
def test_what_is_no_short_name(name):
    assert not re.fullmatch(VDI_NAME, name)


def test_the_path_of_a_volume():
    assert volume_path(f"VHD-{VDI}", SR) == LV
    assert volume_path(f"VHD-OLD_{VDI}", SR) == LV.replace("VHD-", "VHD-OLD_")
    assert volume_path(f"VHD-{VDI}", None) is None
    assert volume_path(f"{VDI}.vhd", SR) is None
    assert volume_path(f"/x/VHD-{VDI}", SR) is None
