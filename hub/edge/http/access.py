"""What each route demands of its caller. A route states it by the type of a parameter; one that does not cannot be mounted."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from hub.edge.auth import Identity, require
from hub.edge.http.doors import Doors
from hub.edge.http.registry import Registrar
from hub.ids import Scope


class Needs:
    """A dependency: the caller's identity, refused 403 unless it has one of ``scopes``."""

    def __init__(self, *scopes: Scope) -> None:
        self.scopes = scopes

    async def __call__(self, request: Request) -> Identity:
        """The identity the middleware authenticated."""
        identity: Identity = request.state.identity
        require(identity, *self.scopes)
        return identity


async def _doors(request: Request) -> Doors:
    doors: Doors = request.app.state.doors
    return doors


async def _registrar(request: Request) -> Registrar:
    registrar: Registrar = request.app.state.registrar
    return registrar


Hub = Annotated[Doors, Depends(_doors)]
Edits = Annotated[Registrar, Depends(_registrar)]
Admin = Annotated[Identity, Depends(Needs(Scope.ADMIN))]
Operator = Annotated[Identity, Depends(Needs(Scope.OPERATOR))]
Review = Annotated[Identity, Depends(Needs(Scope.APPROVER, Scope.OPERATOR))]
Submitter = Annotated[Identity, Depends(Needs(Scope.SUBMITTER))]
Observer = Annotated[Identity, Depends(Needs(Scope.OBSERVER))]
Sidecar = Annotated[Identity, Depends(Needs(Scope.AGENT))]
Prober = Annotated[Identity, Depends(Needs(Scope.AGENT, Scope.OPERATOR))]
Code = Annotated[Identity, Depends(Needs(Scope.ENROL))]
Anybody = Annotated[Identity, Depends(Needs(*Scope))]

READS = Depends(Needs(Scope.OBSERVER))
OPERATES = Depends(Needs(Scope.OPERATOR))
ADMINS = Depends(Needs(Scope.ADMIN))
"""For routes that need no name of the caller."""
