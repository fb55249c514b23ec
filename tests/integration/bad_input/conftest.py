from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.ids import Scope
from tests.support.living_hub import LivingHub, living_hub
from tests.support.repos import make_remote


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivingHub]:
    """One hub for a module's whole table.

    It knows the repository ``site``, t-1 (held, key ``used``), t-2 (held, unique key ``taken``), t-3 (done), and the agents
    ``sentinel``, which is quiet, and ``owner``, which works on t-4 with the fence 1.
    """
    root: Path = tmp_path_factory.mktemp("hub")
    with living_hub(root) as hub:
        for name in (Scope.APPROVER, Scope.SUBMITTER, Scope.OBSERVER):
            hub.issue(name, name)
        hub.issue("elsewhere", "agent:elsewhere", person=False)
        hub.tokens["enrol"] = hub.made("POST", "/enrolments", {})["code"]
        hub.made("POST", "/repos", {"name": "site", "url": make_remote(root, {"a.txt": "a\n"}).url})
        hub.made("POST", "/tasks", {"title": "held", "hold": True, "idempotency_key": "used"})
        hub.made("POST", "/tasks", {"title": "single", "hold": True, "unique_key": "taken"})
        hub.made("POST", "/tasks", {"title": "finished", "hold": True})
        hub.made("POST", "/tasks/t-3/complete", {"reason": "by hand"})
        owner, task = hub.working("owner")
        assert (task, hub.complaints()) == (4, [])
        yield hub
        owner.close()
        assert hub.complaints() == []
