"""Remotes: where branches come from and merges go. ``base`` is the interface, one module per kind of forge implements it."""
