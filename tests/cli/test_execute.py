"""`rvstate exec` on this machine: what goes in and what comes out is the command's own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

Rvstate = Callable[..., "subprocess.CompletedProcess[str]"]


def test_one_argument_is_a_line_of_shell(rvstate: Rvstate) -> None:
    """Pipes and variables work in one string."""
    done = rvstate("exec", "x=4; echo $x | tr 4 5; echo err >&2; exit 9")
    assert (done.stdout, done.stderr, done.returncode) == ("5\n", "err\n", 9)


def test_several_arguments_are_passed_as_they_are(rvstate: Rvstate) -> None:
    """Nothing is split or expanded again."""
    done = rvstate("exec", "printf", "[%s]", "a  b", "$HOME", "*", "", "-x", "'")
    assert done.stdout == "[a  b][$HOME][*][][-x][']"


def test_standard_input_is_the_commands(rvstate: Rvstate) -> None:
    """What is piped in reaches it."""
    assert rvstate("exec", "wc", "-c", text="12345").stdout.strip() == "5"


def test_options_behind_the_command_are_its_own(rvstate: Rvstate) -> None:
    """`--json`, `--help` and `--` belong to the command once it began."""
    done = rvstate("exec", "echo", "--json", "--help", "--", "-t")
    assert done.stdout == "--json --help -- -t\n"
    assert rvstate("exec", "--", "echo", "-t").stdout == "-t\n"


@pytest.mark.parametrize("args", [(), ("",), ("  ",)])
def test_no_command_is_a_usage_error(rvstate: Rvstate, args: tuple[str, ...]) -> None:
    """There is nothing to run, and the sentence says so."""
    assert rvstate("exec", *args).returncode == 64


def test_a_program_that_is_not_there_ends_with_127(rvstate: Rvstate) -> None:
    """As in every shell."""
    done = rvstate("exec", "no-such-program-anywhere", "x")
    assert done.returncode == 127
    assert "no-such-program-anywhere" in done.stderr


def test_an_error_before_the_command_is_no_json_on_its_output(rvstate: Rvstate) -> None:
    """The command's own `--json` does not turn our errors into its output."""
    done = rvstate("exec", "--cluster", "none", "squeue", "--json")
    assert done.returncode == 64
    assert done.stdout == ""
    assert "no cluster 'none'" in done.stderr
