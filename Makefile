# Each target makes the virtual environment it needs, from Python >= 3.11, make and a package index.
# PYTHON=... chooses another interpreter, VENV=... another folder.
VENV ?= .venv
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := $(VENV)/bin
# Programs that are not tests use the helpers of the tests.
TOOL := PYTHONPATH=tests/support:tools $(BIN)/python

.PHONY: help demo test lint format dist dist-check packages packages-check ansible bench-artefacts release-check bench bench-logs soak matrix fuzz docs reference clean

help:
	@echo 'make demo    damaged disks in a throw-away SR, found in their log and repaired'
	@echo 'make test    all tests, then 100 % branch coverage of the pure modules'
	@echo 'make lint    ruff, ruff format, mypy --strict, the English of the documentation'
	@echo 'make dist    dist/smfix: one file that runs on any x86-64 Linux, dom0 too; its SHA-256'
	@echo 'make dist-check  builds it twice, and proves it in an empty chroot (root)'
	@echo 'make packages    sdist, wheel, RPM, .deb (packages-check: installed, upgraded and removed in bare roots)'
	@echo 'make ansible  a pool in namespaces, driven by two versions of ansible-core (root); docs/evidence/ansible-pool.md'
	@echo 'make release-check  all of lint, test, docs, dist-check, packages-check, ansible (root)'
	@echo 'make soak    ten minutes of a log at full speed, rotated, its follower killed; docs/evidence/soak.md'
	@echo 'make matrix  every kind of damage on every base, smfix beside the tools of today; docs/evidence/matrix.md'
	@echo 'make fuzz    coverage-guided fuzzing of everything that reads bytes'
	@echo 'make bench   side by side with the tools people use today (make bench-logs: 1 GiB of SMlog)'
	@echo 'make docs    the documentation site, into build/site (opens from the folder); a dead link is a failure'

demo: $(VENV)/.run
	$(BIN)/smfix demo

# The gate is a step of its own: its list of modules is explicit (tools/purity.py).
test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --dist loadfile --cov --cov-report=
	$(BIN)/python tools/purity.py

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/style.py --quiet --skip docs/reference/commands.md --skip docs/reference/findings.md README.md ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs tools/style.py tools/compare_cli.py ansible

format: $(VENV)/.test
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: $(VENV)/.run
	$(TOOL) tools/benchmarks/run.py

bench-logs: $(VENV)/.run
	$(TOOL) tools/benchmarks/logs.py

soak: $(VENV)/.test
	$(TOOL) tools/soak.py --seconds 600 --write docs/evidence/soak.md

# Needs vhd-util, qemu-img and qemu-io. SMFIX_MATRIX_PRELOAD: see docs/evidence/matrix.md.
matrix: $(VENV)/.test
	$(TOOL) -m matrix --report docs/evidence/matrix.md
	$(TOOL) -m matrix.combined --report docs/evidence/matrix.md
	$(TOOL) -m matrix.fresh --report docs/evidence/matrix.md
	$(TOOL) -m matrix.interruptions --report docs/evidence/matrix.md

# A million executions of each small reader, a hundred thousand of each reader of whole images.
FUZZ = $(TOOL) -m fuzz
fuzz: $(VENV)/.fuzz
	@mkdir -p build/fuzz/structs build/fuzz/journal build/fuzz/image build/fuzz/plan
	$(FUZZ) structs -runs=1000000 -max_len=1536 build/fuzz/structs tools/fuzz/seeds/structs
	$(FUZZ) journal -runs=1000000 -max_len=4096 build/fuzz/journal tools/fuzz/seeds/journal
	$(FUZZ) image -runs=100000 -max_len=96 build/fuzz/image tools/fuzz/seeds/image
	$(FUZZ) plan -runs=100000 -max_len=96 build/fuzz/plan tools/fuzz/seeds/plan

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Made from the code: commands, findings, JSON, manual pages, the index of decisions. A test checks that they are current.
reference: $(VENV)/.run
	$(BIN)/python docs/generate.py

