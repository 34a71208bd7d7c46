"""Layers over an environment that is there, as a pipeline asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rvstate.model.layout import Account, Layout
from rvstate.model.runtime_env import runtime_env
from rvstate.model.settings import PINNED
from rvstate.paths import RemotePath
from rvstate.script import Script
from rvstate.workflows.run import layers


def layer(
    generation: Path | str,
    table: Mapping[str, Any],
    files: Mapping[str, str] | None = None,
    pins: tuple[str, ...] = PINNED,
) -> layers.Layer:
    """The layer of a runtime_env over a generation."""
    base = RemotePath(str(generation))
    found = runtime_env(dict(table), "runtime_env of stage x", (files or {}).get)
    assert found is not None
    key = found.key(base.name, layers.pinned(pins))
    return layers.Layer(found, key, base.parent / f"layer-{key}", base)


def script(
    wanted: tuple[layers.Layer, ...],
    scratch: Path | str,
    uv: Path | str,
    pins: tuple[str, ...] = PINNED,
    token: str = "token",
) -> Script:
    """What builds them."""
    place = RemotePath(str(scratch))
    layout = Layout(Account(user="me", uid=0, home=place / "home", scratch=place))
    return layers.build_script(layout, str(uv), wanted, layers.pinned(pins), token)
