from collections.abc import Callable, Iterator

import httpx2
import pytest
from typer import testing
from typer.main import get_command
from typer.testing import CliRunner, Result

from hub.cli import session
from hub.cli.root import app
from hub.client import HubClient
from hub.ids import Scope
from tests.support.doors import House

JOINED_FILE = session.joined_file


@pytest.fixture(autouse=True)
def nobody_joined(monkeypatch, tmp_path):
    """Whether a sidecar has joined on the machine of the tests is not their business."""
    monkeypatch.setattr(session, "joined_file", lambda: tmp_path / "none.toml")


@pytest.fixture
def house(monkeypatch) -> Iterator[House]:
    """A hub behind the command line; ``house.scope`` says whose token it uses."""
    house = House()
    house.scope = Scope.ADMIN

    def open_client(target: session.Target, *, admin: bool = False) -> HubClient:
        return HubClient(target.url, house.tokens[house.scope], transport=httpx2.ASGITransport(house.app))

    monkeypatch.setattr(session, "open_client", open_client)
    yield house
    house.close()


COMMAND = get_command(app)


@pytest.fixture
def agentcom(monkeypatch) -> Callable[..., Result]:
    # the tree of commands takes 0.1 s to build: once is enough
    monkeypatch.setattr(testing, "_get_command", lambda _: COMMAND)

    def run(*argv: str, stdin: str | None = None) -> Result:
        done = CliRunner(env={"NO_COLOR": "1", "COLUMNS": "200"}).invoke(app, list(argv), input=stdin)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return run
