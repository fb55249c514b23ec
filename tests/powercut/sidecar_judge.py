"""What a power cut leaves of a sidecar's state directory, read by the sidecar's own code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hub.ids import LeaseEpoch, TaskId
from hub.wire import frames
from sidecar.core import effects as fx
from sidecar.core.holder import Holder
from sidecar.core.records import Key, Woken
from sidecar.journal import Journal, JournalError
from tests.powercut.sidecar_work import AGENT, STATE
from tests.powercut.tape import Op, Step

RUNS = f"{STATE}/agents/{AGENT}/runs/"


def _begun(steps: Sequence[Step]) -> dict[str, Key]:
    """The runs whose directories were made: a shim follows, and with it an agent. Each must be known before."""
    names = [step.path.removeprefix(RUNS) for step in steps if step.op is Op.MADE and step.path.startswith(RUNS)]
    return {name: Key(TaskId(int(name.split("-")[0])), LeaseEpoch(int(name.split("-")[1]))) for name in names}


def judge_sidecar(root: Path, told: Sequence[Step]) -> list[str]:
    """What is wrong with what is left beneath ``root``, given what was told before: broken files, and promises that are not kept."""
    promises = [step.promise for step in told if step.op is Op.MARK]
    home = root / STATE / "agents" / AGENT
    if not home.exists():
        return [promise["said"] for promise in promises]
    try:
        journal = Journal(home / "journal")
    except JournalError as fault:
        return [str(fault)]
    held = list(journal.records)
    journal.close()
    holder = Holder(frames.Hello(versions=(), agent_id=AGENT, install_id="i", boot_id="b"), runtime="mock")
    faults = [f"{effect} at the start" for effect in holder.restore(held) if isinstance(effect, fx.Wake)]
    settled = {Key(*promise["settled"]) for promise in promises if "settled" in promise}
    woken = {record.run_id for record in held if isinstance(record, Woken)}
    for run, key in _begun(told).items():
        if key not in settled and run not in woken:
            faults.append(f"run {run} began, and is not known")
    name = root / STATE / "install_id"
    for promise in promises:
        match promise:
            case {"install_id": who}:
                kept = name.exists() and name.read_text().strip() == who
            case {"held": [task, epoch], **more}:
                holding = holder.holding(key := Key(task, epoch))
                kept = key in settled or (
                    holding is not None
                    and ("result" not in more or (holding.result is not None and holding.result.sha256 == more["result"]))
                )
            case {"obeyed": cid}:
                kept = cid in holder._seen
            case _:
                kept = True  # it says that something is settled
        if not kept:
            faults.append(promise["said"])
    return faults
