"""A real hub at work while its writes are recorded; whoever asks it something marks the answer as a promise when it is there."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2

from hub.ids import ControlKind, Outcome, Scope
from hub.wire import frames
from tests.powercut.tape import Recording, Tape
from tests.support.living_hub import PATIENT, LivingHub, living_hub
from tests.support.reviewed import a_change_that_waits

CLONES = "repositories"
"""Clones of remotes, which the hub can make again. Their files are git's to write, and not recorded."""
SMALL = {"AGENTCOM_STORAGE_RESERVE_MB": "1"}
"""What only takes room."""
SYNC_DELAY_US = 500
WAIT_S = 30.0


def record_hub(place: Path, *, rounds: int, durability: str = "full") -> Tape:
    """Start a hub on an empty directory, have it do ``rounds`` of everything, and end it in order."""
    root = place / "root"
    root.mkdir()
    recording = Recording(root, place / "tape", only="hub", skip=CLONES, sync_delay_us=SYNC_DELAY_US)
    with living_hub(root, {**PATIENT, **SMALL, **recording.environ, "AGENTCOM_DURABILITY": durability}) as hub:
        for name in ("admin", "operator", "agent"):
            recording.mark(f"the first {name} token", opens=hub.tokens[name])
        with _watching(hub, recording):
            _merge(hub, recording)
            for number in range(rounds):
                _round(hub, recording, number)
            backup = hub.made("POST", "/backups")["name"]
            recording.mark(f"backup {backup}", backup=backup)
    return recording.tape()


def _round(hub: LivingHub, recording: Recording, number: int) -> None:
    """Tasks that end well, ask, are cancelled and wait; a token that comes and goes; an agent that leaves and comes back."""
    agent = f"w{number % 3}"
    peer = hub.peer(agent)
    _row(recording, f"session {peer.epoch} of {agent}", "agent_session WHERE agent = ? AND epoch >= ?", agent, peer.epoch)
    _finish(hub, recording, peer, agent, asks=number % 2 == 1)
    waiting = _submit(hub, recording, hold=True, title=f"waits {number}", idempotency_key=f"k{number}")
    if number % 3 == 0:
        hub.made("POST", f"/tasks/{waiting}/cancel", {})
        _row(recording, f"{waiting} cancelled", "task WHERE n = ? AND state = 'cancelled'", _n(waiting))
    issued = hub.made("POST", "/tokens", {"name": f"t{number}", "scopes": [Scope.OBSERVER]})
    recording.mark(f"token {issued['id']}", opens=issued["token"])
    if number % 2:
        recording.mark("it may end from now on", ends=issued["token"])
        hub.made("DELETE", f"/tokens/{issued['id']}")
        recording.mark(f"token {issued['id']} revoked", closed=issued["token"])
    peer.close()


def _finish(hub: LivingHub, recording: Recording, peer: Any, agent: str, *, asks: bool) -> None:
    task = _submit(hub, recording, assign_to=agent, type="research", description="x" * 9000)
    assign = peer.hear(frames.Assign)
    at: dict[str, Any] = {"task": assign.task, "lease_epoch": assign.lease_epoch}
    fence = (assign.task, assign.lease_epoch)
    _row(recording, f"{task} assigned", "attempt WHERE task = ? AND lease_epoch = ?", *fence)
    _row(recording, f"fence of {task}", "task WHERE n = ? AND lease_epoch >= ?", *fence)
    peer.say(frames.Accept(id=2, **at))
    peer.hear(frames.Accepted)
    _row(recording, f"{task} accepted", "attempt WHERE task = ? AND lease_epoch = ? AND accepted_at IS NOT NULL", *fence)
    if asks:
        peer.say(frames.Question(id=3, qid="q", text="which?", **at))
        peer.hear(frames.Ok)
        _row(recording, f"{task} asks", "question WHERE task = ? AND lease_epoch = ?", *fence)
        hub.made("POST", f"/tasks/{task}/answer", {"qid": "q", "text": "this"})
        _row(recording, f"{task} answered", "question WHERE task = ? AND lease_epoch = ? AND answer = 'this'", *fence)
        control = peer.hear(frames.Control)
        assert control.kind is ControlKind.ANSWER
        _row(recording, f"control {control.cid}", "control WHERE cid = ?", control.cid)
    peer.say(frames.Result(id=4, outcome=Outcome.SUCCEEDED, output="done", sha256="ab" * 32, **at))
    verdict = peer.hear(frames.ResultAck).verdict
    found = "attempt WHERE task = ? AND lease_epoch = ? AND verdict = ? AND outcome = 'succeeded'"
    _row(recording, f"{task} {verdict}", found, *fence, verdict)
    _row(recording, f"output of {task}", "result WHERE task = ? AND lease_epoch = ? AND output = 'done'", *fence)


def _merge(hub: LivingHub, recording: Recording) -> None:
    """A change that waits is approved, and merged."""
    change = a_change_that_waits(hub)
    number = int(change["id"].removeprefix("c-"))
    _row(recording, "change waits", "change WHERE id = ?", number)
    hub.issue("approver", Scope.APPROVER)
    recording.mark("token of the approver", opens=hub.tokens["approver"])
    seen = {"head_sha": change["head_sha"]}
    answer = hub.ask("POST", f"/changes/{change['id']}/approve", token="approver", json=seen)
    assert answer.is_success, answer.text
    _row(recording, "change approved", "review WHERE change = ? AND verdict = 'approved'", number)
    _until(hub, f"/changes/{change['id']}", "merged")
    _row(recording, "change merged", "change WHERE id = ? AND state = 'merged' AND merged_sha IS NOT NULL", number)
    _until(hub, f"/tasks/{change['task']}", "done")
    _row(recording, "merged task done", "task WHERE n = ? AND state = 'done'", _n(change["task"]))


def _until(hub: LivingHub, path: str, state: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while (found := hub.made("GET", path)["state"]) != state:
        assert time.monotonic() < deadline, f"it is {found}"
        time.sleep(0.02)


def _submit(hub: LivingHub, recording: Recording, **fields: Any) -> str:
    task: str = hub.made("POST", "/tasks", {"title": "work", "repo": None} | fields)["id"]
    _row(recording, f"{task} submitted", "task WHERE n = ?", _n(task))
    return task


def _n(task: str) -> int:
    return int(task.removeprefix("t-"))


def _row(recording: Recording, said: str, found: str, *args: Any) -> None:
    recording.mark(said, row=found, args=args)


@contextmanager
def _watching(hub: LivingHub, recording: Recording) -> Iterator[None]:
    """Everything that the feed tells is promised: published, then durable, would be the wrong order."""
    found = "event WHERE seq = ? AND kind = ? AND task IS ?"
    told: list[int] = []

    def watch() -> None:
        with (
            suppress(httpx2.TransportError),
            hub.http.stream("GET", "/events", headers={"Authorization": f"Bearer {hub.tokens['admin']}"}, timeout=None) as feed,
        ):
            for line in feed.iter_lines():
                event = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                if "kind" in event:
                    task = None if event["task"] is None else _n(event["task"])
                    _row(recording, f"event {event['seq']}", found, event["seq"], event["kind"], task)
                    told.append(event["seq"])

    watcher = threading.Thread(target=watch, name="feed", daemon=True)
    watcher.start()
    yield
    assert told, "the feed told nothing"
