"""Between the protocol's frames and the scheduler's words: pure, one function each way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from hub.core import commands, decision
from hub.core.commands import Command
from hub.ids import AgentId, LeaseEpoch, Outcome, SessionEpoch, TaskId
from hub.wire import frames
from hub.wire.codec import MalformedResult
from hub.wire.frames import Frame

BODY_CHARS = 262_144


def hello(frame: frames.Hello, actor: str, greeting: int, *, admitted_at: int) -> commands.Hello:
    """The command of a hello; ``greeting`` is the number of the link that said it, ``admitted_at`` when its token was given out."""
    return commands.Hello(
        actor=actor,
        agent=AgentId(frame.agent_id),
        install_id=frame.install_id,
        boot_id=frame.boot_id,
        name=frame.name,
        capabilities=frame.capabilities,
        projects=frame.projects,
        runtimes=_json(frame.runtimes),
        host=_json(frame.host),
        held=tuple(commands.HeldItem(task=item.task, lease_epoch=item.lease_epoch, phase=item.phase) for item in frame.held),
        outbox=tuple(
            commands.HeldItem(task=item.task, lease_epoch=item.lease_epoch, sha256=item.sha256) for item in frame.outbox
        ),
        quiet=frame.quiet,
        admitted_at=admitted_at,
        greeting=greeting,
        host_boot=frame.host.boot,
        sent_mono=frame.sent_mono,
    )


def command_of(frame: Frame, agent: AgentId, epoch: SessionEpoch) -> Command | None:
    """What a frame of an open session asks of the scheduler; None if it asks nothing."""
    convert = _COMMANDS.get(type(frame))
    return convert(frame, {"actor": agent, "agent": agent, "session_epoch": epoch}) if convert is not None else None


def malformed(fault: MalformedResult, agent: AgentId, epoch: SessionEpoch) -> commands.Report:
    """A result whose body is invalid still ends in a verdict: a failure, with the raw body as salvage (protocol §5)."""
    words = "; ".join(f"{error.loc}: {error.msg}" for error in fault.errors)[:4096]
    return commands.Report(
        actor=agent,
        agent=agent,
        session_epoch=epoch,
        n=TaskId(fault.task),
        lease_epoch=LeaseEpoch(fault.lease_epoch),
        outcome=Outcome.FAILED,
        sha256=hashlib.sha256(fault.raw).hexdigest(),
        error_class="retryable",
        error_code="malformed_result",
        error_message=words,
        error=_json({"cls": "retryable", "code": "malformed_result", "message": words}),
        body=fault.raw.decode(errors="replace")[:BODY_CHARS],
    )


def _report(frame: frames.Result, who: dict[str, Any]) -> commands.Report:
    error = frame.error
    return commands.Report(
        **who,
        n=frame.task,
        lease_epoch=frame.lease_epoch,
        outcome=frame.outcome,
        sha256=frame.sha256,
        has_change=bool(frame.commits)
        and frame.head_sha is not None
        and frame.head_sha != frame.base_sha
        and bool(frame.branch),
        passed=frame.verification.passed if frame.verification is not None else None,
        error_class=error.cls if error is not None else None,
        error_code=error.code if error is not None else None,
        error_message=error.message if error is not None else "",
        retry_after_ms=error.retry_after_ms if error is not None else None,
        output=frame.output,
        output_ref=frame.output_ref,
        branch=frame.branch,
        base_sha=frame.base_sha,
        head_sha=frame.head_sha,
        commits=_json(frame.commits),
        verification=_json(frame.verification) if frame.verification is not None else None,
        usage=_json(frame.usage) if frame.usage is not None else None,
        error=_json(error) if error is not None else None,
        conversation_id=frame.conversation_id,
        salvage_ref=frame.salvage_ref,
        body=_json(frame),
    )


_COMMANDS: Mapping[type[Any], Callable[[Any, dict[str, Any]], Command]] = {
    frames.Accept: lambda frame, who: commands.Accept(**who, n=frame.task, lease_epoch=frame.lease_epoch, re=frame.id),
    frames.Decline: lambda frame, who: commands.Decline(
        **who, n=frame.task, lease_epoch=frame.lease_epoch, code=frame.code, retry_after_ms=frame.retry_after_ms, re=frame.id
    ),
    frames.Beat: lambda frame, who: commands.Beat(
        **who,
        leases=tuple(
            commands.LeaseHeld(task=item.task, lease_epoch=item.lease_epoch, phase=item.phase, checkpoint=item.checkpoint)
            for item in frame.leases
        ),
        agent_state=frame.agent_state,
        quiet=frame.quiet,
        note=frame.note,
        sent_mono=frame.sent_mono,
        re=frame.id,
    ),
    frames.Progress: lambda frame, who: commands.Progress(
        **who, n=frame.task, lease_epoch=frame.lease_epoch, seq=frame.n, percent=frame.percent, note=frame.note
    ),
    frames.Question: lambda frame, who: commands.Ask(
        **who,
        n=frame.task,
        lease_epoch=frame.lease_epoch,
        qid=frame.qid,
        text=frame.text,
        options=_json(frame.options),
        re=frame.id,
    ),
    frames.Result: _report,
    frames.GiveBack: lambda frame, who: commands.GiveBack(
        **who,
        n=frame.task,
        lease_epoch=frame.lease_epoch,
        reason=frame.reason,
        conversation_id=frame.conversation_id,
        re=frame.id,
    ),
}


def frame_of(effect: decision.Effect) -> Frame:
    """The frame that tells a session of an effect; welcome, grant and close are the link's own business."""
    return _FRAMES[type(effect)](effect)


_FRAMES: Mapping[type[Any], Callable[[Any], Frame]] = {
    decision.PushAssign: lambda effect: frames.Assign(
        task=effect.n,
        lease_epoch=effect.lease_epoch,
        lane=effect.lane,
        repo=effect.repo,
        access=effect.access,
        needs=effect.needs,
    ),
    decision.Revoke: lambda effect: frames.Revoke(task=effect.n, lease_epoch=effect.lease_epoch, code=effect.code),
    decision.AckResult: lambda effect: frames.ResultAck(task=effect.n, lease_epoch=effect.lease_epoch, verdict=effect.verdict),
    # a control's id is its cid, so that the sidecar's ok says which one it noted
    decision.SendControl: lambda effect: frames.Control(
        id=effect.cid,
        cid=effect.cid,
        task=effect.n,
        lease_epoch=effect.lease_epoch,
        kind=effect.kind,
        qid=effect.qid,
        mode=effect.mode,
        text=effect.text,
    ),
    decision.Okay: lambda effect: frames.Ok(re=effect.re),
}


def beaten(effect: decision.Beaten, lease_ms: int) -> frames.Beaten:
    """The answer to a beat with the term each renewed lease has."""
    return frames.Beaten(
        re=effect.re,
        sent_mono=effect.sent_mono,
        leases=tuple(
            frames.LeaseAnswer(task=item.n, lease_epoch=item.lease_epoch, ok=item.ok, lease_ms=lease_ms if item.ok else 0)
            for item in effect.leases
        ),
    )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
