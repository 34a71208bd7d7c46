"""Settings and site profile, made into what should be so on an account; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from rvstate import assets, envfile, notification
from rvstate.errors import ConfigError
from rvstate.model.layout import PRIVATE, Account, Layout
from rvstate.model.resources import (
    CacheLink,
    ConfigFile,
    DesiredState,
    Directory,
    EnvFile,
    Environments,
    Resource,
    Schedule,
    ScriptSet,
    ShellBlock,
    Tool,
)
from rvstate.model.settings import Settings
from rvstate.model.site import Site
from rvstate.paths import RemotePath
from rvstate.shell import quote

# Which parts of Hugging Face's directory a group may share.  Its credentials (`token`,
# `stored_tokens`) lie beside them, so the directory itself stays private (decision 0006).
_HF = "huggingface"
_SHARED_HF = ("hub", "datasets")
_RC_FILES = {"bash": ".bashrc", "zsh": ".zshrc", "fish": ".config/fish/config.fish"}


def account(
    settings: Settings,
    site: Site,
    who: Account,
    variables: Mapping[str, str],
    config_file: ConfigFile | None = None,
    schedules: tuple[Schedule, ...] = (),
) -> DesiredState:
    """Everything that `converge` keeps on one account.

    Args:
        settings: The user's settings, all layers.
        site: The site profile.
        who: The account as the look found it, or `SYMBOLIC` to learn what to ask.
        variables: The user's own variables (secrets), name to value.
        config_file: The config file on this machine, where it is to be watched.
        schedules: What is to run keepalive day by day.
    """
    layout = Layout(who)
    resources: list[Resource] = [config_file] if config_file else []
    resources += directories(settings, site, layout)
    resources += cache_links(settings, layout)
    resources.append(env_file(layout, variables))
    resources += notify_files(settings, layout)
    resources.append(script_set(layout))
    if settings.shell.manage:
        resources += shell_blocks(settings, layout)
    resources.append(Tool("uv", layout.tools, settings.modules.python or site.modules.python))
    resources.append(Environments(layout.envs))
    resources += schedules
    return DesiredState(tuple(resources))


def directories(settings: Settings, site: Site, layout: Layout) -> list[Resource]:
    """The account's directories, parents first."""
    made = site.scheduler == "process"  # the embedded default lives in a directory of its own
    found: list[Resource] = [
        Directory(layout.account.home, create=made, owned=False),
        Directory(layout.account.scratch, create=made, owned=False),
    ]
    for path, mode in layout.directories():
        found.append(Directory(path, mode, links=mode is None))
    found.append(
        Directory(layout.home_caches, owned=False, links=True, leads_to=layout.scratch_caches)
    )
    for name in settings.caches.all:
        mode = PRIVATE if name == _HF else None  # its credentials lie in it
        found.append(Directory(layout.scratch_caches / cache_name(name), mode, links=True))
    shared = _shared_hf(settings, layout)
    if shared is not None:
        parts = [shared / part for part in _SHARED_HF]
        found += [Directory(path, owned=False, links=True, group=True) for path in parts]
    return found


def _shared_hf(settings: Settings, layout: Layout) -> RemotePath | None:
    """The group's Hugging Face directory, or None.

    Raises:
        ConfigError: It is not an absolute path, or not apart from the user's own.
    """
    text = settings.shared.hf_cache
    if not text or _HF not in settings.caches.all:
        return None
    if not text.startswith("/"):
        raise ConfigError(
            f"hf_cache in [shared] is {text!r}, which is not an absolute path.",
            "Write the directory from / on.",
        )
    shared = RemotePath(text)
    for own in (layout.scratch_caches / _HF, layout.home_caches / _HF):
        if shared.is_below(own) or own.is_below(shared):
            raise ConfigError(
                f"hf_cache in [shared] is {shared}, which is not apart from your own {own}.",
                "Give the group's directory, or leave it out to keep the cache to yourself.",
            )
    return shared


