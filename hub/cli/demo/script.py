"""What the demo asks for, and what must have come of it: six ideas in four lanes, each with one difficulty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hub.client.documents import NewTask

FOLDER = "agentcom-demo"
"""Where the demo's agents write, whatever the repository is."""
RARE_CAPABILITY = "networking"


@dataclass(frozen=True, slots=True)
class Idea:
    """One task of the demo. ``attempts`` and ``runs`` are how often it ought to be leased and its agent ought to run."""

    ref: str
    title: str
    lane: str
    steps: tuple[dict[str, Any], ...]
    verification: tuple[dict[str, Any], ...]
    shows: str
    needs: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    attempts: int = 1
    runs: int = 1
    is_killed: bool = False
    tier: int = 1

    def task(self, repo: str) -> NewTask:
        """The submission."""
        return {
            "ref": self.ref,
            "title": self.title,
            "description": self.shows,
            "lane": self.lane,
            "repo": repo,
            "depends_on": list(self.needs),
            "capabilities": list(self.capabilities),
            "verification": [*self.verification],  # type: ignore[list-item]  # literal documents
            "max_fix_rounds": 2,
            "metadata": {"mock": list(self.steps)},
        }


def _change(path: str, text: str, message: str) -> dict[str, Any]:
    return {"do": "change", "path": path, "text": text, "message": message}


def _exists(path: str) -> dict[str, Any]:
    return {"kind": "file_exists", "target": path}


def _slow(seconds: float, **when: int) -> dict[str, Any]:
    return {"do": "slow", "s": seconds, **when}


def ideas(pace_s: float) -> Sequence[Idea]:
    """The six. ``pace_s`` is how long an agent pretends to think."""
    greeting, manual, ports = f"{FOLDER}/greeting.txt", f"{FOLDER}/MANUAL.md", f"{FOLDER}/ports.txt"
    answer, pipeline, survivor = f"{FOLDER}/answer.txt", "Makefile", f"{FOLDER}/survivor.txt"
    return (
        Idea(
            "greeting",
            "Add a greeting",
            "urgent",
            (_slow(pace_s), _change(greeting, "Hello from an agent.\n", "feat: add a greeting")),
            (_exists(greeting),),
            "A plain change: pushed at once, verified, merged by policy.",
        ),
        Idea(
            "manual",
            "Document the greeting",
            "low",
            (_slow(pace_s), _change(manual, "# Manual\n\nSay hello.\n", "docs: describe the greeting")),
            (_exists(greeting), _exists(manual)),
            "Waits until the greeting is merged, and starts from a base that has it.",
            needs=("greeting",),
        ),
        Idea(
            "ports",
            "List the open ports",
            "normal",
            (_slow(pace_s), _change(ports, "8790\n", "feat: list the ports")),
            (_exists(ports),),
            f"Needs an agent with the capability {RARE_CAPABILITY}; only one has it.",
            capabilities=(RARE_CAPABILITY,),
        ),
        Idea(
            "answer",
            "Compute the answer",
            "high",
            (_slow(pace_s), {"do": "fix", "path": answer, "bad": "41\n", "good": "42\n"}),
            ({"kind": "command_succeeds", "argv": ["grep", "-qx", "42", answer], "description": "the answer is 42"},),
            "Its verification fails at first; the agent is told why and corrects itself.",
            runs=2,
        ),
        Idea(
            "pipeline",
            "Change the build",
            "normal",
            (_slow(pace_s), _change(pipeline, "demo:\n\t@echo built by an agent\n", "build: add a target")),
            (_exists(pipeline),),
            "Touches a protected path: tier 3, so a person decides.",
            tier=3,
        ),
        Idea(
            "survivor",
            "Survive a crash",
            "high",
            (_slow(60, attempt=1), _change(survivor, "Still here.\n", "feat: survive")),
            (_exists(survivor),),
            "Its agent process is killed in the middle; the hub gives it another try.",
            attempts=2,
            runs=2,
            is_killed=True,
        ),
    )
