"""TOML files as values, and careful edits of the user's own file (the door to tomlkit)."""

from rvstate.config.edit import differences, key_type, preview, raw, set_keys, wrong
from rvstate.config.layers import cluster_names, load
from rvstate.config.project import project_file, raw_project, set_project_keys
from rvstate.config.sites import keep_site, load_site, read_site, site_names, site_text
from rvstate.config.text import read_toml, toml, write
from rvstate.config.values import (
    DEFAULT,
    Config,
    Explained,
    config_path,
    explain,
    home,
    home_template,
    scratch_template,
)

__all__ = [
    "DEFAULT",
    "Config",
    "Explained",
    "cluster_names",
    "config_path",
    "differences",
    "explain",
    "home",
    "home_template",
    "keep_site",
    "key_type",
    "load",
    "load_site",
    "preview",
    "project_file",
    "raw",
    "raw_project",
    "read_site",
    "read_toml",
    "scratch_template",
    "set_keys",
    "set_project_keys",
    "site_names",
    "site_text",
    "toml",
    "write",
    "wrong",
]
