"""Keep the diagrams and tables of the documents equal to the tables of the rules.

``python ops/diagrams.py`` rewrites every block between ``<!-- generated: NAME -->`` and ``<!-- end -->`` in the documents
below from the transition tables in ``hub.core``; ``--check`` changes nothing and exits 1 if a block is out of date. The
text around the blocks belongs to people.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from hub.core import agent, change, task
from hub.core.reconcile import RULES, HubHas, Rule, Says
from hub.ids import TERMINAL, AgentState, ChangeState, TaskState

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (ROOT / "ops" / "STATES.md", ROOT / "hub" / "wire" / "PROTOCOL.md")

S = TypeVar("S", bound=StrEnum)

_BLOCK = re.compile(r"<!-- generated: (?P<name>[a-z]+) -->\n.*?<!-- end -->", re.DOTALL)


def machine(table: Mapping[S, frozenset[S]], *, start: S, live: Collection[S], once: Collection[S] = ()) -> str:
    """A state machine as a diagram and as a table.

    The table is complete. The diagram leaves out what would only darken it, and says so below: edges to a state in ``once``
    if every live state has one, and the edges of states that are not live.
    """
    said = [to for to in once if all(to in table[state] for state in live)]
    drawn = [(state, to) for state in table if state in live for to in _ordered(table, state) if to not in said]
    lines = ["```mermaid", "stateDiagram-v2", f"  [*] --> {start}", *(f"  {state} --> {to}" for state, to in drawn), "```", ""]
    if said:
        lines.append(f"Not drawn: every live state may become {_words(said, 'or')}.")
    ends: dict[frozenset[S], list[S]] = {}
    for state in (state for state in table if state not in live):
        ends.setdefault(table[state], []).append(state)
    for states in ends.values():
        after = _ordered(table, states[0])
        follows = f"only {_words(after, 'or')} may follow" if after else "nothing follows"
        lines.append(f"After {_words(states, 'and')} {follows}.")
    if lines[-1]:
        lines.append("")
    lines += ["| from | to |", "|---|---|"]
    lines += [f"| `{state}` | {', '.join(f'`{to}`' for to in _ordered(table, state)) or '–'} |" for state in table]
    return "\n".join(lines)


def _ordered(table: Mapping[S, frozenset[S]], state: S) -> list[S]:
    """What may follow, in the order in which the vocabulary names it: sets have none."""
    vocabulary = list(type(state))
    return sorted(table[state], key=vocabulary.index)


def _words(states: Collection[StrEnum], join: str) -> str:
    *most, last = (f"`{state}`" for state in states)
    return f"{', '.join(most)} {join} {last}" if most else last


HAS: Mapping[HubHas, str] = {
    HubHas.ASSIGNED: "assigned: mine, same epoch",
    HubHas.WORKING: "working or blocked: mine, same epoch",
    HubHas.OTHER: "anything else, or unknown",
}
SAYS: Mapping[Says, str] = {
    Says.HELD: "held",
    Says.OUTBOX: "outbox",
    Says.SILENT_SAME_INSTALL: "neither, same `install_id`",
    Says.SILENT_OTHER_INSTALL: "neither, other `install_id`",
}
RULE: Mapping[Rule, tuple[str, str]] = {
    Rule.ACCEPT: ("`accepted`", "taken as `accept`: committed, then `accepted` follows"),
    Rule.ASSIGN_AGAIN: ("–", "the same `assign` is sent again"),
    Rule.KEEP: ("`keep`", "lease renewed, holder bound to the new session; `accepted` again if the phase is before `woken`"),
    Rule.SEND_RESULT: ("`send_result`", "the result is asked for; a lease that runs is renewed until it arrives"),
    Rule.LOST: ("–", "lost at once, cause `agent_restarted`"),
    Rule.WAIT_FOR_EXPIRY: ("–", "nothing: the lease runs out"),
    Rule.STOP: ("`stop`", "what runs is stopped; journal and outbox stay"),
    Rule.NOTHING: ("–", "nothing"),
}


def reconcile() -> str:
    """The rules of reconciliation, one row each."""
    lines = ["| the hub has | the sidecar says | rule | verdict | what follows |", "|---|---|---|---|---|"]
    for (has, says), rule in RULES.items():
        verdict, follows = RULE[rule]
        lines.append(f"| {HAS[has]} | {SAYS[says]} | {rule.name} | {verdict} | {follows} |")
    return "\n".join(lines)


BLOCKS: Mapping[str, Callable[[], str]] = {
    "task": lambda: machine(
        task.TRANSITIONS,
        start=TaskState.WAITING,
        live=[state for state in TaskState if state not in TERMINAL],
        once=(TaskState.DEAD, TaskState.CANCELLED),
    ),
    "agent": lambda: machine(agent.TRANSITIONS, start=AgentState.OFFLINE, live=list(AgentState)),
    "change": lambda: machine(
        change.TRANSITIONS,
        start=ChangeState.OPEN,
        live=[state for state in ChangeState if state in change.LIVE],
        once=(ChangeState.CLOSED,),
    ),
    "reconcile": reconcile,
}


def render(text: str) -> str:
    """The document with every generated block as it must be; raises KeyError for a block nobody generates."""
    return _BLOCK.sub(lambda found: f"<!-- generated: {found['name']} -->\n\n{BLOCKS[found['name']]()}\n\n<!-- end -->", text)


def main(argv: list[str]) -> int:
    """Write, or check; the exit code."""
    stale = {path: text for path in DOCUMENTS if (text := render(before := path.read_text("utf-8"))) != before}
    for path, text in stale.items():
        if "--check" in argv:
            print(f"{path.relative_to(ROOT)} is out of date: run python ops/diagrams.py", file=sys.stderr)
        else:
            path.write_text(text, "utf-8")
    return 1 if stale and "--check" in argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
