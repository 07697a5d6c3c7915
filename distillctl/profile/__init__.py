"""Profiles: the tables (`schema`), and how a file becomes one checked `Profile` (`reading`). Imports no torch."""
