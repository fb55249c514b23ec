"""One target under atheris, with the arguments of libFuzzer: ``python -m tests.fuzz.led NAME CORPUS… -runs=N``."""

from __future__ import annotations

import sys

import atheris
import structlog

with atheris.instrument_imports(include=["hub", "sidecar"]):
    from tests.fuzz.targets import TARGETS

name, *arguments = sys.argv[1:]
structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
atheris.Setup([sys.argv[0], *arguments], TARGETS[name].check)
atheris.Fuzz()
