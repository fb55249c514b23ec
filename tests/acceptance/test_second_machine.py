"""A second machine: a network namespace with a user and a home of its own joins a hub over a private network, works, and leaves.

Makes a network namespace and three system users, and starts an ssh daemon, so it wants to be asked for: root, iproute2, openssh-server
and ``SYSTEM_TESTS=1``.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hub.client import HubClient
from tests.support.fleet import wait_until
from tests.support.interpreters import interpreter_for_all
from tests.support.repos import git

NEEDED = ("ip", "setpriv", "useradd", "userdel", "/usr/sbin/sshd", "ssh-keygen")
MISSING = [name for name in NEEDED if shutil.which(name) is None]
pytestmark = [
    pytest.mark.timeout(150),
    pytest.mark.skipif(os.environ.get("SYSTEM_TESTS") != "1", reason="asks for SYSTEM_TESTS=1"),
    pytest.mark.skipif(os.geteuid() != 0 or bool(MISSING), reason=f"needs root and {', '.join(MISSING) or 'nothing else'}"),
]

NET = f"10.{100 + os.getpid() % 100}.{os.getpid() // 100 % 250}"
HERE, THERE = f"{NET}.1", f"{NET}.2"
AGENT = """#!/bin/sh
# An agent: does what its prompt says and commits it.
grep '^APPEND ' "$1" | cut -c8- >> NOTES.md
git add NOTES.md
git commit -q -m "docs: add a note"
id -un > "$HOME/who-worked"
"""


@dataclass(frozen=True, slots=True)
class User:
    """A system user with a home below the test's directory."""

    name: str
    home: Path

    namespace: tuple[str, ...] = ()

    async def start(self, *argv: str, env: Mapping[str, str] | None = None, output: Any = None) -> asyncio.subprocess.Process:
        """Start ``agentcom`` as this user, on this user's machine."""
        account = pwd.getpwnam(self.name)
        interpreter, path = interpreter_for_all()
        return await asyncio.create_subprocess_exec(
            *self.namespace,
            *("setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", "--"),
            *(interpreter, "-m", "hub.cli", *argv),
            cwd=self.home,
            env={"HOME": str(self.home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": path, **(env or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output or asyncio.subprocess.PIPE,
            stderr=output or asyncio.subprocess.STDOUT,
        )

    async def run(self, *argv: str, env: Mapping[str, str] | None = None) -> str:
        """Run it to its end, which must be a good one."""
        process = await self.start(*argv, env=env)
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, out.decode()
        return out.decode()


@contextmanager
def user(top: Path, name: str, namespace: Sequence[str] = ()) -> Iterator[User]:
    home = top / name
    # '*' is no password and, unlike '!', no lock: sshd turns locked accounts away
    subprocess.run(["useradd", "-m", "-d", str(home), "-s", "/bin/sh", "-p", "*", name], check=True)
    try:
        yield User(name, home, tuple(namespace))
    finally:
        subprocess.run(["userdel", name], check=True)


@contextmanager
def second_machine() -> Iterator[list[str]]:
    """A network namespace that reaches this one over a cable; yields what runs a command there."""
    name, cable = f"ac-{os.getpid()}", f"ac{os.getpid()}"
    plan = [
        f"netns add {name}",
        f"link add {cable}a type veth peer name {cable}b netns {name}",
        f"addr add {HERE}/24 dev {cable}a",
        f"link set {cable}a up",
        f"-n {name} addr add {THERE}/24 dev {cable}b",
        f"-n {name} link set {cable}b up",
        f"-n {name} link set lo up",
    ]
    try:
        for step in plan:
            subprocess.run(["ip", *step.split()], check=True)
        yield ["ip", "netns", "exec", name]
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


@contextmanager
def ssh_server(top: Path, owner: User, keys: list[Path]) -> Iterator[int]:
    """An ssh daemon for ``owner`` alone, which lets in whoever has one of ``keys``; yields its port."""
    port = free_port(HERE)
    place = top / "sshd"
    place.mkdir()
    Path("/run/sshd").mkdir(exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / "host")], check=True)
    (place / "keys").write_text("".join(key.with_suffix(".pub").read_text() for key in keys))
    (place / "config").write_text(
        f"ListenAddress {HERE}\nPort {port}\nHostKey {place}/host\nAuthorizedKeysFile {place}/keys\nPidFile none\n"
        f"StrictModes no\nUsePAM no\nPasswordAuthentication no\nAllowUsers {owner.name}\n"
    )
    with (place / "log").open("wb") as log:
        daemon = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", str(place / "config")], stderr=log)
    try:
        yield port
    finally:
        daemon.terminate()
        daemon.wait(10)


def key_of(user: User) -> Path:
    """A key of this user, and a configuration that trusts a host when it is first seen."""
    ssh = user.home / ".ssh"
    ssh.mkdir(mode=0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh / "id_ed25519")], check=True)
    (ssh / "config").write_text(
        f"Host *\n  StrictHostKeyChecking accept-new\n  UserKnownHostsFile {ssh}/known\n  IdentityFile {ssh}/id_ed25519\n"
    )
    for path in [ssh, *ssh.iterdir()]:
        shutil.chown(path, user.name, user.name)
    return ssh / "id_ed25519"


