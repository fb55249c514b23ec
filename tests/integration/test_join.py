"""A machine joins a real hub, works, and leaves; killed, misled and repeated on the way."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import pwd
import signal
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from hub.client import HubClient
from hub.ids import LeaseEpoch, TaskId
from sidecar.core.records import Assigned
from sidecar.doctor.state import user_of
from sidecar.journal import Journal
from tests.support.fleet import Fleet, wait_until
from tests.support.newcomer import IS_ROOT, RUN_AS, Newcomer, faults, open_directory
from tests.support.repos import git

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

STEPS = ["checks", "identity", "registration", "user", "configuration", "service", "start", "verification"]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with open_directory() as place:
        yield place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(place: Path) -> AsyncIterator[Fleet]:
    """One hub for all: each test has a machine, or machines, of its own."""
    fleet = Fleet(place, agents=1)
    try:
        await fleet.start_hub()
        yield fleet
    finally:
        await fleet.close()


_numbers = itertools.count(1)


@pytest.fixture
def machine(place: Path) -> Newcomer:
    return Newcomer(place, f"m{next(_numbers)}")


async def code(fleet: Fleet) -> str:
    async with fleet.client() as admin:
        return (await admin.create_enrolment())["code"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def veteran(fleet: Fleet, place: Path) -> tuple[Newcomer, str]:
    """A machine that has joined, and the code it used."""
    machine, enrolment = Newcomer(place, "veteran"), await code(fleet)
    joined, said, err = await machine.join(fleet.url, enrolment)
    assert joined == 0, (said, err)
    return machine, enrolment


async def tokens_of(fleet: Fleet, machine: Newcomer) -> list[str]:
    """Ids of a machine's live tokens."""
    async with fleet.client() as admin:
        tokens = (await admin.tokens())["tokens"]
    return [token["id"] for token in tokens if token["live"] and token["name"] == f"machine:{machine.name}"]


def names(machine: Newcomer, *ends: str) -> list[str]:
    return [f"{machine.name}-{end}" for end in ends]


def hold(path: Path, *, task: int, lease_epoch: int) -> None:
    """Write down an assignment, as an agent does that has it."""
    journal = Journal(path)
    journal.append(Assigned(task=TaskId(task), lease_epoch=LeaseEpoch(lease_epoch)))
    journal.close()


async def test_a_stranger_joins_with_one_command_and_its_first_change_is_merged(fleet: Fleet, machine: Newcomer) -> None:
    fleet.make_repository(None)
    async with fleet.client() as admin:
        check = {"kind": "command_succeeds", "argv": ["sh", "-c", "test -s said.txt"]}
        await admin.add_repo("site", str(fleet.remote), checks=[check], policy={"auto_merge_tier1": True})
    joined, said, err = await machine.join(fleet.url, await code(fleet))
    assert joined == 0, (said, err)
    assert [line["name"] for line in said[:-1]] == STEPS
    assert [finding["check"] for finding in said[-2]["findings"]] == names(machine, "1", "2", "checks")
    assert said[-1]["joined"] is True
    async with machine.running(), fleet.client() as admin:
        task = (await admin.submit({"title": "Write it down", "repo": "site"}))["id"]

        async def merged() -> bool:
            return (await admin.task(task))["state"] == "done"

        await wait_until(merged, limit_s=60, what="the first change is merged")
    assert "Write it down" in git("show", "main:said.txt", cwd=fleet.remote)
    assert not IS_ROOT or git("show", "main:who.txt", cwd=fleet.remote) != "0"


async def test_a_join_that_is_killed_after_any_step_goes_on_and_registers_once(fleet: Fleet, machine: Newcomer) -> None:
    enrolment = await code(fleet)
    for step in range(1, len(STEPS) + 1):
        # with the token in place nothing of the code is needed any more, were it used up or expired
        await machine.join_until_killed_after(step, fleet.url, enrolment if step <= 3 else None)
        if machine.config.exists():
            tomllib.loads(machine.config.read_text())
    joined, said, err = await machine.join(fleet.url, None)
    assert joined == 0, (said, err)
    assert len(await tokens_of(fleet, machine)) == 1
    assert {path.name for path in machine.state.iterdir() if path.stat().st_mode & 0o077 and path.is_file()} == set()
    assert not (machine.state / "secret").exists(), "it lives on as half of the token"
    assert not list(machine.state.glob(".*")), "nothing half-written"


