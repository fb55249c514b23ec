"""Turn what git prints about two trees into facts. Pure parsing; the commands are started in ``hub.forge.local``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hub.core.change import LoggedCommit
from hub.core.risk import FileFact

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""The id every SHA-1 repository gives to a tree without entries; git knows it without having it."""

DIFF = ("diff-tree", "-r", "-M", "-l1000", "--full-index", "--no-ext-diff", "--no-textconv", "--ignore-submodules=none")
"""One way of comparing for everything: renames found, and nothing the repository says about its own content is run or believed."""
RAW = (*DIFF, "-z", "--raw", "--numstat")
PATCH = (*DIFF, "-p", "--no-color", "--src-prefix=a/", "--dst-prefix=b/")
LINES = ("diff-tree", "-r", "-z", "--numstat", "--no-renames", "--no-ext-diff", "--no-textconv")
LOG = ("log", "-z", "--topo-order", "--no-show-signature", "--no-decorate", "--no-notes", "--format=%H%n%P%n%s")


def files(output: bytes) -> tuple[FileFact, ...]:
    """Parse the output of :data:`RAW`: first a raw record per file, then its line counts, in the same order."""
    fields = iter(_text(output).split("\0"))
    found: list[FileFact] = []
    counted = 0
    for field in fields:
        if field.startswith(":"):
            found.append(_raw(field, fields))
        elif field:
            found[counted] = _counted(found[counted], field, fields)
            counted += 1
    return tuple(found)


def _text(output: bytes) -> str:
    """Names as text that can be stored and shown: bytes that are no UTF-8 become escapes."""
    return output.decode(errors="backslashreplace")


def _raw(field: str, fields: Iterator[str]) -> FileFact:
    old_mode, new_mode, _, _, status = field[1:].split(" ")
    path = next(fields)
    old_path = None
    if status[0] in "RC":
        old_path, path = path, next(fields)
    return FileFact(
        path=path,
        old_path=old_path if status[0] == "R" else None,
        status=status[0],
        added=0,
        deleted=0,
        old_mode=old_mode,
        new_mode=new_mode,
    )


def _counted(fact: FileFact, field: str, fields: Iterator[str]) -> FileFact:
    added, deleted, path = field.split("\t", 2)
    if not path:  # a rename or copy: both names follow
        _, path = next(fields), next(fields)
    assert path == fact.path, "git lists files in one order"
    if added == "-":
        return replace(fact, binary=True)
    return replace(fact, added=int(added), deleted=int(deleted))


def lines(output: bytes) -> dict[str, int]:
    """Parse the output of :data:`LINES` from the empty tree: how many lines each file has."""
    counted: dict[str, int] = {}
    for record in _text(output).split("\0"):
        if record:
            added, _, path = record.split("\t", 2)
            counted[path] = 0 if added == "-" else int(added)
    return counted


def commits(output: bytes) -> tuple[LoggedCommit, ...]:
    """Parse the output of :data:`LOG`, newest first, into commits oldest first."""
    found = []
    for record in output.decode(errors="replace").split("\0"):
        if record:
            sha, parents, subject = record.split("\n", 2)
            found.append(LoggedCommit(sha=sha, parents=tuple(parents.split()), subject=subject.strip()))
    return tuple(reversed(found))