def free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True)
class Story:
    """What happened when, for whoever reads the output of this test."""

    began: float = field(default_factory=time.monotonic)

    def tell(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f}s  {text}", flush=True)


@asynccontextmanager
async def hub(user: User, story: Story) -> AsyncIterator[tuple[str, HubClient]]:
    """A hub of this machine, listening on the private network; its administrator's client."""
    port, data, log_file = free_port(HERE), user.home / "data", user.home / "hub.log"
    config = user.home / "hub.toml"
    config.write_text(
        f'data_dir = "data"\n[listen]\nhost = "{HERE}"\nport = {port}\ntrusted_networks = ["{NET}.0/24"]\n[log]\nformat = "json"\n'
    )
    with log_file.open("wb") as log:
        process = await user.start("server", "start", "--config", str(config), output=log)
    try:
        url = f"http://{HERE}:{port}"
        await user.run("--url", url, "status", "--wait", "--timeout", "30", env={"AGENTCOM_DATA_DIR": str(data)})
        story.tell(f"agentcom server start --config hub.toml: ready on {url}")
        async with HubClient(url, (data / "admin.token").read_text().strip()) as admin:
            yield url, admin
    finally:
        process.terminate()
        await process.wait()


async def test_a_second_machine_joins_over_a_private_network_and_its_first_change_is_merged() -> None:
    top = Path(tempfile.mkdtemp(prefix="agentcom-second-"))
    top.chmod(0o755)
    story, suffix = Story(), os.getpid()
    try:
        with (
            second_machine() as namespace,
            user(top, f"acgit{suffix}") as keeper,
            user(top, f"achub{suffix}") as operator,
            user(top, f"acguest{suffix}", namespace) as guest,
            ssh_server(top, keeper, [key_of(operator), key_of(guest)]) as port,
        ):
            where = await asyncio.to_thread(make_remote, keeper, port)
            async with hub(operator, story) as (url, admin):
                await play(story, admin, url, where, guest)
            shown = git("--git-dir", str(keeper.home / "site.git"), "log", "--format=%s|%an", "main", cwd=top, env=TRUSTED)
            assert "docs: add a note|AgentCom" in shown
    finally:
        shutil.rmtree(top)


TRUSTED = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}


def make_remote(keeper: User, port: int) -> str:
    """A bare repository that belongs to ``keeper`` and is reached over ssh."""
    bare, seed = keeper.home / "site.git", keeper.home / "seed"
    git("init", "-q", "-b", "main", str(seed), cwd=keeper.home)
    (seed / "README.md").write_text("# Site\n")
    git("add", "-A", cwd=seed)
    git("commit", "-q", "-m", "Begin", cwd=seed)
    git("clone", "-q", "--bare", str(seed), str(bare), cwd=keeper.home)
    for path in [keeper.home, *keeper.home.rglob("*")]:
        shutil.chown(path, keeper.name, keeper.name)
    return f"ssh://{keeper.name}@{HERE}:{port}{bare}"


async def play(story: Story, admin: HubClient, url: str, where: str, guest: User) -> None:
    check = {"kind": "file_exists", "target": "README.md"}
    await admin.add_repo("site", where, base="main", policy={"auto_merge_tier1": True}, checks=[check])  # type: ignore[list-item]  # a literal is no TypedDict to mypy
    story.tell(f"agentcom repo add site {where}")
    code = (await admin.create_enrolment())["code"]
    story.tell("agentcom enrol create")
    program = guest.home / "agent.sh"
    program.write_text(AGENT)
    program.chmod(0o755)
    began = time.monotonic()
    joined = await guest.start(
        *("join", url, "--enrol", code, "--name", "second", "--command", f"{program} {{prompt_file}}", "--foreground", "--json")
    )
    try:
        assert joined.stdout is not None
        async with asyncio.timeout(60):
            while line := await joined.stdout.readline():
                step = json.loads(line)
                if "name" not in step:
                    break
                assert step["state"] != "fail", step
                story.tell(f"  {step['step']}/{step['of']} {step['name']}: {step['state']} {step['detail']}")
        assert joined.returncode is None, "it goes on as the sidecar"
        story.tell(f"agentcom join … as {guest.name} in a network of its own: {time.monotonic() - began:.1f} s")
        assert {agent["id"] for agent in (await admin.agents())["agents"]} == {"second-1", "second-2", "second-checks"}
        task = await admin.submit({"title": "Add a note", "repo": "site", "description": "APPEND Written far away."})
        async with asyncio.timeout(60):
            ended = await admin.until_ended(task["id"])
        assert ended["state"] == "done", ended["explanation"]
        story.tell(f"agentcom task submit …: {ended['explanation']}")
        assert (guest.home / "who-worked").read_text().strip() == guest.name
        left = await guest.run("leave")
        story.tell("agentcom leave")
        assert "token" in left

        async def gone() -> bool:
            return all(not token["live"] for token in (await admin.tokens())["tokens"] if token["name"] == "machine:second")

        await wait_until(gone, limit_s=10, what="its token ends")
    finally:
        if joined.returncode is None:
            joined.terminate()
        await asyncio.wait_for(joined.communicate(), 30)
