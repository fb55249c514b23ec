"""What the hub reads that somebody else wrote: its settings, and what git says of trees whose names an agent chose."""

from __future__ import annotations

from contextlib import suppress

from hub.core.content import examine
from hub.forge import measure
from hub.settings.resolve import SettingsError, resolve
from tests.fuzz.inputs import Bytes, near
from tests.fuzz.place import PLACE

EXAMPLE = b'data_dir = "d"\ndurability = "full"\n[listen]\nhost = "127.0.0.1"\nport = 1\n[lease]\nterm_s = 180.0\n'


def settings(data: bytes) -> None:
    """A tree of settings, or all that is wrong with them; the same from a file and from the environment."""
    path = PLACE / "hub.toml"
    path.write_bytes(near(data, [EXAMPLE]))
    with suppress(SettingsError):
        resolve(file=path)
    variables = [line.partition(b"=") for line in data.split(b"\n")[:8]]
    with suppress(SettingsError):
        resolve(
            environ={
                f"AGENTCOM_{name.decode(errors='replace')}": value.decode(errors="replace") for name, _, value in variables
            }
        )


def compared(data: bytes) -> None:
    """Files of any names and kinds, as git lists them, are those files again."""
    source, raw, counts, expected = Bytes(data), b"", b"", []
    while source.more and len(expected) < 16:
        status, old, new = source.one_of([b"M", b"A", b"D", b"T", b"R100", b"C075"]), _name(source), _name(source)
        moved = status[0] in b"RC"
        raw += b":100644 120000 %s %s %s\0" % (b"a" * 40, b"b" * 40, status) + (old + b"\0" if moved else b"") + new + b"\0"
        added = b"-" if source.number() % 4 == 0 else b"%d" % source.number(2)
        counts += (
            added + b"\t" + (b"-" if added == b"-" else b"3") + b"\t" + (b"\0" + old + b"\0" if moved else b"") + new + b"\0"
        )
        expected.append((new.decode(errors="backslashreplace"), status[:1].decode(), added == b"-"))
    found = measure.files(raw + counts)
    assert [(file.path, file.status, file.binary) for file in found] == expected


def _name(source: Bytes) -> bytes:
    return source.piece().replace(b"\0", b"") or b"f"


def logged(data: bytes) -> None:
    """Commits with any subjects."""
    subjects = [subject.replace(b"\n", b" ") for subject in data.split(b"\0")[:16]]
    output = b"".join(b"%s\n%s\n%s\0" % (b"a" * 40, b"b" * 40, subject) for subject in subjects)
    assert len(measure.commits(output)) == len(subjects)


def patch(data: bytes) -> None:
    """Any patch has findings or none."""
    header = b"diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n-x\n+y\n"
    found = examine(near(data, [header]).decode(errors="replace"))
    assert found.tests_removed >= 0