def cache_name(name: str) -> str:
    """A cache's name, checked to be one component of a path.

    Raises:
        ConfigError: It is empty, `.`, `..`, or holds a slash or control character.
    """
    if name in ("", ".", "..") or "/" in name or not name.isprintable():
        raise ConfigError(
            f"{name!r} in [caches] is not the name of a directory below ~/.cache.",
            "Give one name without slashes, for example matplotlib.",
        )
    return name


def cache_links(settings: Settings, layout: Layout) -> list[Resource]:
    """`~/.cache/NAME` for each name, and before them the parts that a group shares.

    Those first, so that a cache that moves to scratch finds them as links and adds to them.
    """
    shared = _shared_hf(settings, layout)
    links: list[Resource] = []
    if shared is not None:
        own = layout.scratch_caches / _HF
        for part in _SHARED_HF:
            links.append(CacheLink(f"{_HF}/{part}", own / part, shared / part, shared=True))
    for name in settings.caches.all:
        path, target = layout.home_caches / name, layout.scratch_caches / name
        # earlier tools linked the whole directory to the group's; ours is private again
        formers = (shared,) if shared is not None and name == _HF else ()
        links.append(CacheLink(name, path, target, formers))
    return links


def cache_variables(settings: Settings, layout: Layout) -> dict[str, str]:
    """Where each tool is told to keep its cache, name to absolute path."""
    base = layout.scratch_caches
    known = {
        "uv": {"UV_CACHE_DIR": base / "uv"},
        "pip": {"PIP_CACHE_DIR": base / "pip"},
        "huggingface": {"HF_HOME": base / "huggingface"},
        "wandb": {"WANDB_DIR": base / "wandb", "WANDB_DATA_DIR": base / "wandb"},
        "triton": {"TRITON_CACHE_DIR": base / "triton"},
        "torch": {"TORCH_HOME": base / "torch"},
        "vllm": {"VLLM_CACHE_ROOT": base / "vllm"},
    }
    variables: dict[str, str] = {}
    for name in settings.caches.all:
        variables.update(known.get(name, {}))
    return variables


def shell_blocks(settings: Settings, layout: Layout) -> list[Resource]:
    """The block for bash always, and for the login shell where that is zsh or fish."""
    login = layout.account.shell.rsplit("/", 1)[-1]
    # before the look the login shell is unknown: ask about all of them
    wanted = _RC_FILES if layout.account.uid < 0 else ("bash", login)
    variables = cache_variables(settings, layout)
    blocks: list[Resource] = []
    for shell, file in _RC_FILES.items():
        if shell not in wanted:
            continue
        if shell == "fish":
            lines = [f"set -gx {name} {_fish(value)}" for name, value in variables.items()]
        else:
            lines = [f"export {name}={quote(value)}" for name, value in variables.items()]
        blocks.append(ShellBlock(layout.account.home / file, "".join(f"{x}\n" for x in lines)))
    return blocks


def _fish(text: str) -> str:
    # in fish's single quotes only backslash and quote have a meaning (fish documentation, Quotes)
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def env_file(layout: Layout, variables: Mapping[str, str]) -> EnvFile:
    """The user's variables as the file that every job sources."""
    text = envfile.render(variables)
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return EnvFile(layout.env_file, digest, tuple(sorted(variables)), text)


def notify_files(settings: Settings, layout: Layout) -> list[Resource]:
    """The file that says where events about jobs go; emptied where they are no longer wanted.

    Raises:
        ConfigError: They are wanted, and there is no secret to sign them with.
    """
    text = notification.file_text(settings)
    if text is None:
        return []
    digest = hashlib.sha256(text.encode()).hexdigest()
    names = ("address", "secret") if text else ()
    return [EnvFile(layout.notify_file, digest, names, text)]


def script_set(layout: Layout) -> ScriptSet:
    """Our scripts for jobs, under their digest."""
    files = tuple(
        (name, hashlib.sha256(text.encode()).hexdigest(), text)
        for name, text in sorted(assets.job_scripts().items())
    )
    digest = assets.job_scripts_digest()
    return ScriptSet(layout.lib / digest, digest, files)
