"""Changes as scripts, and what scripts say as results."""

from __future__ import annotations

import pytest

from rvstate import desired, diff, steps
from rvstate.model.layout import Account, Layout
from rvstate.model.observed import ObservedState, Original, Present, Tree
from rvstate.model.plan import Change, Plan
from rvstate.model.settings import Settings, Shared
from rvstate.model.site import Site
from rvstate.paths import RemotePath
from rvstate.script import Script

WHO = Account("u", 1000, RemotePath("/home/u"), RemotePath("/scratch/u"), "/bin/bash")
HOME = "/home/u/.cache"
LAYOUT = Layout(WHO)
ASIDE = Original("/scratch/u/.rv/originals/1", f"{HOME}/uv.rvstate-original-1", "/t", 1, 1, 1)


def plan(remove: bool = False, settings: Settings | None = None, **variables: str) -> Plan:
    entries = {
        "/home/u": Present("d", 0o700, 1000, 1),
        "/scratch/u": Present("d", 0o700, 1000, 1),
        f"{HOME}/uv": Present("d", 0o755, 1000, 1),
        f"{HOME}/huggingface": Present("l", 0o777, 1000, 1, "/standard/g", "d"),
    }
    trees = {f"{HOME}/uv": Tree(1, 1)}
    observed = ObservedState(
        WHO, dict(entries), {}, {}, trees, {}, {"rsync": "/usr/bin/rsync"}, (ASIDE,)
    )
    site = Site("s", "s")
    wanted = desired.account(
        settings or Settings(shared=Shared("/standard/g")), site, WHO, variables
    )
    return diff.plan(wanted, observed, remove_originals=remove)


def scripts(found: Plan, remove: bool = False) -> dict[str, Script]:
    return {
        kind: steps.script(kind, changes, LAYOUT, remove_originals=remove)
        for kind, changes in found.by_kind()
    }


def words(script: Script, start: int, width: int) -> list[tuple[str, ...]]:
    rest = script.args[start:]
    return [tuple(rest[i : i + width]) for i in range(0, len(rest), width)]


def test_one_script_for_each_kind() -> None:
    """However much changes, each kind is one remote command, under the account's lock."""
    found = scripts(plan())
    assert {k: s.name for k, s in found.items()} == {
        "directory": "directories",
        "cache": "caches",
        "env": "write",
        "scripts": "write",
        "shell": "write",
        "tool": "tool",
    }
    assert {s.args[0] for s in found.values()} == {"/scratch/u/.rv/lock"}


def test_directory_words() -> None:
    """Modes in octal; any; and a group's."""
    found = {path: mode for mode, path in words(scripts(plan())["directory"], 2, 2)}
    assert found["/scratch/u/.rv"] == "700"
    assert found["/scratch/u/.rv/logs"] == "-"
    assert found["/standard/g/hub"] == "group"


def test_cache_words() -> None:
    """Each action with path and target; a turned link with where it led."""
    script = scripts(plan(remove=True), remove=True)["cache"]
    assert script.args[2:4] == ("/scratch/u/.rv/originals", "yes")
    found = {w[1]: w for w in words(script, 4, 4)}
    scratch = "/scratch/u/.cache"
    assert found[f"{HOME}/uv"] == ("migrate", f"{HOME}/uv", f"{scratch}/uv", "")
    hf = ("update", f"{HOME}/huggingface", f"{scratch}/huggingface", "/standard/g")
    assert found[f"{HOME}/huggingface"] == hf
    assert found[ASIDE.path] == ("remove", ASIDE.path, ASIDE.record, "")
    assert scripts(plan())["cache"].args[3] == "no"


def test_secrets_are_not_in_an_argument_list() -> None:
    """A variable's value is in the text that travels on standard input, and in no repr of it."""
    script = scripts(plan(TOKEN="hunter2"))["env"]
    assert "hunter2" in script.text
    change = plan(TOKEN="hunter2").by_kind()
    assert "hunter2" not in repr(change)


def changes(kind: str) -> tuple[Change, ...]:
    return dict(plan().by_kind())[kind]


def test_results() -> None:
    """Each change has its own result, in order, whatever order the answers came in."""
    wanted = changes("directory")[:3]
    output = "failed 1 rvstate: it is so\nnoise\ndone 0 note\n"
    found = steps.results("directory", wanted, output, "noise\nrvstate: busy\nmore noise\n")
    assert [(r.error, r.note) for r in found] == [("", "note"), ("it is so", ""), ("busy", "")]


def test_a_script_that_said_nothing() -> None:
    """A script that ended without a word is a failure of every change, with what to do next."""
    found = steps.results("env", changes("env"), "", "")
    assert found[0].error == "the script ended early; run converge again"


def test_files_of_one_resource() -> None:
    """A resource of several files has failed if one of them has."""
    found = steps.results("scripts", changes("scripts"), "failed 0 no room\n", "")
    assert [r.error for r in found] == ["no room"]


@pytest.mark.parametrize("words", ["No space left on device", "Disk quota exceeded"])
def test_a_full_disk_has_its_remedy(words: str) -> None:
    """What the system says of a full disk is followed by what to do."""
    found = steps.results("env", changes("env"), f"failed 0 cat: write error: {words}\n", "")
    assert found[0].error.endswith(f"{words}; free space or files there, then run converge again")
