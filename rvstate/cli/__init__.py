"""The command line: a table of commands, imported when used, and the one error boundary."""

from __future__ import annotations

import errno
import gc
import importlib
import os
import sys
from dataclasses import dataclass
from typing import Any

import click

import rvstate
from rvstate.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    Interrupted,
    RvstateError,
    nearest,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One command.

    Args:
        target: `module:attribute` below `rvstate.cli`, imported on use.
        summary: The line in the overview; a test holds it equal to the command's own help.
        effect: What it may do: `reads`, `writes here`, `writes the account`, `submits`.
        group: The heading in the overview.
    """

    target: str
    summary: str
    effect: str
    group: str


COMMANDS: dict[str, Entry] = {
    "init": Entry(
        "init:init", "Set up rvstate for your account on a cluster.", "writes here", "Account"
    ),
    "converge": Entry(
        "converge:converge",
        "Make the account on the cluster as declared.",
        "writes the account",
        "Account",
    ),
    "config": Entry(
        "config:config", "Show the settings in force and where they come from.", "reads", "Account"
    ),
    "login": Entry(
        "login:login", "Log in to the cluster once for the day.", "writes here", "Account"
    ),
    "env": Entry(
        "env:env", "Keep variables and secrets that every job gets.", "writes here", "Account"
    ),
    "exec": Entry(
        "execute:execute",
        "Run a command on the login node, as if it ran here.",
        "writes the account",
        "Account",
    ),
    "status": Entry(
        "status:status",
        "Show where things stand: storage, jobs, what is free.",
        "reads",
        "Account",
    ),
    "cost": Entry("cost:cost", "Say what jobs cost by the site's prices.", "reads", "Account"),
    "doctor": Entry(
        "doctor:doctor",
        "Say what is well with account and cluster, and what to do.",
        "reads",
        "Account",
    ),
    "site": Entry(
        "site:site", "Show site profiles, or draft one from a live cluster.", "reads", "Account"
    ),
    "keepalive": Entry(
        "keepalive:keepalive",
        "Keep files on scratch from being purged, within the site's rules.",
        "writes the account",
        "Account",
    ),
    "run": Entry(
        "run:run", "Run a command as a job: this code, its environment, now.", "submits", "Jobs"
    ),
    "up": Entry(
        "up:up",
        "Get a shell on a compute node: this code, its environment, now.",
        "submits",
        "Jobs",
    ),
    "render": Entry(
        "run:render", "Print the batch script that `rvstate run` would submit.", "reads", "Jobs"
    ),
    "rerun": Entry(
        "run:rerun",
        "Submit a run again: the same code, command, options and environment.",
        "submits",
        "Jobs",
    ),
    "dvc": Entry("dvc:dvc", "Run DVC experiments as jobs, and bring them home.", "submits", "Jobs"),
    "pipeline": Entry(
        "pipeline:pipeline",
        "Run a project's stages, each in an environment of its own.",
        "submits",
        "Jobs",
    ),
    "sync": Entry(
        "sync:sync",
        "Bring code to the cluster without a job, or files back.",
        "writes the account",
        "Jobs",
    ),
    "ps": Entry("jobs:ps", "List your runs and their states.", "reads", "Jobs"),
    "logs": Entry("jobs:logs", "Show what a run has written.", "reads", "Jobs"),
    "ssh": Entry("ssh:ssh", "Enter a running job.", "writes the account", "Jobs"),
    "forward": Entry(
        "forward:forward",
        "Reach a service in a running job from this machine.",
        "writes the account",
        "Jobs",
    ),
    "gpu": Entry("gpu:gpu", "Show how busy the GPUs of your runs are.", "reads", "Jobs"),
    "stop": Entry("jobs:stop", "End runs.", "writes the account", "Jobs"),
    "notify": Entry(
        "notify:notify",
        "Test how you are told about jobs, or receive what tells you.",
        "writes here",
        "Jobs",
    ),
    "verify": Entry(
        "verify:verify",
        "Compare what is kept on scratch with what was put there.",
        "reads",
        "Scratch",
    ),
    "usage": Entry(
        "usage:usage",
        "Show where bytes and inodes are, against what the site allows.",
        "reads",
        "Scratch",
    ),
    "prune": Entry(
        "prune:prune",
        "Remove what is not needed any more from scratch.",
        "writes the account",
        "Scratch",
    ),
    "completion": Entry(
        "completion:completion",
        "Print the completion script for a shell.",
        "reads",
        "rvstate itself",
    ),
}


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every name of the table, in its order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        found = getattr(importlib.import_module(f"rvstate.cli.{module}"), attribute)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command where there is none of that name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = nearest(args[0], COMMANDS)
            if near is None:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near!r}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The overview, from the table alone."""
        for group in dict.fromkeys(entry.group for entry in COMMANDS.values()):
            with formatter.section(group):
                formatter.write_dl(
                    [(name, e.summary) for name, e in COMMANDS.items() if e.group == group]
                )


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Settings are in ~/.rv/config.toml. Without any, everything happens on this machine.",
)
@click.version_option(rvstate.__version__, message="rvstate %(version)s")
def cli() -> None:
    """Keep your account on a Slurm cluster as declared, and run jobs in it."""


