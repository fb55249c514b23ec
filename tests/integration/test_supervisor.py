"""A hub that systemd starts says when it is ready and when it goes."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from hub.app import Hub
from hub.settings import HubSettings
from hub.settings.tree import Listen


async def test_ready_is_said_once_the_hub_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        hub = Hub(HubSettings(data_dir=tmp_path / "data", listen=Listen(port=0)))
        announced: list[str] = []
        running = asyncio.create_task(hub.run(announced.append))
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20):
            assert await loop.sock_recv(supervisor, 100) == b"READY=1"
            assert announced[0].startswith("http://127.0.0.1:")
            hub.stop()
            assert await loop.sock_recv(supervisor, 100) == b"STOPPING=1"
            await running
