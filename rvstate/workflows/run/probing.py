"""`rvstate run --probe`: the smallest job that says what a job's Python is and can import."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rvstate import assets, git
from rvstate.model.site import Site
from rvstate.request import Request
from rvstate.workflows.run.order import Order

_IMPORT = re.compile(r"^(?:import|from)[ \t]+([A-Za-z_]\w*)", re.M)
_MOST_FILES, _MOST_BYTES = 500, 1 << 20


def probing(order: Order, site: Site) -> Order:
    """The order of a probe: the smallest slice that the site has, and the project's imports.

    Args:
        order: What the user asked for; its resources go over the smallest.
        site: The site.
    """
    asked = order.request
    if asked == Request(raw=asked.raw, account=asked.account):
        mig = any(gpu.mig for gpu in (site.gpus or {}).values())
        asked = replace(asked, mig=mig, gpus=None if mig else 0)
    request = replace(asked, time=asked.time or "10m")
    words = ("python", "-c", assets.program("probe_environment"), *_imports(order.directory))
    return replace(order, words=words, request=request, name=order.name or "rv-probe")


def _imports(here: Path) -> tuple[str, ...]:
    project = git.inspect(here)
    files = [f for f in git.scan(project, {}).tree.files if f.path.endswith(".py")]
    own = {part.removesuffix(".py") for f in files for part in f.path.split("/")}
    few = [f for f in files if f.size <= _MOST_BYTES][:_MOST_FILES]
    root = Path(project.root)
    texts = ((root / f.path).read_text("utf-8", "replace") for f in few)
    return imported(texts, own)


def imported(texts: Iterable[str], own: Iterable[str] = ()) -> tuple[str, ...]:
    """The modules that sources import and that must come from an environment, sorted.

    Args:
        texts: Python sources.
        own: Names of the project's own modules.
    """
    found = {name for text in texts for name in _IMPORT.findall(text)}
    return tuple(sorted(found - set(own) - sys.stdlib_module_names - {"__future__"}))
