"""AgentCom's hub: the hub decides, the sidecar acts, the agent works."""

__version__ = "0.1.0"
