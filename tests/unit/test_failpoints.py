"""The failpoints know the product: their seams exist, every commit, fsync and send lies in one, and the product knows nothing of them."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from hub.wire import frames
from sidecar.core.records import JournalRecord, Seen
from tests.support.failpoints import points, seams
from tests.support.failpoints.seams import SEAMS, Seam

ROOT = Path(__file__).resolve().parents[2]

ELSEWHERE = {
    "hub.edge.http.connection:Connection._say": "a refusal of what is no HTTP: nothing was done, nothing is promised",
    "hub.store.copying:sync": "a backup that has no name yet: a crash leaves none",
    "hub.store.copying:copy": "a backup that has no name yet: a crash leaves none",
    "hub.store.manifest:write": "the account of a backup: whole or not there",
    "hub.store.rescue:write_account": "an account for people, of a store that is lost",
    "hub.store.restore:_make_fresh": "what has not taken its place yet: a crash leaves the store as it was",
    "hub.store.restore:_write": "the plan of a restore: whole or not there; its tests crash at every step",
    "hub.store.reserve:_fill": "room that is kept: its bytes mean nothing",
    "sidecar.doctor.machine:state_directory": "a probe of the disk, in a file without a name",
    "sidecar.runs.shim:main": "who holds the lock: without it whoever sweeps goes by the mark",
}
"""Writes and syncs that need no failpoint, and why."""


def test_every_seam_is_a_function_of_the_product() -> None:
    for seam in SEAMS:
        _, _, found = points.locate(seam.target)
        assert callable(found) or isinstance(found, staticmethod), seam.target


def test_every_point_has_a_name_of_its_own() -> None:
    names = [name for side in ("hub", "sidecar", "shim") for name in seams.names(side)]
    assert len(names) == len(set(names)) == sum(len(seam.faults()) for seam in SEAMS)


def test_every_frame_and_every_record_has_its_points() -> None:
    def types_of(union: Any) -> set[str]:
        return {frame.__dataclass_fields__["t"].default for frame in get_args(union)}

    assert set(seams.TO_SIDECAR) == types_of(frames.FromHub)
    assert set(seams.TO_HUB) == types_of(frames.FromSidecar)
    appended = set(get_args(JournalRecord)) - {Seen}  # it is only ever rewritten
    assert set(seams.RECORDS) == {record.__name__.lower() for record in appended}


def test_every_commit_fsync_and_send_lies_in_a_seam() -> None:
    listed = {seam.target for seam in SEAMS} | ELSEWHERE.keys()
    found = [where for source in _sources() for where in _critical(source)]
    assert len(found) > 15, "the search sees the product"
    outside = [f"{line}: {' or '.join(inside)}" for line, inside in found if not listed.intersection(inside)]
    assert not outside, f"add a seam to tests/support/failpoints/seams.py, or a reason to ELSEWHERE: {outside}"


def test_an_excuse_that_excuses_nothing_is_dropped() -> None:
    inside = {function for source in _sources() for _, functions in _critical(source) for function in functions}
    assert ELSEWHERE.keys() <= inside


def test_the_product_has_no_call_site() -> None:
    assert not [path for path in _sources() if "failpoint" in path.read_text("utf-8").lower()]


@pytest.mark.parametrize(
    "code",
    [
        "def f(c): c.execute('COMMIT')",
        "def f(c): c.execute('commit')",
        "def f(x): os.fsync(x)",
        "async def f(socket): await socket.send(b'')",
        "def f(self): self.transport.write(b'')",
        "def f(self): self.protocol.send_text(b'')",
        "class A:\n  def f(self):\n    def inner(): os.fdatasync(1)",
    ],
)
def test_the_search_sees(code: str) -> None:
    assert len(list(_search(ast.parse(code), "m", Path("m.py")))) == 1


def test_a_point_fires_the_nth_time_only() -> None:
    point = _read("hub.commit.before:error@3")["hub.commit.before"]
    assert [_pulled(point) for _ in range(5)] == ["", "", "database or disk is full", "", ""]


def test_a_point_with_a_chance_repeats_itself_with_its_seed() -> None:
    def draws(seed: str) -> list[str]:
        point = _read("hub.commit.after:error%0.5", seed)["hub.commit.after"]
        return [_pulled(point) for _ in range(40)]

    assert draws("7") == draws("7") != draws("8")
    assert 5 < sum(map(bool, draws("7"))) < 35


def test_a_token_lets_one_thing_happen_and_the_log_none_twice(tmp_path: Path) -> None:
    token, log = tmp_path / "token", tmp_path / "log"
    asked = {points.POINTS: "hub.commit.before:error,hub.commit.after:error", points.TOKEN: str(token), points.LOG: str(log)}
    found = points.read(asked, SEAMS)
    before, after = found["hub.commit.before"], found["hub.commit.after"]
    assert not _pulled(before)
    token.touch()
    assert [bool(_pulled(point)) for point in (before, before, after)] == [True, False, False]
    token.touch()
    assert [bool(_pulled(point)) for point in (before, after)] == [False, True]
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["hub.commit.before", "hub.commit.after"]


@pytest.mark.parametrize("order", ["hub.comit.before:kill", "hub.commit.before", "hub.commit:kill", "hub.publish.before:error"])
def test_what_is_no_point_or_has_no_fault_is_refused(order: str) -> None:
    with pytest.raises(points.UnknownPoint):
        _read(order)


@pytest.fixture
def product(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module that stands for the product, and another that imported a function of it by name."""
    module = types.ModuleType("hub.stand_in")
    exec(
        "def plain(x, done): done.append(x)\nasync def later(x, done): done.append(x)\n"
        "class Kind:\n  @staticmethod\n  def fixed(x, done): done.append(x)\n",
        module.__dict__,
    )
    importer = types.ModuleType("hub.importer")
    importer.__dict__["called_so_here"] = module.__dict__["plain"]
    monkeypatch.setitem(sys.modules, "hub.stand_in", module)
    monkeypatch.setitem(sys.modules, "hub.importer", importer)
    return importer


