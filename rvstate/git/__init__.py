"""The door to git, and to the projects that it may know: questions only, nothing is changed."""

from __future__ import annotations

from rvstate.git.call import ask, environment, names
from rvstate.git.files import below, export, scan, tree
from rvstate.git.repository import branches, inspect, is_pushed, version
from rvstate.git.root import find_root, inner_project, is_marked

__all__ = [
    "ask",
    "below",
    "branches",
    "environment",
    "export",
    "find_root",
    "inner_project",
    "inspect",
    "is_marked",
    "is_pushed",
    "names",
    "scan",
    "tree",
    "version",
]
