"""Bytes to frames and back, with every fault of a bad frame reported at once.

Decoding is strict (no coercion), bounded (256 KiB per frame) and total: any bytes give a frame or one of the typed failures below,
never another exception.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import Annotated  # noqa: UP035  pydantic needs the discriminator on the alias itself

from hub.wire.frames import FieldError, Frame, FromHub, FromSidecar, Result
from hub.wire.spec import Spec

FRAME_BYTES = 262_144
"""Largest frame either side builds (protocol §2)."""

FAULTS = 32
"""Faults that one error frame lists."""

_sidecar: TypeAdapter[FromSidecar] = TypeAdapter(Annotated[FromSidecar, Field(discriminator="t")])
_hub: TypeAdapter[FromHub] = TypeAdapter(Annotated[FromHub, Field(discriminator="t")])
_spec: TypeAdapter[Spec] = TypeAdapter(Spec)


class FrameError(ValueError):
    """A frame that cannot be accepted. ``re`` is its id when that much could be read."""

    code = "malformed"

    def __init__(self, message: str, *, re: int | None = None, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(message)
        self.re = re
        self.errors = errors


class Unsupported(FrameError):
    """A well-formed frame of a type this side does not know; the link lives on."""

    code = "unsupported"


class MalformedResult(FrameError):
    """A ``result`` whose task and lease epoch can be read but whose body is invalid: it still ends in a verdict (protocol §5)."""

    code = "malformed_result"

    def __init__(
        self, message: str, *, re: int | None, errors: tuple[FieldError, ...], task: int, lease_epoch: int, raw: bytes
    ) -> None:
        super().__init__(message, re=re, errors=errors)
        self.task = task
        self.lease_epoch = lease_epoch
        self.raw = raw


def encode(frame: Frame) -> bytes:
    """Encode one frame; raises ValueError if it is larger than :data:`FRAME_BYTES` (the caller must use a blob reference)."""
    data = orjson.dumps(frame)
    if len(data) > FRAME_BYTES:
        raise ValueError(f"frame {frame.t} has {len(data)} bytes; the limit is {FRAME_BYTES}")
    return data


def decode_from_sidecar(data: bytes | str) -> FromSidecar:
    """Decode a frame that a sidecar sent; raises :class:`FrameError` or a subclass."""
    try:
        return _sidecar.validate_json(data, strict=True) if _small(data) else _oversize()
    except ValidationError as fault:
        raise _explain(fault, data) from None


def decode_from_hub(data: bytes | str) -> FromHub:
    """Decode a frame that the hub sent; raises :class:`FrameError` or a subclass."""
    try:
        return _hub.validate_json(data, strict=True) if _small(data) else _oversize()
    except ValidationError as fault:
        raise _explain(fault, data) from None


def encode_spec(spec: Spec) -> bytes:
    """The spec as a blob."""
    return orjson.dumps(spec)


def decode_spec(data: bytes | str) -> Spec:
    """A spec from a blob or a journal; raises :class:`FrameError`."""
    try:
        return _spec.validate_json(data, strict=True)
    except ValidationError as fault:
        raise FrameError("invalid spec", errors=_field_errors(fault)) from None


def result_digest(result: Result | dict[str, Any]) -> str:
    """SHA-256 over the canonical JSON of a result's body, without the envelope and without ``sha256`` itself."""
    body = orjson.loads(orjson.dumps(result))
    for key in ("id", "re", "e", "tp", "t", "sha256"):
        body.pop(key, None)
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _small(data: bytes | str) -> bool:
    return len(data) <= FRAME_BYTES


def _oversize() -> Any:
    raise FrameError(f"frame is larger than {FRAME_BYTES} bytes; send large bodies as blobs")


def _field_errors(fault: ValidationError) -> tuple[FieldError, ...]:
    return tuple(
        FieldError(loc=".".join(str(part) for part in error["loc"])[:256], type=error["type"][:64], msg=error["msg"][:1024])
        for error in fault.errors(include_url=False, include_input=False, include_context=False)[:FAULTS]
    )


def _invalid(fault: ValidationError, kind: object) -> str:
    """What is wrong as a whole; says so when not every fault can be listed."""
    if not kind:
        return "a frame needs a type in 't'"
    more = f": {fault.error_count()} faults, the first {FAULTS} are listed" if fault.error_count() > FAULTS else ""
    return f"invalid {str(kind)[:64]!r} frame{more}"


def _explain(fault: ValidationError, data: bytes | str) -> FrameError:
    """Turn pydantic's report into the protocol's words, salvaging the ids that a useful answer needs."""
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as unreadable:
        return FrameError(f"not a JSON object: {unreadable}"[:1024])
    if not isinstance(body, dict):
        return FrameError("not a JSON object")
    re = body.get("id")
    re = re if isinstance(re, int) and not isinstance(re, bool) and 0 <= re <= 2**53 else None
    errors = _field_errors(fault)
    kind = body.get("t")
    if any(error.type == "union_tag_invalid" for error in errors):
        return Unsupported(f"frame type {str(kind)[:64]!r} is not supported", re=re)
    task, epoch = body.get("task"), body.get("lease_epoch")
    if kind == "result" and type(task) is int and type(epoch) is int and 1 <= task <= 2**53 and 0 <= epoch <= 2**53:
        raw = data if isinstance(data, bytes) else data.encode()
        return MalformedResult(_invalid(fault, kind), re=re, errors=errors, task=task, lease_epoch=epoch, raw=raw)
    return FrameError(_invalid(fault, kind), re=re, errors=errors if kind else ())