async def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_code(fleet: Fleet, machine: Newcomer) -> None:
    enrolment = await code(fleet)
    await machine.join_until_killed_after(3, fleet.url, enrolment)
    token = (machine.state / "token").read_text()
    # as if it had been killed between two of the files it writes
    (machine.state / "secret").write_text(token.strip().split("_", 2)[2])
    (machine.state / "token").unlink()
    await machine.join_until_killed_after(3, fleet.url, None)
    assert (machine.state / "token").read_text() == token
    assert not (machine.state / "secret").exists()
    # as if it had been killed between the hub's commit and the arrival of the answer
    (machine.state / "secret").write_text(token.strip().split("_", 2)[2])
    (machine.state / "token").unlink()
    (machine.state / "join.json").unlink()
    joined, said, _ = await machine.join(fleet.url, enrolment)
    assert joined == 0, said
    assert (machine.state / "token").read_text() == token
    more, said, _ = await machine.join(fleet.url, enrolment, "--agents", "3")
    assert more == 0, said
    assert (machine.state / "token").read_text() == token, "the same registration, for more agents"
    assert said[-1]["agents"] == names(machine, "1", "2", "3", "checks")


async def test_names_of_another_machine_are_refused_all_at_once(
    fleet: Fleet, veteran: tuple[Newcomer, str], place: Path
) -> None:
    machine, _ = veteran
    impostor = Newcomer(place, f"{machine.name}-impostor")
    impostor.name = machine.name
    failed, said, _ = await impostor.join(fleet.url, await code(fleet))
    assert failed == 1
    found = faults(said)
    assert [finding["check"] for finding in found] == ["name"] * 3
    assert f"{machine.name}-checks belongs to machine:{machine.name}" in found[2]["found"]
    assert "--name" in found[0]["fix"]
    assert not (impostor.state / "token").exists()


async def test_a_code_is_for_one_machine_and_only_known_ones_count(
    fleet: Fleet, veteran: tuple[Newcomer, str], place: Path
) -> None:
    machine, enrolment = veteran
    wrong_codes = {
        enrolment: "has used this code",
        f"ac_00000000_{'x' * 43}": "does not know this code",
        None: "code is needed",
    }
    for wrong, words in wrong_codes.items():
        failed, said, _ = await Newcomer(place, f"{machine.name}-other").join(fleet.url, wrong)
        assert failed == 1
        assert [finding["check"] for finding in faults(said)] == ["code"]
        assert words in faults(said)[0]["found"]
        assert "agentcom enrol create" in faults(said)[0]["fix"]


async def test_a_revoked_machine_joins_again_with_a_new_code(fleet: Fleet, machine: Newcomer) -> None:
    assert (await machine.join(fleet.url, await code(fleet)))[0] == 0
    async with fleet.client() as admin:
        await admin.revoke_token((await tokens_of(fleet, machine))[0])
    failed, said, _ = await machine.join(fleet.url, None)
    assert failed == 1
    assert "refuses" in faults(said)[0]["found"]
    assert (await machine.join(fleet.url, await code(fleet)))[0] == 0
    assert len(await tokens_of(fleet, machine)) == 1


async def test_all_that_is_wrong_with_a_machine_is_listed_together_with_its_cures(place: Path, machine: Newcomer) -> None:
    (place / "file").write_text("")
    machine.state = place / "file" / "state"
    failed, said, _ = await machine.say("join", *machine.joining("http://127.0.0.1:1", None, command="no-such-agent {prompt}"))
    assert failed == 1
    found = {finding["check"]: finding for finding in faults(said)}
    assert {"runtime", "hub"} <= set(found)
    assert "'no-such-agent' was not found" in found["runtime"]["found"]
    assert "connection refused" in found["hub"]["found"]
    assert all(finding["fix"] for finding in found.values())
    assert not machine.config.exists()


