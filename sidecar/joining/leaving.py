"""Taking a machine out of its hub: stop, tell the hub, remove what ``join`` made. Work that is not settled is never removed.

It works without the hub, too, and then says what the hub was not told.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hub.ids import task_ref
from hub.wire.finding import Finding, fail, warn
from sidecar.doctor.state import Inventory, take_inventory, user_of
from sidecar.hub import Hub, Refusal, Unreachable
from sidecar.joining import progress
from sidecar.joining.config import is_sealed
from sidecar.joining.registration import TOKEN
from sidecar.joining.service import Service, ServiceError
from sidecar.joining.step import StepError, read_text
from sidecar.joining.unit import HEAD
from sidecar.runs.runner import Runner
from sidecar.settings import DRAIN_S, SettingsError, default_file, load
from sidecar.workspace.premises import OWN_FILES, state_faults

DRAIN_EXTRA_S = 20.0
"""How much longer than its own patience a draining sidecar is waited for."""
LOOK_S = 0.1
JOINED = ("token", "secret", "join.json", "join.log")
"""What joining keeps in the state directory, beside what any sidecar does."""
SALVAGE = "refs/agentcom/salvage/"


@dataclass(frozen=True, slots=True)
class Leaving:
    """One ``leave``. ``now``: what is still being worked on is stopped; ``purge``: the state goes, too, if nothing waits in it.

    ``config`` need not be there any more, or yet; ``drain_s`` is how long the sidecar may take to end.
    """

    state_dir: Path
    config: Path
    drain_s: float = DRAIN_S
    now: bool = False
    purge: bool = False


def find(config: Path | None, place: Path | None, default_place: Path, *, now: bool, purge: bool) -> Leaving | None:
    """What there is to leave: by the file, or without one by what ``join`` kept in its state; None when that is nothing.

    ``config`` and ``place`` (of the state) are what was asked for, None for the default. Raises :class:`SettingsError`.
    """
    file, state_dir = config or default_file(), place or default_place
    known = progress.read(state_dir / "join.json")
    if not file.exists() and known is not None and Path(known.config) != file:
        if config is not None:
            raise SettingsError(file, [f"there is no such file; {state_dir} was joined with {known.config}"])
        file = Path(known.config)
    if file.exists():
        settings = load(file)
        if place not in (None, settings.state_dir):
            raise SettingsError(file, [f"its state_dir is {settings.state_dir}, not {place}"])
        return Leaving(settings.state_dir, file, settings.drain_s, now, purge)
    kept = any((state_dir / name).exists() for name in (*JOINED, *(("install_id",) if purge else ())))
    return Leaving(state_dir, file, now=now, purge=purge) if kept else None


def check(leaving: Leaving) -> None:
    """Refuse, before anything is changed, to go while work is unsettled; raises :class:`StepError`."""
    if faults := state_faults(leaving.state_dir):
        cure = f"correct state_dir in {leaving.config}, or look at what is there"
        raise StepError([fail("state_dir", f"{leaving.state_dir}: {fault}", cure) for fault in faults])
    _refuse_unsettled(leaving, "wait until it is done")


def check_again(leaving: Leaving) -> None:
    """The same once nothing can take on more: what came in between is not stopped unsaid."""
    _refuse_unsettled(leaving, "join again, which starts the sidecar, and wait until it is done")


def _refuse_unsettled(leaving: Leaving, wait: str) -> None:
    found = take_inventory(leaving.state_dir)
    if leaving.now or found.settled:
        return
    cure = f"{wait}; or leave --now, which stops it: the hub gives it to others, what was made stays in the state directory"
    raise StepError([fail("unsettled", what, cure) for what in _unsettled(found)])


def _unsettled(found: Inventory) -> Iterator[str]:
    for agent, keys in found.held.items():
        for key in sorted(keys):
            yield f"{agent} holds {task_ref(key.task)}/{key.lease_epoch}: its result is not acknowledged by the hub"
    yield from found.unreadable


def stop(leaving: Leaving) -> str:
    """End service and sidecar; a sidecar that runs otherwise is asked to drain and waited for."""
    known = progress.read(leaving.state_dir / "join.json")
    done = []
    if known is not None and known.unit and Path(known.unit).is_file() and (read_text(Path(known.unit)) or "").startswith(HEAD):
        try:
            Service(Path(known.unit), root=os.geteuid() == 0).remove()
        except ServiceError as fault:
            raise StepError([fail("service", str(fault), fault.cure)]) from fault
        done.append("the service is stopped and removed")
    if (pid := user_of(leaving.state_dir)) is not None:
        _end(leaving, pid)
        done.append("the sidecar has drained")
    return "; ".join(done) or "no sidecar was running"


def _end(leaving: Leaving, pid: int) -> None:
    if not pid:
        raise StepError([fail("sidecar", "one runs here, and nobody says which process it is", "stop it, and leave again")])
    with contextlib.suppress(ProcessLookupError):
        _ask_to_end(leaving, pid)
    give_up = time.monotonic() + leaving.drain_s + DRAIN_EXTRA_S
    while user_of(leaving.state_dir) is not None:
        if time.monotonic() > give_up:
            raise StepError([fail("sidecar", f"it does not end (pid {pid})", f"kill {pid}, and leave again")])
        time.sleep(LOOK_S)


def _ask_to_end(leaving: Leaving, pid: int) -> None:
    handle = os.pidfd_open(pid)
    try:
        if user_of(leaving.state_dir) == pid:  # still: from here on the handle is this process, and never another one
            signal.pidfd_send_signal(handle, signal.SIGTERM)
    finally:
        os.close(handle)


async def stop_runs(leaving: Leaving) -> str:
    """End every run of this state directory: from here on nobody could report it."""
    stopped = []
    for root in sorted((leaving.state_dir / "agents").glob("*/runs")):
        stopped += await Runner(root).stop_strangers(set())
    return f"{len(stopped)} stopped" if stopped else "none"


def tell_hub(leaving: Leaving) -> tuple[str, Finding | None]:
    """Give the machine's own token back. What the hub could not be told is a finding, not a failure."""
    known = progress.read(leaving.state_dir / "join.json")
    token = (read_text(leaving.state_dir / "token") or "").strip()
    if known is None or not TOKEN.fullmatch(token) or token.split("_")[1] != known.token_id:
        return "no token of a join is here, so none was given back", None
    revoke = f"on the hub: agentcom token revoke {known.token_id}"
    try:
        with Hub(known.hub, token) as hub:
            hub.ask("POST", "/leave")
    except Unreachable as fault:
        return "the hub was not told", warn("hub", f"its token is still good: {fault}", revoke)
    except Refusal as refusal:
        if refusal.status == 401:
            return "the hub had revoked the token already", None
        return "the hub was not told", warn("hub", f"it refuses: {refusal}", revoke)
    return f"token {known.token_id} is revoked", None


