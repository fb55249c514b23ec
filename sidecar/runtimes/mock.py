"""A scripted agent: the same script always does the same. Standard library only when it runs as the agent itself.

``python sidecar/runtimes/mock.py`` is the agent process; :class:`MockRuntime` below starts it. The script is the task's
``metadata["mock"]``, a list of steps ``{"do": NAME, …}``; without one the agent commits a small file named after the
task. Any step may carry ``"attempt": n`` or ``"round": n`` and then happens only in that attempt or round.

=============  ======================================================================================================
write          ``path``, ``text``: write a file, not committed
commit         ``message``: commit everything
change         ``path``, ``text``, ``message``: write and commit
slow           ``s``: take that many seconds
crash          kill itself with SIGKILL
exit           ``code``: end at once, saying nothing
hang           never end; ignores SIGTERM
wrong_output   print something that is no outcome, and end
no_commit      end well without having changed anything
dirty_tree     leave an uncommitted file behind
orphan         ``s``: start a process in a session of its own that sleeps
question       ``qid``, ``text``, ``options``: ask, wait for the answer, remember it
use_answer     ``path``: commit the last answer as a file
fix            ``path``, ``bad``, ``good``: commit ``bad`` in the first round and ``good`` in a corrective one
use_salvage    take over the commits of earlier attempts that were not applied, as far as they are here
fail           ``message``, ``retryable``: end with a failure
say            ``text``: print a line for people
=============  ======================================================================================================
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sidecar.runtimes.base import Launch, RunSpec
    from sidecar.runtimes.command import CommandReader

RUN_LOG = "AGENTCOM_RUN_LOG"
"""Names a file to which every agent process appends ``task epoch round pid``: how often agents really ran."""


class MockRuntime:
    """Starts this file as the agent."""

    name = "mock"
    caps: tuple[str, ...] = ("questions",)
    passes: tuple[str, ...] = (RUN_LOG,)

    def launch(self, run: RunSpec) -> Launch:
        """Start this file with the script in its environment."""
        from sidecar.runtimes.base import Launch  # noqa: PLC0415  the agent process must not load the sidecar

        spec = run.spec
        script = (spec.metadata or {}).get("mock")
        env = {
            **run.env,
            "AGENTCOM_MOCK": json.dumps(
                {"task": spec.task, "epoch": spec.lease_epoch, "attempt": spec.attempt, "round": run.round,
                 "title": spec.title, "script": script}
            ),
        }  # fmt: skip
        # By path and isolated from the workspace: a clone that contains this package must not be what runs.
        return Launch(argv=(sys.executable, "-S", "-P", str(Path(__file__).resolve())), env=env, keep_stdin=True)

    def reader(self) -> CommandReader:
        """It speaks the language of the command runtime's JSON lines."""
        from sidecar.runtimes.command import CommandReader, SuccessRule  # noqa: PLC0415  see launch

        return CommandReader(SuccessRule(kind="outcome"), jsonl=True)

    def answer(self, qid: str, text: str) -> str:
        """One JSON line."""
        return json.dumps({"answer": {"qid": qid, "text": text}}) + "\n"


class Ended(Exception):
    """The script ended early; carries the exit code."""


class MockAgent:
    """One run of a script in the current directory."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._answer = ""

    def run(self) -> int:
        """Do every step; returns the exit code."""
        name = f"t-{self._order['task']}"
        default = [{"do": "change", "path": f"{name}.txt", "text": f"{self._order['title']}\n", "message": f"Add {name}"}]
        script = self._order["script"]
        try:
            for step in default if script is None else script:
                if all(step.get(when, self._order[when]) == self._order[when] for when in ("attempt", "round")):
                    getattr(self, f"_{step['do']}")(step)
        except Ended as end:
            return int(end.args[0])
        _say({"outcome": "succeeded"})
        return 0

    def _write(self, step: dict[str, Any]) -> None:
        path = Path(step["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(step.get("text", ""))

    def _commit(self, step: dict[str, Any]) -> None:
        _git("add", "-A")
        _git("commit", "-q", "--allow-empty", "-m", step.get("message", "Work"))

    def _change(self, step: dict[str, Any]) -> None:
        self._write(step)
        self._commit(step)

    def _slow(self, step: dict[str, Any]) -> None:
        time.sleep(step["s"])

    def _crash(self, _: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _exit(self, step: dict[str, Any]) -> None:
        raise Ended(step.get("code", 1))

    def _hang(self, _: dict[str, Any]) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            signal.pause()

    def _wrong_output(self, _: dict[str, Any]) -> None:
        sys.stdout.write('all done! {"outcome": \n')
        raise Ended(0)

    def _no_commit(self, _: dict[str, Any]) -> None:
        _say({"outcome": "succeeded"})
        raise Ended(0)

    def _dirty_tree(self, step: dict[str, Any]) -> None:
        self._write({"path": step.get("path", "left-over.txt"), "text": step.get("text", "not committed\n")})

    def _orphan(self, step: dict[str, Any]) -> None:
        subprocess.Popen(["sleep", str(step.get("s", 600))], start_new_session=True)

    def _question(self, step: dict[str, Any]) -> None:
        qid = step.get("qid", "q1")
        _say({"question": {"qid": qid, "text": step.get("text", "Which way?"), "options": step.get("options", [])}})
        for line in sys.stdin:
            answer = json.loads(line)["answer"]
            if answer["qid"] == qid:
                self._answer = answer["text"]
                return
        raise Ended(1)  # stdin ended: nobody will answer any more

    def _use_answer(self, step: dict[str, Any]) -> None:
        self._change({"path": step["path"], "text": self._answer + "\n", "message": "Do as answered"})

    def _fix(self, step: dict[str, Any]) -> None:
        text = step["good"] if self._order["round"] else step["bad"]
        self._change({"path": step["path"], "text": text, "message": f"Write {step['path']}"})

    def _use_salvage(self, _: dict[str, Any]) -> None:
        listed = ["git", "for-each-ref", "--format=%(refname)", "refs/agentcom/salvage"]
        for ref in subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split():
            _git("cherry-pick", "--allow-empty", f"HEAD..{ref}")

    def _fail(self, step: dict[str, Any]) -> None:
        _say({"outcome": "failed", "message": step.get("message", ""), "retryable": step.get("retryable", True)})
        raise Ended(1)

    def _say(self, step: dict[str, Any]) -> None:
        _say({"text": step["text"]})


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, stdout=sys.stderr)


def main() -> int:
    """Count this run, then play the script."""
    order = json.loads(os.environ["AGENTCOM_MOCK"])
    if path := os.environ.get(RUN_LOG):
        with Path(path).open("a") as counted:  # one short write with O_APPEND: lines of parallel agents never mix
            counted.write(f"{order['task']} {order['epoch']} {order['round']} {os.getpid()}\n")
    return MockAgent(order).run()


if __name__ == "__main__":
    sys.exit(main())
