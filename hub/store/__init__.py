"""The memory: the scheduler's journal, operations on records, queries for the doors, recovery. SQL lives in named files."""