def remove(leaving: Leaving) -> list[str]:
    """Remove what ``join`` made, and with ``purge`` the state; what stays, and why, in words.

    The file goes last: with it a ``leave`` that is killed goes on when it is called again.
    """
    said = []
    known = progress.read(leaving.state_dir / "join.json")
    for name in JOINED:
        (leaving.state_dir / name).unlink(missing_ok=True)
    said.append(f"removed the token in {leaving.state_dir}")
    said += _remove_state(leaving)
    if not leaving.config.exists():
        pass
    elif is_sealed(read_text(leaving.config) or ""):
        leaving.config.unlink()
        said.append(f"removed {leaving.config}")
    else:
        said.append(f"kept {leaving.config}, which was edited or is none of join's")
    if known is not None and known.user:
        said.append(f"kept the user {known.user} and its home; to remove both: userdel --remove {known.user}")
    return said


def _remove_state(leaving: Leaving) -> list[str]:
    place = leaving.state_dir
    reasons = [*_unsettled(take_inventory(place)), *_salvage(place)]
    if reasons:
        why = [f"kept {place}, because it holds what is nowhere else:", *(f"  {reason}" for reason in reasons)]
        return [*why, f"  to give that up: rm -r {place}"] if leaving.purge else why
    if not leaving.purge:
        return [f"kept {place}: caches, and the identity of this installation, for a later join; to remove it: rm -r {place}"]
    return _purge(place)


def _purge(place: Path) -> list[str]:
    """Remove what sidecar and join keep there, by name; what else somebody has put there stays."""
    for name in ("agents", "workspaces"):
        if (place / name).is_dir():
            shutil.rmtree(place / name)
    for name in OWN_FILES:
        for file in (place / name, place / f".{name}.new"):
            file.unlink(missing_ok=True)
    others = sorted(path.name for path in place.iterdir())
    if others:
        return [f"kept {place}, emptied of what was the sidecar's: it also holds {', '.join(others)[:500]}"]
    place.rmdir()
    return [f"removed {place}"]


def _salvage(place: Path) -> Iterator[str]:
    """Salvage refs of the caches, read as files: no git has to work for that."""
    for cache in sorted((place / "workspaces" / "repos").glob("*.git")):
        loose = [str(ref.relative_to(cache)) for ref in (cache / SALVAGE).rglob("*") if ref.is_file()]
        packed = [line.partition(" ")[2] for line in (read_text(cache / "packed-refs") or "").splitlines() if SALVAGE in line]
        for ref in sorted({*loose, *packed}):
            yield f"salvaged work {ref} in {cache}"
