"""The process beside the agents: holds assignments, makes workspaces, wakes agents, verifies, pushes, reports."""