@pytest.mark.skipif(not IS_ROOT, reason="only root changes users")
async def test_what_agents_are_started_with_never_runs_as_root(fleet: Fleet, place: Path, machine: Newcomer) -> None:
    ran, program = place / "ran", place / "claude"
    ran.touch()
    ran.chmod(0o666)
    program.write_text(f'#!/bin/sh\necho "$(id -u) $AGENTCOM_PROBED" >> {ran}\n')
    program.chmod(0o755)
    machine.environ["AGENTCOM_PROBED"] = "a secret of root's environment"
    joining = machine.joining("http://127.0.0.1:1", None, command=f"{program} {{prompt}}")
    assert (await machine.say("join", *joining))[0] == 1
    assert ran.read_text() == "", "nobody has to run it to know that it is there"
    joining = machine.joining(fleet.url, await code(fleet), command=f"{program} {{prompt}}")
    assert (await machine.say("join", *joining))[0] == 0
    assert ran.read_text() == f"{pwd.getpwnam(RUN_AS).pw_uid} \n"


@pytest.mark.skipif(not IS_ROOT, reason="only root changes users")
async def test_root_runs_nothing_from_where_agents_may_write(place: Path, machine: Newcomer) -> None:
    ran, open_bin = place / "ran-git", place / "open-bin"
    open_bin.mkdir()
    (open_bin / "git").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (open_bin / "git").chmod(0o755)
    open_bin.chmod(0o777)
    machine.environ["PATH"] = f"{open_bin}:{os.environ['PATH']}"
    failed, said, _ = await machine.join("http://127.0.0.1:1", None)
    assert failed == 1
    assert [(finding["check"], str(open_bin) in finding["found"]) for finding in faults(said)] == [("code", True)]
    assert not ran.exists()


async def test_an_edited_configuration_is_kept_if_it_fits_and_refused_if_not(
    fleet: Fleet, veteran: tuple[Newcomer, str]
) -> None:
    machine, _ = veteran
    sealed = machine.config.read_text()
    edited = sealed.replace("drain_s = 10.0", "drain_s = 20.0")
    machine.config.write_text(edited)
    kept, said, _ = await machine.join(fleet.url, None)
    assert kept == 0
    assert "kept as it is" in said[4]["detail"]
    assert machine.config.read_text() == edited
    machine.config.write_text(
        edited.replace(fleet.url.removeprefix("http"), "://elsewhere:1").replace(f'"{machine.name}-2"', '"other"')
    )
    refused, said, _ = await machine.join(fleet.url, None)
    assert refused == 1
    assert len(faults(said)) == 2
    assert "hub_url" in faults(said)[0]["found"]
    assert f"{machine.name}-2" in faults(said)[1]["found"]
    assert said[-1]["name"] == "checks", "nothing was registered for a file that does not fit"
    machine.config.write_text(sealed)


async def test_a_file_of_joins_own_is_replaced_and_the_one_before_kept(fleet: Fleet, veteran: tuple[Newcomer, str]) -> None:
    machine, _ = veteran
    before = machine.config.read_text()
    assert (await machine.join(fleet.url, None, "--repo", "site=/srv/git/site.git"))[0] == 0
    assert 'site" = "/srv/git/site.git"' in machine.config.read_text()
    assert machine.config.with_name("sidecar.toml.bak").read_text() == before


async def test_a_sidecar_that_cannot_work_fails_the_verification_with_its_log(fleet: Fleet, machine: Newcomer) -> None:
    enrolment = await code(fleet)
    await machine.join_until_killed_after(5, fleet.url, enrolment)
    path = machine.state / "agents" / f"{machine.name}-1" / "journal"
    path.parent.mkdir(parents=True)
    hold(path, task=1, lease_epoch=1)
    path.write_bytes(b"\0\0\0\1XXXXX" + path.read_bytes())
    failed, said, _ = await machine.join(fleet.url, None)
    assert failed == 1
    assert said[-1]["name"] == "verification"
    assert "the sidecar ended with 5" in faults(said)[0]["found"]
    assert "is damaged" in said[-1]["log"]


