"""Which remote DVC's data goes to, by its own files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate.dvcconfig import DataRemote, data_remote

# as `dvc remote add -d` and `dvc remote modify --local` of DVC 3 write them
CONFIG = """
[core]
    remote = store
['remote "store"']
    url = s3://bucket/x
    region = eu
"""
LOCAL = "['remote \"store\"']\n    access_key_id = AKIA\n    secret_access_key = hunter2\n"


def test_the_default_remote_with_what_stays_here() -> None:
    """Both files count, and of what logs in only the names are kept."""
    found = data_remote((CONFIG, LOCAL), "/p/.dvc")
    assert found == DataRemote(
        "store", "s3", "s3://bucket/x", ("access_key_id", "secret_access_key")
    )
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize(
    ("url", "scheme", "said"),
    [
        ("../data", "local", "/p/data"),
        ("/scratch/data", "local", "/scratch/data"),
        ("ssh://h/x", "ssh", "ssh://h/x"),
        ('"/with blank/x"', "local", "/with blank/x"),
    ],
)
def test_a_directory_is_relative_to_dvcs_own(url: str, scheme: str, said: str) -> None:
    """As `dvc remote add` keeps it."""
    found = data_remote((f"[core]\nremote = r\n['remote \"r\"']\nurl = {url}\n",), "/p/.dvc")
    assert found is not None
    assert (found.scheme, found.url) == (scheme, said)


def test_there_may_be_none() -> None:
    """No default, no such section, no file, no INI."""
    assert data_remote((), "/p/.dvc") is None
    assert data_remote(("[core]\nautostage = true\n",), "/p/.dvc") is None
    assert data_remote(("[core]\nremote = other\n" + LOCAL,), "/p/.dvc") is None
    assert data_remote(("remote = x\n",), "/p/.dvc") is None


@given(st.lists(st.text(), max_size=3))
def test_no_text_breaks_it(texts: list[str]) -> None:
    """Whatever the files hold, there is an answer."""
    data_remote(texts, "/p/.dvc")


def test_what_is_said_of_this_machine_alone_is_not_what_jobs_have() -> None:
    """Another way to the same remote stays here, and what logs in is still named."""
    shared = "[core]\n    remote = there\n['remote \"there\"']\n    url = /scratch/me/data\n"
    local = "['remote \"there\"']\n    url = ssh://host/scratch/me/data\n    password = x\n"
    found = data_remote((shared, local), "/p/.dvc")
    assert found is not None
    assert (found.scheme, found.url, found.secrets) == ("local", "/scratch/me/data", ("password",))
