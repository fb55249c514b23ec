"""The protocol ``agentcom.v1``: frames, codec, codes, handshake and hardened git argv. Pure; shared by hub and sidecar."""