@pytest.mark.parametrize(("moment", "left"), [("before", []), ("after", [1])])
def test_the_two_points_are_on_the_two_sides_of_the_function(product: types.ModuleType, moment: str, left: list[int]) -> None:
    done: list[int] = []
    _install(Seam(name="hub.x", target="hub.stand_in:plain", fault=OSError, late_fault=OSError), f"hub.x.{moment}:error")
    with pytest.raises(OSError):
        product.called_so_here(1, done)
    assert done == left


def test_coroutines_and_static_methods_stay_what_they_are(product: types.ModuleType) -> None:
    module = sys.modules["hub.stand_in"]
    done: list[int] = []
    _install(Seam(name="hub.x", target="hub.stand_in:later"), "hub.x.before:delay(1)")
    _install(Seam(name="hub.y", target="hub.stand_in:Kind.fixed"), "hub.y.after:delay(1)")
    assert inspect.iscoroutinefunction(module.later)
    asyncio.run(module.later(1, done))
    module.Kind().fixed(2, done)
    assert done == [1, 2]


def test_a_label_tells_calls_apart_and_a_seam_without_a_point_is_left_alone(product: types.ModuleType) -> None:
    module = sys.modules["hub.stand_in"]
    plain, done = module.plain, []
    seam = Seam(name="hub.x", target="hub.stand_in:plain", label=lambda x, _: "abc"[x], labels=("b", "c"), fault=OSError)
    points.install(points.read({}, [seam]), [seam])
    assert module.plain is plain
    _install(seam, "hub.x.c.before:error")
    module.plain(1, done)
    module.plain(0, done)
    with pytest.raises(OSError):
        module.plain(2, done)
    assert done == [1, 0]


def _read(order: str, seed: str = "") -> points.Points:
    return points.read({points.POINTS: order, points.SEED: seed}, SEAMS)


def _install(seam: Seam, order: str) -> None:
    points.install(points.read({points.POINTS: order}, [seam]), [seam])


def _pulled(point: points.Point) -> str:
    try:
        point.pull()
    except Exception as fault:
        return str(fault)
    return ""


def _sources() -> list[Path]:
    return sorted(path for room in ("hub", "sidecar") for path in (ROOT / room).rglob("*.py"))


def _critical(source: Path) -> Iterator[tuple[str, list[str]]]:
    module = ".".join(source.relative_to(ROOT).with_suffix("").parts)
    return _search(ast.parse(source.read_text("utf-8")), module, source)


def _search(tree: ast.AST, module: str, source: Path, path: tuple[str, ...] = ()) -> Iterator[tuple[str, list[str]]]:
    """Every commit, fsync and send with the functions it lies in, outermost first."""
    for node in ast.iter_child_nodes(tree):
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if isinstance(node, ast.Call) and _is_critical(node):
            yield f"{source}:{node.lineno}", [f"{module}:{'.'.join(path[: i + 1])}" for i in range(len(path))]
        yield from _search(node, module, source, (*path, node.name) if named else path)  # type: ignore[attr-defined]


def _is_critical(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute):
        return False
    of, does = ast.unparse(call.func.value), call.func.attr
    match does:
        case "execute":
            said: Any = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else ""
            return str(said).upper().startswith(("COMMIT", "END"))
        case "fsync" | "fdatasync" | "send_text" | "send_data" | "send_close" | "sendall":
            return True
        case "send":
            return of.endswith("socket")
        case "write":
            return (of.endswith(("transport", "writer", "stdin")) and not of.startswith("sys.")) or (of == "os")
    return False