def main(argv: list[str] | None = None) -> None:
    """The entry point: run, and turn every end into a message and an exit code."""
    # most of a short command is imports, whose objects all stay: looking through them again and
    # again for garbage is an eighth of its time
    gc.set_threshold(50_000, 20, 20)
    args = sys.argv[1:] if argv is None else argv
    click.UsageError.exit_code = EXIT_USAGE
    # behind `exec` stands another program's command line, and its output is not ours
    wants_json = args[:1] != ["exec"] and "--json" in args[: _options_end(args)]
    sys.exit(_guarded(args, wants_json))


def _options_end(args: list[str]) -> int:
    return args.index("--") if "--" in args else len(args)


def _guarded(args: list[str], wants_json: bool) -> int:
    try:
        return _ended(args, wants_json)
    except OSError as error:
        if not _is_unheard(error):
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        if error.errno == errno.EIO:
            os.dup2(nowhere, sys.stderr.fileno())
        return EXIT_FAILED


def _is_unheard(error: BaseException) -> bool:
    """Whether the reader of our output went away (`| head`), or its terminal: nobody is told."""
    return (
        isinstance(error, OSError)
        and error.errno in (errno.EPIPE, errno.EIO)
        and error.filename is None
    )


def _ended(args: list[str], wants_json: bool) -> int:
    try:
        if args[:1] in (["converge"], ["run"]):
            from rvstate import ahead

            ahead.send(tuple(args))
        status = cli.main(args, prog_name="rvstate", standalone_mode=False)
    except RvstateError as error:
        _say(error.message, error.remedy, error.exit_code, wants_json)
        return error.exit_code
    except click.ClickException as error:
        if wants_json:
            _say(error.format_message(), "", error.exit_code, wants_json)
        else:
            error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as error:
        # click makes an Abort of Ctrl-C
        cause = error if isinstance(error, Interrupted) else error.__cause__
        if isinstance(cause, Interrupted):
            click.echo(f"rvstate: {cause.message}\n  → {cause.remedy}", err=True)
        else:
            click.echo("rvstate: interrupted; nothing is half done, run it again.", err=True)
        return EXIT_INTERRUPTED
    except Exception as error:  # the one boundary: our own bug, reported as such
        if _is_unheard(error):
            raise
        return _bug(error, wants_json)
    return status if isinstance(status, int) else 0


def _say(message: str, remedy: str, status: int, wants_json: bool) -> None:
    if wants_json:
        import json

        error = {"message": message, "remedy": remedy, "exit_code": status}
        click.echo(json.dumps({"schema": 1, "error": error}))
    else:
        click.echo(f"rvstate: {message}", err=True)
        if remedy:
            click.echo(f"  → {remedy}", err=True)


def _bug(error: BaseException, wants_json: bool) -> int:
    import platform
    import tempfile
    import traceback

    report: Any
    with tempfile.NamedTemporaryFile(
        "w", prefix="rvstate-bug-", suffix=".txt", delete=False
    ) as report:
        report.write(f"rvstate {rvstate.__version__}, Python {platform.python_version()}\n")
        report.write("".join(traceback.format_exception(error)))
    _say(
        f"a bug in rvstate: {type(error).__name__}: {error}",
        f"Please report it with the file {report.name}.",
        EXIT_FAILED,
        wants_json,
    )
    return EXIT_FAILED
