"""What was asked for, and the wrapping of functions by it."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import os
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.failpoints.seams import Seam

VARIABLES = POINTS, SEED, LOG, TOKEN = tuple(f"AGENTCOM_FAILPOINTS{what}" for what in ("", "_SEED", "_LOG", "_TOKEN"))
_ORDER = re.compile(r"(?P<name>[a-z_.]+):(?P<action>kill|error|delay\((?P<ms>\d+)\))(?:@(?P<nth>\d+))?(?:%(?P<chance>[\d.]+))?")


class UnknownPoint(ValueError):
    """What was asked for is no failpoint, or cannot be done there."""


@dataclass(slots=True)
class Point:
    """One failpoint that is switched on; ``fault`` makes what ``error`` raises."""

    name: str
    action: str
    delay_s: float
    nth: int | None
    chance: float | None
    fault: Callable[[], BaseException] | None
    dice: random.Random
    log: Path | None
    token: Path | None = None
    reached: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def pull(self) -> float:
        """The point is reached: die, raise, or say for how many seconds to wait here."""
        with self.lock:
            self.reached += 1
            fires = self.reached == self.nth if self.nth is not None else True
            if self.chance is not None:
                fires = fires and self.dice.random() < self.chance
        if not fires or not self._has_leave():
            return 0.0
        if self.log is not None:
            with self.log.open("a") as file:  # one short write with O_APPEND
                file.write(f"{self.name} {self.action} {os.getpid()} {time.time_ns() // 1000} {sys.argv[-1]}\n")
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.action == "error":
            assert self.fault is not None
            raise self.fault()
        return self.delay_s

    def _has_leave(self) -> bool:
        """Whether it may happen: where there is a token it is taken away, and what happened before does not happen again."""
        if self.token is None:
            return True
        if not self.token.exists() or (self.log is not None and self.name in _happened(self.log)):
            return False
        try:
            self.token.unlink()
        except FileNotFoundError:
            return False
        return True


def _happened(log: Path) -> set[str]:
    return {line.split()[0] for line in log.read_text().splitlines()} if log.exists() else set()


Points = Mapping[str, Point]


def read(environ: Mapping[str, str], seams: Iterable[Seam]) -> Points:
    """The points an environment asks for, by name; raises :class:`UnknownPoint`."""
    faults = {name: fault for seam in seams for name, fault in seam.faults().items()}
    log, token = environ.get(LOG), environ.get(TOKEN)
    found: dict[str, Point] = {}
    for order in filter(None, environ.get(POINTS, "").split(",")):
        match = _ORDER.fullmatch(order.strip())
        if match is None or match["name"] not in faults:
            raise UnknownPoint(f"{order!r} is no failpoint; see --list")
        name, action = match["name"], match["action"].partition("(")[0]
        if action == "error" and faults[name] is None:
            raise UnknownPoint(f"{name} has no natural fault: kill or delay it")
        found[name] = Point(
            name=name,
            action=action,
            delay_s=int(match["ms"] or 0) / 1000,
            nth=int(match["nth"]) if match["nth"] else None,
            chance=float(match["chance"]) if match["chance"] else None,
            fault=faults[name],
            dice=random.Random(f"{environ.get(SEED, '')} {name}"),
            log=Path(log) if log else None,
            token=Path(token) if token else None,
        )
    return found


def install(points: Points, seams: Iterable[Seam]) -> None:
    """Wrap the seams that have a point in ``points``; the others stay as they are."""
    for seam in seams:
        if points.keys() & seam.faults().keys():
            _replace(seam, points)


def locate(target: str) -> tuple[Any, str, Any]:
    """Where a seam's function lives: its module or class, its name there, and what is there (also a ``staticmethod``)."""
    module, _, path = target.partition(":")
    *outer, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for step in outer:
        owner = getattr(owner, step)
    return owner, name, owner.__dict__[name]


def _replace(seam: Seam, points: Points) -> None:
    owner, name, found = locate(seam.target)
    plain = found.__func__ if isinstance(found, staticmethod) else found
    wrapped = _with_argument(plain, seam, points) if seam.argument is not None else _wrap(plain, seam, points)
    setattr(owner, name, staticmethod(wrapped) if isinstance(found, staticmethod) else wrapped)
    if inspect.ismodule(owner):  # whoever imported the function by name has a reference of its own
        for module in [module for at, module in sys.modules.items() if at.partition(".")[0] in {"hub", "sidecar"}]:
            for held, value in list(vars(module).items()):
                if value is plain:
                    setattr(module, held, wrapped)


def _with_argument(plain: Any, seam: Seam, points: Points) -> Any:
    """Wrap not the function but the callable that it is given."""

    @functools.wraps(plain)
    async def through(*args: Any) -> Any:
        given = list(args)
        given[seam.argument] = _wrap(given[seam.argument], seam, points, args)
        return await plain(*given)

    return through


def _wrap(plain: Any, seam: Seam, points: Points, outer: tuple[Any, ...] = ()) -> Any:
    def point(args: tuple[Any, ...], moment: str) -> Point | None:
        name = seam.name_at(outer + args, moment)
        return points.get(name) if name is not None else None

    @functools.wraps(plain)
    async def through_async(*args: Any, **kwargs: Any) -> Any:
        if (before := point(args, "before")) is not None:
            await asyncio.sleep(before.pull())
        value = await plain(*args, **kwargs)
        if (after := point(args, "after")) is not None:
            await asyncio.sleep(after.pull())
        return value

    @functools.wraps(plain)
    def through(*args: Any, **kwargs: Any) -> Any:
        if (before := point(args, "before")) is not None:
            time.sleep(before.pull())
        value = plain(*args, **kwargs)
        if (after := point(args, "after")) is not None:
            time.sleep(after.pull())
        return value

    return through_async if inspect.iscoroutinefunction(plain) else through