# Built from Debian's Python: staticx refuses one whose libraries name a folder of their own (pyenv, conda).
DIST_PYTHON ?= /usr/bin/python3
TOOLS := build/tools
dist: dist/smfix
# The commit's time is in the file: another commit makes another file.
FROZEN_BY := $(addprefix packaging/,make_dist.py third_party.py start.py smfix.pyinstaller.spec)
dist/smfix: $(TOOLS)/.stamp $(FROZEN_BY) $(wildcard .git/logs/HEAD)
	$(TOOLS)/bin/python packaging/make_dist.py

# As root: a chroot with nothing but the file, /tmp and /proc. Builds it a second time, to compare.
dist-check: dist
	$(TOOLS)/bin/python packaging/make_dist.py --dist build/again --work build/again-work
	$(TOOLS)/bin/python packaging/verify.py --again build/again/smfix --write build/dist-check.md

# sdist, wheel, RPM, .deb. Needs Debian's rpm and dpkg-dev.
packages: dist
	$(TOOLS)/bin/python packaging/make_packages.py

# As root: installed, upgraded and removed in bare roots. Needs debootstrap, and a mirror of Debian.
packages-check: packages
	$(TOOLS)/bin/python packaging/verify_packages.py --write build/packages-check.md

# As root. 2.16 is the last ansible-core that speaks to the Python of dom0, 2.19 the newest that Python 3.11 runs.
ANSIBLE_RECORD ?= build/ansible-pool.md
ansible: dist $(VENV)/.test build/ansible-2.16/.stamp build/ansible-2.19/.stamp
	cd ansible/ansible_collections/smfix/remediation && \
		PATH="$(CURDIR)/build/ansible-2.19/bin:$$PATH" ANSIBLE_COLLECTIONS_PATH="$(CURDIR)/ansible" \
		ANSIBLE_HOME="$(CURDIR)/build/ansible-home" ansible-lint -q --nocolor
	$(TOOL) tools/ansible_hosts.py --ansible build/ansible-2.16/bin --ansible build/ansible-2.19/bin \
		--write $(ANSIBLE_RECORD)

build/ansible-%/.stamp:
	@test -x $(@D)/bin/python || '$(PYTHON)' -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check 'ansible-core==$*.*' ansible-lint
	@touch $@

bench-artefacts: packages $(VENV)/.run
	$(TOOL) tools/benchmarks/artefacts.py

# All checks before a release, in one go; as root on Debian. Each is a target of its own.
RELEASE_CHECKS ?= lint test docs reference dist-check packages-check ansible
release-check:
	@test "$$(id -u)" = 0 || { echo 'release-check needs root: chroots and bare roots are part of it' >&2; exit 1; }
	@test -z "$$(git status --porcelain)" || { echo 'release-check needs a clean work tree' >&2; exit 1; }
	@for check in $(RELEASE_CHECKS); do \
		echo "== make $$check"; $(MAKE) --no-print-directory $$check || { echo "release-check: $$check failed" >&2; exit 1; }; \
	done
	@test -z "$$(git status --porcelain)" || { echo 'release-check: generated files were out of date:' >&2; \
		git status --short >&2; exit 1; }
	@echo '== all checks passed'

# smfix is installed as a copy, so that the frozen files are those of the wheel.
$(TOOLS)/.stamp: packaging/requirements.txt pyproject.toml $(shell find smfix -type f -not -name '*.pyc')
	@test -x $(TOOLS)/bin/python || $(DIST_PYTHON) -m venv $(TOOLS) || \
		{ echo 'on Debian: apt-get install python3-venv python3-dev binutils' >&2; exit 1; }
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check -r packaging/requirements.txt
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check '.[xapi]'
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps .
	@touch $@

clean:
	rm -rf $(VENV) build dist .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@test -n '$(PYTHON)' || { echo 'smfix needs Python 3.11 or later: set PYTHON=...' >&2; exit 1; }
	@'$(PYTHON)' -m venv '$(VENV)' || { echo "on Debian: apt-get install python3-venv" >&2; exit 1; }

# The stamps say which set of packages the environment holds; a changed pyproject asks again.
$(VENV)/.run: pyproject.toml $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/.run

$(VENV)/.fuzz: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=2.3'
	@touch $@

$(VENV)/.docs: pyproject.toml $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@ $(VENV)/.run
