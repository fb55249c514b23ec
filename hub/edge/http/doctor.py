"""The running hub examined by itself; a door that is never in the way of work, for people with a problem."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from hub.edge.http.access import ADMINS, OPERATES, Hub
from hub.edge.http.fields import Out
from hub.edge.http.reading import JsonRoute
from hub.ids import FindingState
from hub.wire.finding import Finding

router = APIRouter(prefix="/doctor", tags=["doctor"], route_class=JsonRoute)


class FindingOut(Out):
    """One check. ``fix`` says what to do; where it is ``fixable``, POST does it."""

    check: str
    state: FindingState
    found: str
    fix: str | None
    fixable: bool


class DoctorOut(Out):
    """Everything that was looked at."""

    version: str
    findings: list[FindingOut]


@router.get("", dependencies=[OPERATES])
async def examine(hub: Hub) -> DoctorOut:
    """Store, disk, permissions, git, branches and clones, as the hub itself sees them. Asks each remote, for 20 seconds at most."""
    return _document(hub.version, await hub.doctor.examine())


@router.post("", dependencies=[ADMINS])
async def mend(hub: Hub) -> DoctorOut:
    """Do what is called ``fixable``, and look again. Deletes only what this hub knows to be spent."""
    return _document(hub.version, await hub.doctor.mend())


def _document(version: str, found: Sequence[Finding]) -> DoctorOut:
    return DoctorOut(version=version, findings=[FindingOut.model_validate(one) for one in found])
