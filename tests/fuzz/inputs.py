"""From any bytes to inputs that get further than noise does: pieces, and good examples with something wrong in them."""

from __future__ import annotations

from collections.abc import Sequence


class Bytes:
    """Takes an input apart from its front; what is missing is zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._data)

    def number(self, size: int = 1) -> int:
        return int.from_bytes(self.take(size), "big")

    def one_of(self, choices: Sequence[bytes]) -> bytes:
        return choices[self.number() % len(choices)]

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def piece(self) -> bytes:
        """As many bytes as the next one says."""
        return self.take(self.number())

    def rest(self) -> bytes:
        return self.take(len(self._data))


def near(data: bytes, examples: Sequence[bytes]) -> bytes:
    """A first byte of 0 to 127 is noise as it is; from 128 on it names an example, of which up to 255 bytes are replaced by the rest."""
    if not data or data[0] < 128:
        return data
    source = Bytes(data)
    example = examples[(source.number() - 128) % len(examples)]
    at, cut = source.number(2) % (len(example) + 1), source.number()
    return example[:at] + source.rest() + example[at + cut :]
