"""The table of commands: every one has help, a page, and says the same in both."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from rvstate.cli import COMMANDS, cli

PAGES = Path(__file__).parent.parent / "docs" / "commands"
EFFECTS = {"reads", "writes here", "writes the account", "submits"}


def _command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def _all(name: str) -> Iterator[tuple[str, click.Command]]:
    """A command and its subcommands, by what a user types."""
    command = _command(name)
    yield name, command
    if isinstance(command, click.Group):
        for sub, found in command.commands.items():
            yield f"{name} {sub}", found


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_says_what_the_help_says(name: str) -> None:
    """The table's summary is the first line of the command's own help."""
    help_text = inspect.cleandoc(_command(name).help or "")
    assert help_text.split("\n\n")[0].replace("\n", " ") == COMMANDS[name].summary


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name: str) -> None:
    """Nobody meets a switch that nobody explains."""
    for typed, command in _all(name):
        assert command.help, typed
        for param in command.params:
            if isinstance(param, click.Option):
                assert param.help, f"{typed} {param.opts}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_known_by_the_name_that_is_typed(name: str) -> None:
    """Usage lines show the name of the table, and its effect is one of the four."""
    assert _command(name).name == name
    assert COMMANDS[name].effect in EFFECTS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_page_with_its_options(name: str) -> None:
    """docs/commands/NAME.md names each subcommand and each option."""
    page = (PAGES / f"{name}.md").read_text()
    assert page.startswith(f"# `rvstate {name}`\n"), name
    for typed, command in _all(name):
        assert f"rvstate {typed}" in page, typed
        for param in command.params:
            if isinstance(param, click.Option):
                assert any(opt in page for opt in param.opts), f"{typed} {param.opts}"
