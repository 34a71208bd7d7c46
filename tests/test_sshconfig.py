"""Our one block in an ssh configuration, judged by ssh itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvstate import rcblock, sshconfig
from rvstate.errors import ConfigError, RefusedError

USERS = """\
ServerAliveInterval 30
Host other
    HostName other.example.edu
Host *
    User everybody
    Port 2200
"""


def _means(tmp_path: Path, text: str, host: str) -> dict[str, str]:
    """What ssh makes of a host under that configuration."""
    if shutil.which("ssh") is None:
        pytest.skip("no ssh on this machine")
    path = tmp_path / "config"
    path.write_text(text)
    argv = ["ssh", "-F", str(path), "-G", host]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def test_the_alias_works_before_any_pattern(tmp_path: Path) -> None:
    """ssh takes the first value it meets, so the user's `Host *` does not win over our block."""
    text = sshconfig.with_host(USERS, "rivanna", "login.example.edu", "abc1de")
    found = _means(tmp_path, text, "rivanna")
    assert (found["hostname"], found["user"]) == ("login.example.edu", "abc1de")
    assert found["port"] == "2200"


@pytest.mark.parametrize("host", ["other", "third.example.edu"])
def test_every_other_host_means_what_it_meant(tmp_path: Path, host: str) -> None:
    """Options in front of the first `Host` still hold for all, and the block for no other."""
    before = _means(tmp_path, USERS, host)
    after = _means(tmp_path, sshconfig.with_host(USERS, "rivanna", "login.edu", None), host)
    assert after == before


@settings(max_examples=80)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=120))
def test_everything_outside_the_block_stays_byte_for_byte(text: str) -> None:
    """However odd the file, it is still there, whole, behind the block."""
    if not isinstance(rcblock.find(text), rcblock.Missing):
        return
    after = sshconfig.with_host(text, "rivanna", "login.edu", "u")
    assert after.endswith(text)
    assert sshconfig.with_host(after, "rivanna", "login.edu", "u") == after


def test_a_second_host_joins_the_block_and_a_change_replaces_only_its_own(tmp_path: Path) -> None:
    """One block holds all our hosts."""
    text = sshconfig.with_host(USERS, "one", "one.edu", "a")
    text = sshconfig.with_host(text, "two", "two.edu", "b")
    text = sshconfig.with_host(text, "one", "new.edu", None)
    assert text.count(rcblock.BEGIN) == 1
    assert _means(tmp_path, text, "one")["hostname"] == "new.edu"
    assert _means(tmp_path, text, "two")["user"] == "b"


def test_a_damaged_block_is_refused() -> None:
    """Without its end nobody can tell what is ours."""
    with pytest.raises(RefusedError):
        sshconfig.with_host(rcblock.BEGIN + "\nHost x\n", "one", "one.edu", None)


@pytest.mark.parametrize(
    "value", ["a b", "a\nProxyCommand touch x", "-oX=y", "a;b", '"', "", "é*", "%h*"]
)
def test_nothing_can_be_smuggled_into_the_block(value: str) -> None:
    """Alias, address and user are one plain word each."""
    with pytest.raises(ConfigError):
        sshconfig.with_host("", value or " ", "one.edu", None)


def test_aliases_are_names_and_not_patterns() -> None:
    """Only what can be connected to is suggested."""
    text = 'Host a b *.edu !c\n  HostName x\nhost=d\nHOST "e"\nMatch host f\nHost a\n'
    assert sshconfig.aliases(text) == ("a", "b", "d", "e")
