"""Plugins: packages of other people with steps, how one is begun, and what is wrong with those that are installed."""

from icestream.plugins.installed import InstalledPlugin, list_plugins
from icestream.plugins.skeleton import make_plugin

__all__ = ["InstalledPlugin", "list_plugins", "make_plugin"]