async def test_in_the_foreground_join_becomes_the_sidecar(fleet: Fleet, machine: Newcomer) -> None:
    machine.environ["AGENTCOM_ENROL"] = await code(fleet)
    process = await machine.start("join", *machine.joining(fleet.url, None), "--foreground", "--json")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while json.loads(await process.stdout.readline()).get("joined") is None:
            pass

    async with fleet.client() as admin:

        async def working() -> bool:
            mine = [agent for agent in (await admin.agents())["agents"] if agent["id"].startswith(machine.name)]
            return len(mine) == 3 and all(agent["state"] == "idle" and "quiet" not in agent["flags"] for agent in mine)

        await wait_until(working, limit_s=30, what="the agents are back")
    assert machine.environ["AGENTCOM_ENROL"] not in Path(f"/proc/{process.pid}/environ").read_text()
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 30) == 0


# --- leaving


async def test_leaving_stops_the_sidecar_revokes_the_token_and_removes_what_join_made(fleet: Fleet, machine: Newcomer) -> None:
    assert (await machine.join(fleet.url, await code(fleet)))[0] == 0
    async with machine.running() as sidecar:
        while user_of(machine.state) is None:
            await asyncio.sleep(0.1)
        left, said, err = await machine.leave("--purge")
        assert left == 0, (said, err)
        assert await asyncio.wait_for(sidecar.wait(), 10) == 0
    assert await tokens_of(fleet, machine) == []
    assert not machine.config.exists()
    assert not machine.state.exists()


async def test_leaving_without_the_hub_says_what_it_was_not_told(fleet: Fleet, machine: Newcomer) -> None:
    assert (await machine.join(fleet.url, await code(fleet)))[0] == 0
    token = (machine.state / "token").read_text().split("_")[1]
    await fleet.kill_hub()
    left, said, _ = await machine.leave()
    await fleet.start_hub()
    assert left == 0
    told = next(line for line in said if line.get("name") == "hub")
    assert told["detail"] == "the hub was not told"
    assert f"agentcom token revoke {token}" in told["findings"][0]["fix"]
    assert not (machine.state / "token").exists()


async def test_unsettled_work_is_not_left_behind_unsaid_and_never_removed(fleet: Fleet, machine: Newcomer) -> None:
    assert (await machine.join(fleet.url, await code(fleet)))[0] == 0
    hold(machine.state / "agents" / f"{machine.name}-1" / "journal", task=7, lease_epoch=2)
    refused, said, _ = await machine.leave("--purge")
    assert refused == 1
    assert f"{machine.name}-1 holds t-7/2" in faults(said)[0]["found"]
    assert len(await tokens_of(fleet, machine)) == 1, "nothing was changed"
    assert machine.config.exists()
    left, said, _ = await machine.leave("--purge", "--now")
    assert left == 0
    assert await tokens_of(fleet, machine) == []
    assert (machine.state / "agents" / f"{machine.name}-1" / "journal").exists()
    assert any(f"{machine.name}-1 holds t-7/2" in line for line in said[-1]["said"])


async def test_salvaged_work_is_never_removed(fleet: Fleet, machine: Newcomer) -> None:
    assert (await machine.join(fleet.url, await code(fleet)))[0] == 0
    ref = machine.state / "workspaces" / "repos" / "x.git" / "refs" / "agentcom" / "salvage" / "t-1" / "1"
    ref.parent.mkdir(parents=True)
    ref.write_text("0" * 40)
    left, said, _ = await machine.leave("--purge")
    assert left == 0
    assert ref.exists()
    assert any("salvaged work refs/agentcom/salvage/t-1/1" in line for line in said[-1]["said"])


async def test_purging_removes_only_what_the_sidecar_made(fleet: Fleet, machine: Newcomer) -> None:
    assert (await machine.join(fleet.url, await code(fleet)))[0] == 0
    for name in ("notes.txt", ".draft.new"):
        (machine.state / name).write_text("precious")
        (machine.state / name).chmod(0o644)
    assert (await machine.join(fleet.url, None))[0] == 0
    left, said, _ = await machine.leave("--purge")
    assert left == 0
    assert {path.name: path.stat().st_mode & 0o777 for path in machine.state.iterdir()} == {
        "notes.txt": 0o644,
        ".draft.new": 0o644,
    }
    assert any("also holds .draft.new, notes.txt" in line for line in said[-1]["said"])


