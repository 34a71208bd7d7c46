"""Site profiles: those that are shipped, and the user's own."""

from __future__ import annotations

from pathlib import Path

from rvstate import assets, schema
from rvstate.config.text import parse, private_home, read_text, write
from rvstate.config.values import home
from rvstate.errors import ConfigError, nearest
from rvstate.model.site import CLOCKS, MODES, TOUCH_POLICIES, Site

_MAY = ("allowed", "forbidden", "unknown")


def load_site(name: str) -> Site:
    """A site profile: the user's own `sites/NAME.toml` in the state directory, or one of ours.

    Raises:
        ConfigError: There is none of that name, or it is wrong.
    """
    known = site_names()
    if name not in known:
        near = nearest(name, known)
        raise ConfigError(
            f"There is no site profile {name!r}.",
            f"Did you mean {near}?" if near else f"Known: {', '.join(known)}.",
        )
    own = own_site(name)
    text = read_text(own)
    if text is not None:
        return read_site(text, str(own))
    return read_site(assets.site(name) or "", f"site profile {name}")


def own_site(name: str) -> Path:
    """Where a profile of the user's own lies."""
    return home() / "sites" / f"{name}.toml"


def site_names() -> tuple[str, ...]:
    """The names of all site profiles, the user's own included."""
    folder = home() / "sites"
    own = {path.stem for path in folder.glob("*.toml")} if folder.is_dir() else set()
    return tuple(sorted({*assets.site_names(), *own}))


def site_text(name: str) -> tuple[str, str]:
    """A profile as it is written, and where that is.

    Raises:
        ConfigError: There is none of that name.
    """
    load_site(name)
    own = own_site(name)
    text = read_text(own)
    if text is not None:
        return text, str(own)
    return assets.site(name) or "", "shipped with rvstate"


def read_site(text: str, name: str) -> Site:
    """A site profile from its text.

    Args:
        text: TOML.
        name: Where it comes from, for messages.

    Raises:
        ConfigError: It is wrong.
    """
    site: Site = schema.build(Site, parse(name, text), name)
    rules = (
        ("purge.clock", site.purge.clock, CLOCKS),
        ("purge.touch_policy", site.purge.touch_policy, TOUCH_POLICIES),
        ("purge.mode", site.purge.mode, MODES),
        ("scheduling.remote_cron", site.scheduling.remote_cron, _MAY),
        ("scheduling.scrontab", site.scheduling.scrontab, _MAY),
        ("scheduling.sbatch_chain", site.scheduling.sbatch_chain, _MAY),
        ("scheduling.after_job", site.scheduling.after_job, _MAY),
        ("scheduler", site.scheduler, ("slurm", "process")),
    )
    if site.max_array_size is not None and site.max_array_size < 1:
        raise ConfigError(f"max_array_size in {name} is {site.max_array_size}.", "Use 1 or more.")
    for key, value, allowed in rules:
        if value not in allowed:
            raise ConfigError(
                f"{key} in {name} is {value!r}, which means nothing.",
                f"Use one of {', '.join(allowed)}.",
            )
    return site


def keep_site(name: str, text: str, *, replace: bool = False) -> Path:
    """Keep a site profile of the user's own, checked.

    Raises:
        ConfigError: The text is wrong, or there is one of that name and `replace` is not set.
    """
    if not name or not all(c.isalnum() or c in "-_" for c in name):
        raise ConfigError(
            f"{name!r} cannot be the name of a site profile.",
            "Use letters, digits, dashes and underscores.",
        )
    read_site(text, f"the draft of {name}")
    path = own_site(name)
    if path.exists() and not replace:
        raise ConfigError(f"{path} is there already.", "Use --force to replace it.")
    private_home()
    write(path, text)
    return path
