"""A task whose work is a real commit, and the change that the hub opened for it."""

from __future__ import annotations

import time
from typing import Any

from hub.ids import Outcome
from hub.wire import frames
from hub.wire.git import assignment_branch
from hub.wire.spec import Commit
from tests.support.living_hub import LivingHub
from tests.support.repos import git, make_remote

WAIT_S = 20.0


def a_change_that_waits(hub: LivingHub) -> dict[str, Any]:
    """Registers a repository, has an agent bring a commit for it, and returns the change when it waits for a person."""
    remote = make_remote(hub.root, {"Makefile": "all:\n"})
    base = remote.sha("main")
    hub.made("POST", "/repos", {"name": "site", "url": remote.url})
    peer = hub.peer("maker")
    task = hub.made("POST", "/tasks", {"title": "change the checks", "repo": "site", "assign_to": "maker"})["id"]
    assign = peer.hear(frames.Assign)
    at: dict[str, Any] = {"task": assign.task, "lease_epoch": assign.lease_epoch}
    peer.say(frames.Accept(id=2, **at))
    peer.hear(frames.Accepted)
    branch = assignment_branch(**at)
    message = f"feat: check\n\nAgentCom-Task: {task}\nAgentCom-Lease-Epoch: {assign.lease_epoch}"
    head = remote.commit({"Makefile": "all:\n\ttrue\n"}, message, branch=branch)
    assert git("rev-parse", f"{head}^", cwd=remote.path) == base
    commit = Commit(sha=head, subject="feat: check", files=("Makefile",))
    done = {"branch": branch, "base_sha": base, "head_sha": head, "commits": (commit,), "sha256": "ab" * 32}
    peer.say(frames.Result(id=3, outcome=Outcome.SUCCEEDED, **at, **done))
    peer.hear(frames.ResultAck)
    peer.leave()
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        for change in hub.made("GET", "/changes")["changes"]:
            if change["state"] == "waiting":
                return change
        time.sleep(0.05)
    raise AssertionError(f"no change waits: {hub.made('GET', '/changes')}")
