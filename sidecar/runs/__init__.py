"""Processes: one run under its shim, one command to its end, and nothing left behind."""
