"""Finds plugins and owns the names that they bring."""
