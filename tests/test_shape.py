"""The shape of the code: floors, doors, and that nothing is shipped without its check."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

import rvstate

PACKAGE = Path(__file__).parent.parent / "rvstate"
ROOT = PACKAGE.parent

# A module may import lower floors, and its own floor only where ALLOWED_ASIDE says so.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "paths", "shell", "size", "assets", "script", "remote", "stages"}),
    frozenset(
        {
            "slurm",
            "cron",
            "units",
            "envfile",
            "rcblock",
            "schema",
            "sitetools",
            "sshconfig",
            "dvcconfig",
        }
    ),
    frozenset({"model"}),
    frozenset(
        {
            "desired",
            "probe",
            "diff",
            "steps",
            "batchscript",
            "diagnose",
            "chain",
            "following",
            "sweep",
            "elements",
            "experiment",
            "overrides",
            "notification",
            "command",
            "request",
            "pricing",
            "shape",
            "launcher",
            "launch",
            "launchcheck",
            "allocator",
            "hardware",
            "holding",
            "logmerge",
            "retention",
            "keepalive",
            "schedule",
            "rayplan",
            "staging",
            "suggesting",
            "rdvc",
        }
    ),
    frozenset(
        {
            "config",
            "state",
            "git",
            "history",
            "waiting",
            "archive",
            "transport",
            "process",
            "receiver",
            "naming",
            "codefile",
            "ahead",
            "tunnel",
            "timers",
            "infra",
        }
    ),
    frozenset({"workflows"}),
    frozenset({"views", "cli"}),
)
# What one floor may import within itself, from left to right only.
ASIDE = {
    "paths": {"errors"},
    "shell": {"errors", "paths"},
    "script": {"errors", "assets", "shell"},
    "remote": {"stages"},
    "slurm": {"slurm"},
    "sshconfig": {"rcblock"},
    "cron": {"rcblock"},
    "model": {"model"},
    "steps": {"diff"},
    "rayplan": {"batchscript", "staging"},
    "diff": {"diff", "schedule"},
    "desired": {"notification"},
    "batchscript": {"experiment", "overrides", "sweep"},
    "git": {"git"},
    "history": {"git"},
    "waiting": {"git"},
    "elements": {"sweep"},
    "request": {"shape"},
    "rdvc": {"command"},
    "launch": {"launchcheck", "launcher", "shape"},
    "launchcheck": {"launcher", "shape"},
    "allocator": {"pricing", "request"},
    "ahead": {"transport"},
    "config": {"config", "state"},
    "receiver": {"receiver"},
    "tunnel": {"tunnel", "process", "state", "transport"},
    "timers": {"state"},
    "infra": {"infra", "config", "transport", "state"},
    "workflows": {"workflows"},
    "cli": {"cli", "views"},
    "views": {"views"},
}
# The one door (or the few) of each outside world.
DOORS = {
    "pyinfra": {"infra"},
    "gevent": {"infra"},
    "paramiko": set(),
    "tomlkit": {"config"},
    "click": {"cli", "views"},
    "subprocess": {
        "transport",
        "git",
        "codefile",
        "history",
        "waiting",
        "process",
        "tunnel",
        "timers",
        "remote",
    },
    "starlette": {"receiver"},
    "uvicorn": {"receiver"},
    "smtplib": {"receiver"},
    "sqlite3": {"receiver"},
    "urllib.request": {"receiver", "naming"},
    "testinfra": set(),
    "pytest": set(),
}


def modules() -> list[Path]:
    """Every module of the package."""
    return sorted(p for p in PACKAGE.rglob("*.py"))


def unit(path: Path) -> str:
    """The name under which the floors know a module: its top folder, or itself."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor(name: str) -> int | None:
    """The floor of a unit; None for the package itself."""
    return next((i for i, names in enumerate(FLOORS) if name in names), None)


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its head or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_import_downward_only(path: Path) -> None:
    """A module imports lower floors; its own floor only from left to right."""
    mine = unit(path)
    if mine in ("__init__", "__main__"):
        return
    level = floor(mine)
    assert level is not None, f"{mine} stands on no floor: add it to FLOORS"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "rvstate" or len(parts) < 2:
            continue
        other = floor(parts[1])
        if other is None:
            continue
        aside = parts[1] in ASIDE.get(mine, set()) or parts[1] == mine
        assert other < level or (other == level and aside), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_each_dependency_has_one_door(path: Path) -> None:
    """Outside worlds are entered only through their own module."""
    for name in imports(path):
        for world, doors in DOORS.items():
            if name == world or name.startswith(world + "."):
                assert unit(path) in doors, f"{path.relative_to(PACKAGE)} imports {name}"


def test_every_shell_file_is_a_script_with_a_first_line() -> None:
    """shellcheck finds scripts by their first line, so each has one."""
    for path in (PACKAGE / "remote").glob("*.sh"):
        assert path.read_text().splitlines()[0] in ("#!/bin/sh", "#!/bin/bash"), path.name


def test_no_shell_in_python_strings() -> None:
    """Shell longer than a line lives in .sh files."""
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                lines = [x for x in node.value.splitlines() if x.strip()]
                shellish = {x.strip() for x in lines} & {"fi", "done", "esac", "then", "do"}
                assert len(shellish) < 2, f"{path.relative_to(PACKAGE)}:{node.lineno}"


def test_the_installed_package_ships_its_data() -> None:
    """Scripts and site profiles are found in what is installed."""
    from rvstate import assets

    assert assets.script("lib").startswith("#!/bin/sh")
    assert {"generic", "local", "uva"} <= set(assets.site_names())
    assert rvstate.__version__


def test_nothing_names_this_machine() -> None:
    """No file of the project holds a path of a developer's machine."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    here = str(ROOT) + "/"
    for name in filter(None, names):
        path = ROOT / name
        if path.is_file() and path.suffix not in (".gz", ".png"):
            assert here not in path.read_text(errors="replace"), name
