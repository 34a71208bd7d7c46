"""Settings, made into what should be so."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from rvstate import assets, desired
from rvstate.errors import ConfigError
from rvstate.model.layout import SYMBOLIC, Account, Layout
from rvstate.model.resources import (
    KINDS,
    CacheLink,
    DesiredState,
    Directory,
    EnvFile,
    ScriptSet,
    ShellBlock,
    Tool,
)
from rvstate.model.settings import Caches, Modules, Settings, Shared, Shell
from rvstate.model.site import Site, SiteModules
from rvstate.paths import RemotePath

WHO = Account("u", 1000, RemotePath("/home/u"), RemotePath("/scratch/u"), "/bin/bash")
SITE = Site("s", "s", modules=SiteModules(python="python/3"))


def wanted(settings: Settings | None = None, who: Account = WHO, **variables: str) -> DesiredState:
    return desired.account(settings or Settings(), SITE, who, variables)


def paths(state: DesiredState, kind: str) -> list[str]:
    return [str(r.path) for r in state.of(kind)]  # type: ignore[union-attr]


def test_documented_paths() -> None:
    """The paths on the cluster are the documented ones."""
    state = wanted()
    rv = "/scratch/u/.rv"
    named = [f"{rv}/{name}" for name in ("logs", "outputs", "checkpoints", "env", "envs", "runs")]
    assert set(named) <= set(paths(state, "directory"))
    names = ("huggingface", "uv", "pip", "wandb", "triton", "torch")
    links = [(r.path, r.target) for r in state.of("cache") if isinstance(r, CacheLink)]
    assert links == [(f"/home/u/.cache/{n}", f"/scratch/u/.cache/{n}") for n in names]
    assert paths(state, "env") == [f"{rv}/env/user.env"]


def test_directories_that_hold_secrets_are_private() -> None:
    """0700 where secrets are: our own directory, the environment file's, Hugging Face's."""
    modes = {r.path: r.mode for r in wanted().of("directory") if isinstance(r, Directory)}
    private = ("/scratch/u/.rv", "/scratch/u/.rv/env", "/scratch/u/.rv/runs")
    private += ("/scratch/u/rv-workspaces", "/scratch/u/.cache/huggingface")
    assert {modes[RemotePath(path)] for path in private} == {0o700}


def test_parents_come_first() -> None:
    """A directory is declared before what lies in it."""
    found = paths(wanted(), "directory")
    for number, path in enumerate(found):
        assert not any(other.startswith(path + "/") for other in found[:number])


def test_kinds_in_order() -> None:
    """Caches, which free a home, are applied before anything that writes to one."""
    assert KINDS.index("cache") < min(KINDS.index(k) for k in ("env", "scripts", "shell", "tool"))
    assert {r.kind for r in wanted().resources} <= set(KINDS)


@pytest.mark.parametrize(
    ("shell", "files"),
    [
        ("/bin/bash", [".bashrc"]),
        ("/usr/bin/zsh", [".bashrc", ".zshrc"]),
        ("/usr/bin/fish", [".bashrc", "config.fish"]),
        ("/bin/tcsh", [".bashrc"]),
        ("/bin/sh", [".bashrc"]),
    ],
)
def test_shells(shell: str, files: list[str]) -> None:
    """Bash always, zsh and fish where they are the login shell."""
    state = wanted(who=dataclasses.replace(WHO, shell=shell))
    assert [r.name for r in state.of("shell")] == files


def test_fish_has_its_own_words() -> None:
    """fish's block is in fish's language."""
    state = wanted(who=dataclasses.replace(WHO, shell="/usr/bin/fish"))
    bodies = {r.name: r.body for r in state.of("shell") if isinstance(r, ShellBlock)}
    assert "set -gx UV_CACHE_DIR '/scratch/u/.cache/uv'\n" in bodies["config.fish"]
    assert "export UV_CACHE_DIR=/scratch/u/.cache/uv\n" in bodies[".bashrc"]


def test_no_shell_block_when_not_managed() -> None:
    """`manage = false` in [shell] leaves start-up files alone."""
    assert wanted(Settings(shell=Shell(manage=False))).of("shell") == ()


def test_further_caches() -> None:
    """Names from config are linked too, each once."""
    state = wanted(Settings(caches=Caches(names=("uv",), extra=("vllm", "uv"))))
    assert [r.name for r in state.of("cache")] == ["uv", "vllm"]
    body = state.of("shell")[0]
    assert isinstance(body, ShellBlock)
    assert "VLLM_CACHE_ROOT" in body.body
    assert "HF_HOME" not in body.body


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a\nb", "a\x1bb"])
def test_wrong_cache_names(name: str) -> None:
    """A name that is not one component of a path is refused before anything is asked."""
    with pytest.raises(ConfigError, match="caches") as caught:
        wanted(Settings(caches=Caches(names=(name,))), SYMBOLIC)
    assert caught.value.remedy


# ---------------------------------------------------------------------------------- sharing
SHARED = Settings(shared=Shared("/standard/group/hf"))


def test_only_hub_and_datasets_are_shared() -> None:
    """The directory with Hugging Face's credentials stays on our own scratch."""
    links = {r.name: r for r in wanted(SHARED).of("cache") if isinstance(r, CacheLink)}
    assert links["huggingface"].target == "/scratch/u/.cache/huggingface"
    assert links["huggingface"].formers == ("/standard/group/hf",)
    own = "/scratch/u/.cache/huggingface"
    assert [
        (links[f"huggingface/{p}"].path, links[f"huggingface/{p}"].target)
        for p in ("hub", "datasets")
    ] == [
        (f"{own}/hub", "/standard/group/hf/hub"),
        (f"{own}/datasets", "/standard/group/hf/datasets"),
    ]
    assert not links["huggingface"].shared


