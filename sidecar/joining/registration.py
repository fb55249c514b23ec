"""The steps by which the hub gets to know this machine. The secret is made here, once, and only its digest travels."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import replace

from hub.ids import FindingState
from hub.wire.finding import Finding, fail
from sidecar.app import install_id
from sidecar.doctor import hub as hub_side
from sidecar.files import write_durably
from sidecar.hub import Hub, Refusal, Unreachable
from sidecar.joining import progress
from sidecar.joining.plan import Plan
from sidecar.joining.progress import Progress
from sidecar.joining.step import Joining, Outcome, StepError, read_text
from sidecar.workspace.premises import OWN_FILES

TOKEN = re.compile(r"ac_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
NEW_CODE = "make a new code on the hub: agentcom enrol create"
VERSIONS = "update the hub, or this machine, to the same version"


def identity(joining: Joining) -> Outcome:
    """Who this installation is, and the secret that proves it: made once, and it never leaves this machine."""
    plan = joining.plan
    for name in OWN_FILES:  # a join was killed while it wrote
        (plan.state_dir / f".{name}.new").unlink(missing_ok=True)
    known = install_id(plan.state_dir)
    if not TOKEN.fullmatch(joining.token) and not (read_text(plan.secret_file) or "").strip():
        write_durably(plan.secret_file, secrets.token_urlsafe(32))
    return Outcome(f"installation {known[:8]}… in {plan.state_dir}")


def registration(joining: Joining) -> Outcome:
    """The machine's token: the hub learns the digest of the secret, and names the rest."""
    plan = joining.plan
    _take_up(joining)
    stands_in_the_way = _registered(joining)
    if stands_in_the_way is None:
        return Outcome(f"already known to the hub as {joining.token.split('_')[1]}")
    if plan.code is None:
        raise StepError([stands_in_the_way])
    token = TOKEN.fullmatch(joining.token)
    secret = token[2] if token else (read_text(plan.secret_file) or "").strip()
    body = {
        "install_id": install_id(plan.state_dir),
        "secret_sha256": hashlib.sha256(secret.encode()).hexdigest(),
        "agents": list(plan.agents),
        "hostname": plan.name,
    }
    try:
        with Hub(plan.url, plan.code) as hub:
            answer = hub.ask("POST", "/enrol", body)
    except Unreachable as fault:
        raise StepError([fail("hub", str(fault), fault.cure)]) from fault
    except Refusal as refusal:
        raise StepError(_refused(refusal)) from refusal
    text = f"ac_{answer.get('token_id')}_{secret}"
    if not TOKEN.fullmatch(text):
        raise StepError([fail("hub", "the hub's answer names no token", VERSIONS)])
    before = joining.known
    done = Progress(
        hub=plan.url,
        name=plan.name,
        token_id=str(answer["token_id"]),
        hub_id=str(answer.get("hub_id") or ""),
        agents=plan.agents,
        config=str(plan.config),
        user=before.user if before is not None else "",
        unit=before.unit if before is not None else "",
    )
    progress.write(plan.progress_file, done)
    _keep(plan, text)
    return Outcome(f"token {done.token_id} for {', '.join(plan.agents)}")


def _take_up(joining: Joining) -> None:
    """A join that was killed had the hub's answer and did not come to write the token: its halves are both here."""
    known, secret = joining.known, (read_text(joining.plan.secret_file) or "").strip()
    if known is not None and secret and not joining.token and TOKEN.fullmatch(text := f"ac_{known.token_id}_{secret}"):
        _keep(joining.plan, text)


def _keep(plan: Plan, token: str) -> None:
    write_durably(plan.token_file, f"{token}\n")
    plan.secret_file.unlink(missing_ok=True)


def _registered(joining: Joining) -> Finding | None:
    """None when the hub knows this machine's token for all its agents; otherwise why a code is needed."""
    if not TOKEN.fullmatch(joining.token):
        return fail("code", "an enrolment code is needed", f"{NEW_CODE}; then join with --enrol CODE")
    with Hub(joining.plan.url, joining.token) as hub:
        found = hub_side.token(hub, joining.plan.agents)
    if found.state is FindingState.OK and joining.known is not None:
        return None
    return replace(found, fix=f"{NEW_CODE}; then join with --enrol CODE")


def _refused(refusal: Refusal) -> list[Finding]:
    match refusal.code:
        case "name_taken":
            taken = [str(error.get("msg") or "") for error in refusal.errors] or [str(refusal)]
            cure = "choose another --name; or, if this machine was set up anew, revoke its old token on the hub: agentcom token list"
            return [fail("name", name, cure) for name in taken]
        case "enrolment_used":
            return [fail("code", "another machine, or an earlier installation of this one, has used this code", NEW_CODE)]
    if refusal.status == 401:
        return [fail("code", "the hub does not know this code, or its 15 minutes are over", NEW_CODE)]
    faults = [f"{error.get('loc')}: {error.get('msg')}" for error in refusal.errors] or [f"{refusal} ({refusal.code})"]
    return [fail("hub", fault, VERSIONS) for fault in faults]
