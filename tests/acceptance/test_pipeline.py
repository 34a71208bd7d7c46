"""Pipelines on a real Slurm: an environment for each stage, and dependencies that cancel."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.runkit import Laptop, repository, until

pytestmark = pytest.mark.cluster

SCRATCH = "/scratch/abc1de"
SEEN = """import os, sys, packaging, six
print("python", sys.prefix)
open(sys.argv[1], "w").write(f"{packaging.__version__} {six.__version__}")
"""
THREE = """[stages.base]
command = "see.py base.txt"
outputs = ["base.txt"]

[stages.bypip]
command = "see.py pip.txt"
outputs = ["pip.txt"]
runtime_env = { pip = ["packaging==23.2"] }

[stages.byuv]
command = "see.py uv.txt"
inputs = ["base.txt", "pip.txt"]
outputs = ["uv.txt"]
runtime_env = { uv = ["Packaging == 24.0"] }
"""


class Desk:
    """A machine with a project, and the cluster."""

    def __init__(self, cluster: Any, root: Path) -> None:
        self.cluster = cluster
        self.root = root
        self.laptop = Laptop(
            root / "laptop",
            '[connection]\nhost = "rv-login"\nuser = "abc1de"\nsite = "uva"\n'
            f'ssh_config = "{cluster.ssh_config}"\n[defaults]\naccount = "mygroup"\n',
        )

    def sh(self, script: str) -> str:
        return str(self.cluster.run_as("abc1de", "sh", "-c", script).stdout)

    def run(self, app: Path, *words: str, status: int = 0) -> dict[str, Any]:
        done = self.laptop.run("pipeline", *words, "--json", cwd=app, status=status)
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture(scope="module")
def desk(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    cluster.reset()
    return Desk(cluster, tmp_path_factory.mktemp("pipeline"))


def states(found: dict[str, Any]) -> dict[str, str]:
    return {s["name"]: s["state"] for s in found["stages"] if "state" in s}


def test_three_stages_see_three_versions(desk: Desk) -> None:
    """One package by pip, by uv and in the base, and what only the base names in all of them; the
    second time nothing is built, nothing submitted, and each stage says why.
    """
    app = repository(
        desk.root / "work/three",
        {
            "see.py": SEEN,
            "rvstate.toml": THREE,
            "requirements.txt": "packaging==25.0\nsix==1.17.0\n",
        },
    )
    found = desk.run(app, "run", "--wait")
    assert states(found) == dict.fromkeys(("base", "bypip", "byuv"), "COMPLETED")
    data = f"{SCRATCH}/rv-workspaces/three/main/data"
    assert found["data"] == data
    seen = desk.sh(f"cd {data} && tail -n +1 base.txt pip.txt uv.txt")
    assert [line for line in seen.splitlines() if line[:1].isdigit()] == [
        "25.0 1.17.0",
        "23.2 1.17.0",
        "24.0 1.17.0",
    ]
    # each job had the environment that its receipt names, and they are three
    places = [stage["environment"] for stage in found["stages"]]
    assert len(set(places)) == 3
    for stage in found["stages"]:
        log = desk.laptop.run("pipeline", "logs", stage["name"], cwd=app).stdout
        assert log == f"python {stage['environment']}\n"
    files = f"find {SCRATCH}/.rv/envs {SCRATCH}/.cache/uv -printf '%p %C@\\n' | sort | sha256sum"
    before = desk.sh(files)
    again = desk.run(app, "run")
    assert [s["action"] for s in again["stages"]] == ["skip"] * 3
    assert again["remote_commands"] <= 4
    assert again["stages"][2]["reason"] == (
        f"nothing has changed since run {found['stages'][2]['run_id']}"
    )
    assert desk.sh(files) == before
    # what is declared is replaced, and only what that concerns runs
    plan = desk.run(app, "plan", "--stage-env", "byuv:none")
    assert [s["action"] for s in plan["stages"]] == ["skip", "skip", "run"]
    assert plan["stages"][2]["environment"] == places[0]


def test_a_failed_stage_cancels_what_needs_it(desk: Desk) -> None:
    """Slurm takes it out of the queue, what does not need it goes on, and `ps` says why; a stage
    that waits is refused a second time, and an edit of an output makes its stage run.
    """
    app = repository(
        desk.root / "work/line",
        {
            "rvstate.toml": "\n".join(
                f'[stages.{name}]\ncommand = "{command}"\nafter = {after}\noutputs = {outputs}'
                for name, command, after, outputs in (
                    ("first", "echo 1 > first.txt", [], ["first.txt"]),
                    ("gate", f"until [ -e {SCRATCH}/gate ]; do sleep 0.2; done; exit 3",
                     ["first"], []),
                    ("needs", "echo never", ["gate"], []),
                    ("other", "echo 2 > other.txt", ["first"], ["other.txt"]),
                )
            )
        },
    )  # fmt: skip
    found = desk.run(app, "run")
    queued = desk.cluster.exec("squeue", "--noheader", "--format=%i %E").stdout
    jobs = [stage["job_id"] for stage in found["stages"]]
    assert f"{jobs[2]} afterok:{jobs[1]}" in queued
    refused = desk.laptop.run("pipeline", "rerun", "--from", "gate", cwd=app, status=3)
    assert "waits or runs already, as job" in refused.stderr
    desk.sh(f"touch {SCRATCH}/gate")
    listed: dict[str, Any] = {}

    def over() -> bool:
        listed.update(desk.run(app, "ps"))
        return all(s["state"] not in ("PENDING", "RUNNING", "UNKNOWN") for s in listed["stages"])

    until(over)
    assert states(listed) == {
        "first": "COMPLETED",
        "gate": "FAILED",
        "needs": "CANCELLED",
        "other": "COMPLETED",
    }
    why = f"it was to follow line-gate ({jobs[1]}) only if that succeeds, and it is FAILED"
    assert why in {s["name"]: s["reason"] for s in listed["stages"]}["needs"]
    # the next one runs what is left; a touch is nothing, an edit is
    desk.sh(f"touch {SCRATCH}/rv-workspaces/line/main/data/first.txt")
    plan = desk.run(app, "plan")
    assert [s["action"] for s in plan["stages"]] == ["skip", "run", "run", "skip"]
    desk.sh(f"echo 9 > {SCRATCH}/rv-workspaces/line/main/data/other.txt")
    plan = desk.run(app, "plan", "--stage", "other")
    assert plan["stages"][3]["reason"] == "its output other.txt was changed since it was made"


def test_all_are_submitted_or_none(desk: Desk) -> None:
    """A stage that Slurm refuses takes those in front of it out of the queue again."""
    app = repository(
        desk.root / "work/refused",
        {
            "rvstate.toml": '[stages.a]\ncommand = "sleep 600"\n[stages.b]\ncommand = "true"\n'
            'after = ["a"]\nresources = { partition = "nonesuch" }\n'
        },
    )
    done = desk.laptop.run("pipeline", "run", cwd=app, status=1)
    assert "nonesuch" in done.stderr
    assert "that was stage b; the stages before it were ended again:" in done.stderr
    until(lambda: "refused-a" not in desk.cluster.exec("squeue", "--format=%j %T").stdout)
    # it was an answer, so nothing is left to be taken up
    done = desk.laptop.run("pipeline", "run", "--resume", cwd=app, status=64)
    assert "was answered" in done.stderr


WIDE = """import os
rank, node = os.environ["SLURM_NODEID"], os.uname().nodename
print(rank, os.environ["WHAT"], os.environ["ELSE"], node, flush=True)
if rank == "0":
    open("wide.txt", "w").write(open("made.txt").read())
