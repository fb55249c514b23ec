"""Every fuzz target over its kept inputs and some new ones; ``python -m tests.fuzz`` goes on from here, led by coverage."""

from __future__ import annotations

import os
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import CORPUS, TARGETS, known

LONG = os.environ.get("HYPOTHESIS") == "long"
PROFILE = settings(max_examples=20_000 if LONG else 200, derandomize=not LONG, deadline=None, database=None, print_blob=True)

examples = st.builds(lambda kind, rest: bytes([kind]) + rest, st.integers(128, 255), st.binary(max_size=120))


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_are_taken(name: str) -> None:
    for data in (b"", b"\x80", *known(name)):
        TARGETS[name].check(data)


@pytest.mark.parametrize("name", TARGETS)
def test_any_input_is_taken(name: str) -> None:
    @settings(PROFILE, max_examples=PROFILE.max_examples // (20 if TARGETS[name].slow else 1))
    @given(st.binary(max_size=200) | examples)
    def takes(data: bytes) -> None:
        TARGETS[name].check(data)

    takes()


@pytest.mark.parametrize("name", TARGETS)
def test_any_noise_is_taken(name: str) -> None:
    """Bytes in which every value is as likely as any other lead furthest into a walk, which a search for small ones never does."""
    target, chance = TARGETS[name], Random(7)
    for _ in range(PROFILE.max_examples // (20 if target.slow else 1)):
        target.check(chance.randbytes(chance.randint(1, target.largest)))


def test_every_kept_input_belongs_to_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)
