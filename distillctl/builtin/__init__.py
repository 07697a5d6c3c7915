"""Plugins that ship with the core and come through the same hooks as everybody else's."""
