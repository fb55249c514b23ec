"""Judging what an agent has made."""
