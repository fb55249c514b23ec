"""Agents a sidecar can wake: one module per kind, all behind :class:`sidecar.runtimes.base.Runtime`."""
