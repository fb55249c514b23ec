"""Where an agent works, and the git around it."""
