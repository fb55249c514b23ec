"""The doors: where requests come in, are authenticated and validated, and become commands.

A door decides nothing and stores nothing.
"""