async def test_a_directory_with_other_things_is_neither_joined_nor_left_nor_changed(place: Path, machine: Newcomer) -> None:
    machine.state.mkdir(parents=True)
    for name in ("token", "join.json", ".draft.new"):
        (machine.state / name).write_text("precious")
        (machine.state / name).chmod(0o644)
    failed, said, _ = await machine.join("http://127.0.0.1:1", None)
    assert failed == 1
    assert "no install_id, and holds join.json, token" in next(f["found"] for f in faults(said) if f["check"] == "state_dir")
    machine.config.write_text(
        f'hub_url = "ws://127.0.0.1:1/ws"\nstate_dir = "{machine.state}"\n[[agents]]\nid = "a"\nruntime = "mock"\n'
    )
    failed, said, _ = await machine.leave("--purge", "--now")
    assert failed == 1
    assert faults(said)[0]["check"] == "state_dir"
    assert {path.name: path.read_text() for path in machine.state.iterdir()} == dict.fromkeys(
        ("token", "join.json", ".draft.new"), "precious"
    )
    assert {path.stat().st_mode & 0o777 for path in machine.state.iterdir()} == {0o644}


async def test_a_join_that_failed_after_it_registered_can_be_left(fleet: Fleet, machine: Newcomer) -> None:
    await machine.join_until_killed_after(3, fleet.url, await code(fleet))
    assert len(await tokens_of(fleet, machine)) == 1
    assert not machine.config.exists()
    left, said, err = await machine.leave("--state-dir", str(machine.state))
    assert left == 0, (said, err)
    assert await tokens_of(fleet, machine) == []
    again, said, err = await machine.leave("--state-dir", str(machine.state))
    assert (again, err) == (0, "")
    assert "nothing to leave" in said[-1]["said"][0]


async def test_a_leave_that_is_killed_goes_on_when_it_is_called_again(fleet: Fleet, machine: Newcomer) -> None:
    assert (await machine.join(fleet.url, await code(fleet)))[0] == 0
    for step in range(1, 6):
        process = await machine.start("leave", "--config", str(machine.config), "--json", "--purge")
        assert process.stdout is not None
        for _ in range(step):
            await process.stdout.readline()
        with contextlib.suppress(ProcessLookupError):  # it was quicker
            process.kill()
        if await process.wait() == 0:
            break  # then everything is done, and there is nothing left to leave
    else:
        left, _, err = await machine.leave("--purge")
        assert (left, err) == (0, "") or not machine.config.exists()
    assert await tokens_of(fleet, machine) == []
    assert not machine.config.exists()
    assert not machine.state.exists()


async def test_a_file_of_one_state_is_not_made_that_of_another(
    fleet: Fleet, veteran: tuple[Newcomer, str], place: Path
) -> None:
    machine, _ = veteran
    before = machine.config.read_text()
    other = Newcomer(place, "other-state")
    other.config = machine.config
    failed, said, _ = await other.join(fleet.url, await code(fleet))
    assert failed == 1
    assert [(f["check"], str(machine.state) in f["fix"]) for f in faults(said)] == [("configuration", True)]
    assert machine.config.read_text() == before
    assert await tokens_of(fleet, other) == [], "found before anything is registered"


async def test_a_shared_token_is_not_given_back(fleet: Fleet, machine: Newcomer) -> None:
    """A machine that was configured by hand uses a token which others may use, too."""
    machine.config.parent.mkdir(parents=True)
    machine.config.write_text(
        f'hub_url = "ws://127.0.0.1:{fleet.port}/ws"\ntoken_file = "{fleet.agent_token_file}"\nstate_dir = "{machine.state}"\n'
        '[[agents]]\nid = "a"\nruntime = "mock"\n'
    )
    machine.state.mkdir()
    left, said, _ = await machine.leave()
    assert left == 0
    assert "no token of a join" in said[3]["detail"]
    assert machine.config.exists()
    async with HubClient(fleet.url, fleet.agent_token_file.read_text().strip()) as shared:
        assert (await shared.whoami())["scopes"] == ["agent:*"]
