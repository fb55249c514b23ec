import json
import re

import pytest

from hub.cli.exits import Exit
from hub.ids import Scope


def test_a_token_is_created_listed_and_revoked(house, agentcom):
    made = agentcom("token", "create", "alice", "--scope", "approver")
    assert made.exit_code == Exit.OK
    token = made.stdout.strip()
    assert token.startswith("ac_")
    assert "Shown this once" in made.stderr
    token_id = token.split("_")[1]
    listed = agentcom("token", "list").stdout
    assert f"{token_id}\talice\tapprover\ta person\tadmin\t" in listed
    assert token not in listed
    assert "is revoked" in agentcom("token", "revoke", token_id).stdout
    assert token_id not in agentcom("token", "list").stdout
    assert "revoked by admin" in agentcom("token", "list", "--all").stdout


def test_a_token_for_agents_is_a_programs_and_names_them(house, agentcom):
    made = json.loads(agentcom("token", "create", "m1", "--agent", "w1", "--agent", "w2", "--expires", "30d", "--json").stdout)
    assert made["scopes"] == ["agent:w1", "agent:w2"]
    assert made["person"] is False
    assert made["ends_at"].startswith("2027-02-14")


def test_a_token_needs_something_it_is_good_for(house, agentcom):
    refused = agentcom("token", "create", "alice")
    assert refused.exit_code == Exit.USAGE
    assert "--scope or --agent" in refused.stderr


@pytest.mark.parametrize("span", ["", "3", "m", "-1m", "1.5h", "1w", "99999999d"])
def test_an_unreadable_span_is_wrong_usage(house, agentcom, span):
    refused = agentcom("token", "create", "alice", "--scope", "observer", "--expires", span)
    assert refused.exit_code == Exit.USAGE
    assert "15m, 12h or 30d" in refused.stderr


def test_only_an_administrator_issues(house, agentcom):
    house.scope = Scope.OPERATOR
    refused = agentcom("token", "create", "alice", "--scope", "admin")
    assert refused.exit_code == Exit.UNAUTHORISED
    assert "needs the scope admin" in refused.stderr
    assert agentcom("enrol", "create").exit_code == Exit.UNAUTHORISED


def test_a_code_comes_with_the_command_that_uses_it(house, agentcom):
    made = agentcom("--url", "http://hub.example:8790", "enrol", "create")
    assert made.exit_code == Exit.OK
    assert re.search(r"AGENTCOM_ENROL=ac_\w+_[\w-]{43} agentcom join http://hub\.example:8790 --command ", made.stdout)
    assert made.stderr == ""
    assert "address under which" in agentcom("enrol", "create").stderr


def test_who_am_i(house, agentcom):
    house.scope = Scope.APPROVER
    shown = agentcom("whoami").stdout
    assert "approver" in shown
    assert "a person's" in shown
