"""What is right and wrong with this machine, its hub and a sidecar's state: findings, each with its cure."""
