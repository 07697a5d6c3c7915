"""Pseudo labels: a teacher's answers as targets."""
