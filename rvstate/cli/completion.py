"""`rvstate completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from rvstate.errors import EXIT_DONE


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the completion script for a shell.

    For bash put `eval "$(rvstate completion bash)"` into ~/.bashrc (bash 4.4 or later), for zsh the
    same with zsh into ~/.zshrc, and for fish write the output to
    ~/.config/fish/completions/rvstate.fish.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    # the text alone: click's own `source` first starts a bash to ask its version
    made = kind(ctx.find_root().command, {}, "rvstate", "_RVSTATE_COMPLETE")
    click.echo(made.source_template % made.source_vars())
    return EXIT_DONE