def test_shared_parts_come_before_the_whole() -> None:
    """A cache that moves finds the shared parts as links already."""
    names = [r.name for r in wanted(SHARED).of("cache")]
    assert names.index("huggingface/hub") < names.index("huggingface")
    groups = [r for r in wanted(SHARED).of("directory") if isinstance(r, Directory) and r.group]
    assert [r.path for r in groups] == ["/standard/group/hf/hub", "/standard/group/hf/datasets"]


@pytest.mark.parametrize(
    "path", ["relative", "/scratch/u/.cache/huggingface", "/scratch/u/.cache", "/home/u/.cache"]
)
def test_a_shared_directory_must_be_apart(path: str) -> None:
    """A shared directory that is, or holds, our own is refused: credentials would lie in it."""
    with pytest.raises(ConfigError, match="hf_cache"):
        wanted(Settings(shared=Shared(path)))


def test_sharing_without_hugging_face() -> None:
    """Where Hugging Face is not among the caches, nothing of it is shared."""
    state = wanted(Settings(shared=Shared("/g"), caches=Caches(names=("uv",))))
    assert [r.name for r in state.of("cache")] == ["uv"]


# ------------------------------------------------------------------------------- the others
def test_environment_file() -> None:
    """Names in order, the digest of the very bytes, and the values in nothing that is shown."""
    (resource,) = wanted(B="two", A="it's\na $secret").of("env")
    assert isinstance(resource, EnvFile)
    assert resource.names == ("A", "B")
    assert resource.digest == hashlib.sha256(resource.text.encode()).hexdigest()
    assert "secret" not in repr(resource)


def test_scripts() -> None:
    """Our scripts lie in a directory with their digest, so none changes under a running job."""
    (resource,) = wanted().of("scripts")
    assert isinstance(resource, ScriptSet)
    assert resource.path == f"/scratch/u/.rv/lib/{assets.job_scripts_digest()}"
    assert [name for name, _, _ in resource.files] == [
        *("chain.sh", "dvc.sh", "environment.sh", "hold.sh", "inside.sh", "into.sh", "job.sh"),
        *("launch.sh", "lib.sh", "notify.sh", "stage.sh"),
    ]


def test_tool_module() -> None:
    """The module that brings a Python is the site's, or the user's own."""
    (found,) = wanted().of("tool")
    (other,) = wanted(Settings(modules=Modules(python="mine"))).of("tool")
    assert isinstance(found, Tool)
    assert isinstance(other, Tool)
    assert (found.module, other.module) == ("python/3", "mine")


def test_same_questions_before_and_after_the_look() -> None:
    """What is asked before anyone knows home and user covers what is wanted afterwards."""
    symbolic = wanted(SHARED, SYMBOLIC, A="1")
    real = wanted(SHARED, dataclasses.replace(WHO, shell="/usr/bin/zsh"), A="1")
    roots = {"/{home}": "/home/u", "/{scratch}": "/scratch/u"}

    def named(state: DesiredState) -> set[tuple[str, str]]:
        found = set()
        for resource in state.resources:
            path = str(getattr(resource, "path", resource.name))
            for symbol, root in roots.items():
                path = path.replace(symbol, root)
            found.add((resource.kind, path))
        return found

    assert named(real) <= named(symbolic)
    assert Layout(SYMBOLIC).originals == "/{scratch}/.rv/originals"
