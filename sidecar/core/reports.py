"""Whether what a work reports can become a record: asked before the holder hears of it. Pure."""

from __future__ import annotations

from hub.ids import Outcome
from hub.wire.frames import Result
from hub.wire.spec import RunError
from sidecar.core import effects as fx
from sidecar.core import records
from sidecar.core.effects import Happening
from sidecar.core.records import Key, RecordError, encode
from sidecar.core.results import Delivered, compose


def check_readable(event: Happening) -> None:
    """Raise :class:`RecordError` if what a work reports would become a record that cannot be read back."""
    match event:
        case fx.RunExited(record=record):
            encode(record)
        case fx.Checked(key=key, report=report):
            encode(records.Verified(task=key.task, lease_epoch=key.lease_epoch, report=report))
        case fx.Finished(key=key, result=result):
            encode(records.Concluded(task=key.task, lease_epoch=key.lease_epoch, result=result))
        case _:
            pass  # made of ids and names of our own


def failed(key: Key, fault: RecordError) -> Result:
    """The result in place of one that cannot be read back."""
    error = RunError(cls="retryable", code=fault.code, message=str(fault))
    return compose(key, Outcome.FAILED, error, delivered=Delivered())
