"""Everything that can be set: one frozen tree, and where each value came from.

``tree`` says what there is, ``listening`` who may be listened to, ``sources`` reads flags, environment and file, ``resolve``
makes one tree of them, ``document`` writes the commented file and the reference. Only the composition root and the command
line read settings; everybody else is handed values.
"""

from hub.settings.resolve import Resolved, SettingsError, resolve
from hub.settings.sources import Origin, default_file
from hub.settings.tree import HubSettings, default_data_dir

__all__ = ["HubSettings", "Origin", "Resolved", "SettingsError", "default_data_dir", "default_file", "resolve"]
