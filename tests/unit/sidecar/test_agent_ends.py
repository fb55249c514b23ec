"""An agent's loops end when they are cancelled, also in the very moment in which something happens."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from sidecar.agent import Agent


@pytest.mark.parametrize("turns", range(5))
async def test_its_clock_does_not_miss_its_end_because_something_happens(turns: int) -> None:
    """``asyncio.wait_for`` of Python 3.11 forgets a cancellation that comes with what it waited for: a drain then never ended."""
    agent: Any = Agent.__new__(Agent)
    agent.holder = SimpleNamespace(due_us=None)
    agent._clock_us = lambda: 0
    agent._ticking = asyncio.Event()
    keeping = asyncio.create_task(agent._keep_time())
    for _ in range(3):
        await asyncio.sleep(0)
    agent._ticking.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    keeping.cancel()
    done, _ = await asyncio.wait({keeping}, timeout=1)
    if not done:
        keeping.cancel()
    assert done
