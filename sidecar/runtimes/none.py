"""No agent at all: for the agents of a sidecar that only run a repository's registered checks, which wake nobody."""

from __future__ import annotations

from typing import NoReturn

from sidecar.runtimes.base import Reader, RunSpec, RuntimeFault


class NoRuntime:
    """Refuses to start anything. The hub gives such an agent only checks; this is what holds if it ever did not."""

    name = "none"
    caps: tuple[str, ...] = ()
    passes: tuple[str, ...] = ()

    def launch(self, run: RunSpec) -> NoReturn:
        """Always raises."""
        raise RuntimeFault("no_runtime", f"t-{run.spec.task} needs an agent, and this one only runs registered checks")

    def reader(self) -> Reader:
        """Never reached: nothing was launched."""
        raise RuntimeFault("no_runtime", "this agent only runs registered checks")

    def answer(self, qid: str, text: str) -> str:
        """Never reached: nobody asks."""
        raise RuntimeFault("no_runtime", f"nobody asked {qid}, so {len(text)} characters of answer have no reader")