"""


def test_a_stage_of_several_nodes(desk: Desk) -> None:
    """Its own variables win on each of them; where what it reads comes out the same, it ends."""
    app = repository(
        desk.root / "work/wide",
        {
            "make.py": "open('made.txt', 'w').write('one')\n",
            "wide.py": WIDE,
            "rvstate.toml": '[stages.make]\ncommand = "make.py"\noutputs = ["made.txt"]\n'
            'code = ["make.py"]\n'
            '[stages.wide]\ncommand = "python wide.py && true"\ninputs = ["made.txt"]\n'
            'outputs = ["wide.txt"]\n'
            'code = ["wide.py"]\nresources = { nodes = 2 }\n'
            'runtime_env = { env_vars = { WHAT = "the stage\'s" } }\n',
        },
    )
    for name in ("WHAT", "ELSE"):
        desk.laptop.run("env", "set", name, "user's")
    done = desk.laptop.run("pipeline", "run", cwd=app, status=3)
    assert "Stage wide: wide.py does not look at its rank" in done.stderr
    assert "write it in stages.wide.resources." in done.stderr
    toml = (app / "rvstate.toml").read_text()
    (app / "rvstate.toml").write_text(toml.replace("nodes = 2", 'nodes = 2, start = "node"'))
    found = desk.run(app, "run", "--wait")
    assert states(found) == {"make": "COMPLETED", "wide": "COMPLETED"}
    log = desk.laptop.run("pipeline", "logs", "wide", cwd=app).stdout
    said = re.findall(r"(\d the stage's user's) (\S+)$", log, re.MULTILINE)
    assert sorted(what for what, _ in said) == ["0 the stage's user's", "1 the stage's user's"]
    assert len({node for _, node in said}) == 2
    where = f"{found['data']}/wide.txt"
    before = desk.sh(f"stat -c '%i %y' {where}")
    (app / "make.py").write_text("open('made.txt', 'w').write('one')  # the same\n")
    found = desk.run(app, "run", "--wait")
    assert states(found) == {"make": "COMPLETED", "wide": "COMPLETED"}
    assert desk.sh(f"stat -c '%i %y' {where}") == before
    assert {s["action"] for s in desk.run(app, "plan")["stages"]} == {"skip"}
