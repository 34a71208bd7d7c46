"""rDVC's settings in our words."""

import tomllib

import pytest

from rvstate import rdvc

GLOBAL = """
[cluster]
host = "slurm.example.org"
username = "me"
[run]
mail-user = "me@example.org"
mail-type = "END,FAIL"
time = 90
"""
PROJECT = """
[run]
wckey = "thesis"
instance = "g5.12xlarge"
comment = "x"
pull = false
begin = "now+1hour"
deadline = "2027-01-01"
job-name = "mine"
"""


def test_the_users_file() -> None:
    """The account, whom to mail, and a walltime whose plain number is minutes."""
    found = rdvc.translated(tomllib.loads(GLOBAL), project=False)
    assert found.values == {
        "connection.host": "slurm.example.org",
        "connection.user": "me",
        "notifications.email": "me@example.org",
        "notifications.mail_type": "END,FAIL",
        "notifications.enabled": True,
        "defaults.time": "90m",
    }
    assert found.left == ()


def test_a_projects_file() -> None:
    """An instance type becomes a preset that says what rDVC asked for."""
    found = rdvc.translated(tomllib.loads(PROJECT), project=True)
    preset = {k.rpartition(".")[2]: v for k, v in found.values.items() if k.startswith("presets.")}
    assert preset == {
        "gpus": 4, "nodes": 1, "exclusive": True, "constraint": "g5.12xlarge", "mem": "0",
        "cpus": 24, "partition": "multi-gpu",
    }  # fmt: skip
    rest = {k: v for k, v in found.values.items() if not k.startswith("presets.")}
    assert rest == {
        "defaults.preset": "g5.12xlarge", "defaults.wckey": "thesis", "defaults.comment": "x",
        "defaults.begin": "now+1hour", "defaults.deadline": "2027-01-01",
        "defaults.job_name": "mine", "dvc.pull": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[run]\ninstance = 'p4d'", "run.instance"),
        ("[run]\ntime = 'long'", "run.time"),
        ("[run]\njob-name = 'a/b'", "run.job-name"),
        ("[run]\njob-name = '{x}'", "run.job-name"),
        ("[run]\npull = 'no'", "run.pull"),
        ("[run]\nnodes = 2", "run.nodes"),
        ("[queue]\nx = 1", "queue.x"),
        ("[cluster]\nhost = 'x'", "cluster.host"),
        ("[other]\nx = 1", "other"),
        ("x = 1", "x"),
    ],
)
def test_what_has_no_counterpart_is_listed_with_a_reason(text: str, key: str) -> None:
    """Nothing is dropped in silence."""
    found = rdvc.translated(tomllib.loads(text), project=True)
    assert found.values == {}
    ((named, why),) = found.left
    assert named == key
    assert why
