"""The rules: pure, deterministic, without clock, loop, I/O or randomness of their own."""
