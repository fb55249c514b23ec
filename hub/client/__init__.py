"""The Python API of the hub: an async, typed client over HTTP. Knows the words of the glossary and nothing of the hub's inside."""

from hub.client.api import HubClient
from hub.client.errors import HubProblem, HubUnreachable
from hub.client.stream import Reset, Started, StreamItem

__all__ = ["HubClient", "HubProblem", "HubUnreachable", "Reset", "Started", "StreamItem"]
