"""The Ansible collection as far as it is told without Ansible; `make ansible` shows the whole on hosts."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess

import jinja2
import pytest

import ansible_hosts
from smfix import __version__
from world import ROOT, SR

COLLECTION = ROOT / "ansible" / "ansible_collections" / "smfix" / "remediation"
ROLES = sorted((COLLECTION / "roles").iterdir())
MASTER = "aaaaaaaa-0000-4000-8000-000000000001"


def test_its_version_is_smfixs():
    assert f"\nversion: {__version__}\n" in (COLLECTION / "galaxy.yml").read_text()


def test_hosts_run_nothing_that_needs_python():
    """What runs on a host is `raw`; every other module that acts is delegated to the controller, or runs there."""
    on_controller = {"assert", "debug", "fail", "include_tasks", "set_fact"}
    seen = set()
    for path in COLLECTION.glob("roles/*/tasks/*.yml"):
        for task in re.split(r"^ *- name: ", path.read_text(), flags=re.MULTILINE)[1:]:
            modules = re.findall(r"^ +ansible\.builtin\.(\w+):", task, re.MULTILINE)
            seen.update(modules)
            here = path.parent.parent.name == "report" or "delegate_to: localhost" in task
            assert here or set(modules) <= {"raw", *on_controller}, f"{path}: {task.splitlines()[0]}"
    assert {"raw", "command", "copy"} <= seen


def probe(folder, *, host: str | None, shared: str = SR, works: bool = True) -> subprocess.CompletedProcess[str]:
    """The role's question to a host, with an `xe` (host: this host's UUID) or without one."""
    template = (COLLECTION / "roles" / "remediate" / "templates" / "probe.sh.j2").read_text()
    environment = jinja2.Environment(autoescape=False)
    environment.filters["quote"] = shlex.quote
    script = environment.from_string(template).render(smfix_remote=str(folder / "smfix"))
    script = script.replace("/etc/xensource-inventory", str(folder / "inventory"))
    tools = folder / "bin"
    tools.mkdir()
    for tool in ("cut", "sha256sum", "tr"):
        os.symlink(shutil.which(tool), tools / tool)
    if host is not None:
        (folder / "inventory").write_text(f"INSTALLATION_UUID='{host}'\n")
        answers = f"pool-list) echo {MASTER} ;; sr-list) echo {shared} ;;" if works else "*) exit 1 ;;"
        (tools / "xe").write_text(f"#!/bin/sh\ncase $1 in {answers} esac\n")
        (tools / "xe").chmod(0o755)
    line = ["/bin/sh", "-c", script]
    return subprocess.run(line, capture_output=True, text=True, check=False, env={"PATH": str(tools)})


def test_a_host_without_xe_leaves_nothing(tmp_path):
    done = probe(tmp_path, host=None)
    assert (done.returncode, done.stdout, done.stderr) == (0, "smfix-sum none\n", "")


def test_a_pools_master_leaves_nothing(tmp_path):
    assert probe(tmp_path, host=MASTER).stdout == "smfix-sum none\n"


def test_a_member_leaves_the_shared_srs(tmp_path):
    other = SR.replace("7", "8")
    done = probe(tmp_path, host=MASTER.replace("1", "2"), shared=f"{SR},{other}")
    assert done.stdout == f"smfix-sum none\nsmfix-leave {SR}\nsmfix-leave {other}\n"


def test_a_pool_that_does_not_answer_is_no_licence(tmp_path):
    assert probe(tmp_path, host=MASTER, works=False).returncode == 3


def test_the_sum_of_the_executable(tmp_path):
    (tmp_path / "smfix").write_text("x")
    (tmp_path / "smfix").chmod(0o755)
    assert probe(tmp_path, host=None).stdout.startswith("smfix-sum 2d711642b726b044")


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_variable_is_told(role):
    told = (COLLECTION / "README.md").read_text()
    for name in re.findall(r"^(smfix_\w+):", (role / "defaults" / "main.yml").read_text(), re.MULTILINE):
        assert f"`{name}`" in told, name


def test_the_hosts_of_the_show_have_damaged_disks_of_their_own():
    one, other = ansible_hosts.damaged(1), ansible_hosts.damaged(2)
    assert one != other
    assert one[-512:] == other[-512:] == b"x" * 512
