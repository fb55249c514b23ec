"""Bodies too large for a frame, kept under their own SHA-256, so that storing one twice is nothing."""

from __future__ import annotations

from hub.store.base import Operation, Reader, Tx


def put(sha256: str, body: bytes) -> Operation[bool]:
    """Store a body whose digest the door has verified; True if it was new. One that was there is as if it were new, too: somebody
    is about to name it.
    """

    def operation(tx: Tx) -> bool:
        if tx.run("blob_insert", sha256=sha256, size=len(body), now=tx.now, body=body) == 1:
            return True
        tx.run("blob_touch", sha256=sha256, now=tx.now)
        return False

    return operation


async def get(reader: Reader, sha256: str) -> bytes | None:
    """The body, or None."""
    row = await reader.one("blob_by_sha256", sha256=sha256)
    return bytes(row["body"]) if row is not None else None
