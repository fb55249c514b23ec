"""The agent of the crash tests: does what the line ``JOB {…}`` of its prompt says, and keeps its own account of it. Standard library only.

``{"s": seconds of work, "again_s": the same in later attempts, "change": a path to write and commit, "ask": true to ask a question
first, "talk": kilobytes to print}``.
Its account is a file it appends to, named by ``CRASH_AGENTS``: ``WORD TASK EPOCH PID BOOT_US`` with the words ``start``, ``alive`` (each
50 ms of work), ``commit`` (it is about to write) and ``end``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ACCOUNT = "CRASH_AGENTS"
BEAT_S = 0.05


def note(word: str) -> None:
    task, epoch = os.environ["AGENTCOM_TASK"].removeprefix("t-"), os.environ["AGENTCOM_LEASE_EPOCH"]
    boot_us = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    with Path(os.environ[ACCOUNT]).open("a") as account:  # one short write with O_APPEND: lines never mix
        account.write(f"{word} {task} {epoch} {os.getpid()} {boot_us}\n")


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def main(prompt: Path) -> int:
    note("start")
    line = next(line for line in prompt.read_text("utf-8").splitlines() if line.startswith("JOB "))
    job = json.loads(line.removeprefix("JOB "))
    if job.get("ask"):
        say(question={"qid": "q", "text": "Go on?", "options": []})
        if not sys.stdin.readline():
            return 1
    say(text="at work")
    first = os.environ["AGENTCOM_LEASE_EPOCH"] == "1"
    until = time.monotonic() + (job["s"] if first else job.get("again_s", job["s"]))
    while time.monotonic() < until:
        time.sleep(BEAT_S)
        note("alive")
    for _ in range(job.get("talk", 0)):
        print("x" * 1023)
    if path := job.get("change"):
        note("commit")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(f"{os.environ['AGENTCOM_TASK']}\n")
        subprocess.run(["git", "add", "--", path], check=True)
        subprocess.run(["git", "commit", "--quiet", "--message", f"feat: add {path}"], check=True)
    note("end")
    say(outcome="succeeded")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
