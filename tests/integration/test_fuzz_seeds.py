"""The fuzzing targets without the fuzzer: every committed seed, some chance, and what the fuzzer once found."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fuzz.targets import TARGETS

SEEDS = Path(__file__).resolve().parents[2] / "tools" / "fuzz" / "seeds"
ROUNDS = {"structs": 300, "journal": 300, "image": 60, "plan": 25}


@pytest.mark.parametrize("path", sorted(SEEDS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_seed_breaks_no_promise(path):
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_chance_breaks_no_promise(name):
    chance = random.Random(f"fuzz {name}")
    seeds = [path.read_bytes() for path in sorted((SEEDS / name).iterdir())]
    for _ in range(ROUNDS[name]):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        TARGETS[name](bytes(data) + chance.randbytes(chance.randrange(12)))


def test_the_seeds_are_small_and_complete():
    assert {path.name for path in SEEDS.iterdir()} == set(TARGETS)
    assert sum(path.stat().st_size for path in SEEDS.glob("*/*")) < 64 << 10
