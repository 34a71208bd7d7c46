"""Runs of DVC, and their experiments."""
