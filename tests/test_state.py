"""The local store of variables: lossless, private, never lost to a second writer."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rvstate.errors import ConfigError
from rvstate.state import State

VALUES = st.text(st.characters(exclude_characters="\0"), max_size=80)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True), VALUES))
def test_any_value_comes_back_as_it_was(tmp_path: Path, wanted: dict[str, str]) -> None:
    """Quotes, line breaks, `$`, `#`, bytes that are no UTF-8: kept without loss."""
    state = State(tmp_path / "rv")
    state.change_variables(lambda variables: (variables.clear(), variables.update(wanted))[0])
    assert state.variables() == wanted


def test_nothing_is_there_before_anything_is_set(tmp_path: Path) -> None:
    """Reading makes no file and no directory."""
    assert State(tmp_path / "rv").variables() == {}
    assert not (tmp_path / "rv").exists()


def test_the_store_is_private(tmp_path: Path) -> None:
    """0600 in 0700, also where an older file was open to all."""
    state = State(tmp_path / "rv")
    state.change_variables(lambda v: v.update(A="1"))
    path = tmp_path / "rv" / "env.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)
    state.change_variables(lambda v: v.update(B="2"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"vars": []}', '{"vars": {"A": 1}}', "{}"])
def test_a_damaged_store_is_never_taken_for_empty(tmp_path: Path, text: str) -> None:
    """What cannot be read is told, and the file is left as it is."""
    path = tmp_path / "env.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        State(tmp_path).change_variables(lambda v: v.update(A="1"))
    assert str(path) in caught.value.message
    assert caught.value.remedy
    assert path.read_text() == text


def test_a_change_that_fails_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    """An edit is whole or not at all."""
    state = State(tmp_path)
    state.change_variables(lambda v: v.update(A="1"))

    def change(variables: dict[str, str]) -> None:
        variables["B"] = "2"
        raise ConfigError("no")

    with pytest.raises(ConfigError):
        state.change_variables(change)
    assert state.variables() == {"A": "1"}


def test_a_full_disk_leaves_the_old_store_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the new file cannot be written, the old one stays and the half one goes."""
    state = State(tmp_path)
    state.change_variables(lambda v: v.update(A="1"))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rvstate.state.os.fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        state.change_variables(lambda v: v.update(B="2"))
    assert state.variables() == {"A": "1"}
    assert sorted(os.listdir(tmp_path)) == ["env.json", "env.lock"]


def test_eight_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Eight processes that each set one variable leave eight."""
    code = (
        "import sys; from pathlib import Path; from rvstate.state import State\n"
        "State(Path(sys.argv[1])).change_variables(lambda v: v.update({sys.argv[2]: 'x'}))\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), f"V{n}"]) for n in range(8)
    ]
    assert [w.wait() for w in writers] == [0] * 8
    assert sorted(State(tmp_path).variables()) == [f"V{n}" for n in range(8)]


def test_the_file_is_the_documented_one(tmp_path: Path) -> None:
    """`env.json` holds one object `vars`, as other tools of the kind write it."""
    State(tmp_path).change_variables(lambda v: v.update(A="1"))
    assert json.loads((tmp_path / "env.json").read_text()) == {"vars": {"A": "1"}}
