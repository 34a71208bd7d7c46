"""The real Ray on two nodes of a real Slurm.

Its servers listen on every address of a node, which cannot be switched off: the one exception to
"loopback only".  So the whole cluster of these tests is in a network of its own, where one can be
made; elsewhere the token is what keeps others out.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixture import start

from tests import raykit
from tests.runkit import Laptop, repository, until

pytestmark = pytest.mark.cluster

WHEELS = "/scratch/abc1de/wheels"
DATA = "/scratch/abc1de/rv-workspaces/app/main/data"
NODES = {"udc-aj37-1", "udc-aj37-2"}
PIPELINE = """import os
import socket

from rvstate.stages import Pipeline, Stage


class See(Stage):
    def setup(self):
        import packaging
        import requests  # only the base has it

        self.seen = [packaging.__version__, socket.gethostname(), os.environ["SLURMD_NODENAME"]]

    def process(self, batch):
        flag = os.environ.get("FLAG")
        return [{**one, self.name: [*self.seen, flag, len(batch)]} for one in batch]


ITEMS = [{"n": n} for n in range(6)]
pip = See("by-pip", runtime_env={"pip": ["packaging==23.2"], "env_vars": {"FLAG": "up"}})
uv = See("by-uv", batch_size=2).with_(runtime_env={"uv": ["packaging==24.0"]})
pipeline = Pipeline("demo", [See("base", num_workers=2), pip, uv], items=ITEMS)
wait = Stage("wait", command="echo waits on $(hostname); exec sleep 600")
waiting = Pipeline("waiting", [See("base", num_workers=2), pip, uv, wait], items=lambda: ITEMS)
"""
# What anybody asks first; it needs no socket of the node.
ASK = """import sys
from ray._raylet import GcsClient

found = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=20)
print(*sorted(node.node_manager_hostname for node in found.values()))
"""


@pytest.fixture(scope="module")
def site() -> Iterator[Any]:
    """A cluster that has Ray's wheels and no network; its nodes' /tmp has room for clones."""
    wheels = raykit.wheels()
    if wheels is None:
        pytest.skip((raykit.cache() / "source").read_text().strip())
    offline = {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": WHEELS,
        "UV_OFFLINE": "1",
        "UV_FIND_LINKS": WHEELS,
        # ssh keeps connections by address, and would take another cluster's for this one's
        "CLUSTER_NET": f"127.{80 + os.getpid() // 250 % 100}.{os.getpid() % 250}",
    }
    with raykit.own_network():
        found = start("--python=debian", "--scratch-size=3g", "--tmp-size=4g", env=offline)
        try:
            to = f"mkdir -p {WHEELS} && tar -C {WHEELS} -xf -"
            with subprocess.Popen(["tar", "-C", wheels, "-cf", "-", "."], stdout=-1) as packed:
                command = ["ssh", "-F", str(found.ssh_config), "-l", "abc1de", "rv-login", to]
                subprocess.run(command, stdin=packed.stdout, check=True, timeout=120)
            found.ssh(f"test -s {WHEELS}/ray-*.whl")
            yield found
        finally:
            found.down()


@pytest.fixture(scope="module")
def app(site: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Laptop, Path]:
    """A project whose pipelines are code, and a machine that submits them."""
    root = tmp_path_factory.mktemp("ray")
    files = {
        "requirements.txt": f"--no-index\n--find-links {WHEELS}\nray[data]\n",
        "rvstate.toml": '[pipeline]\nbackend = "ray-data"\n'
        'resources = { nodes = 2, cpus = 2, mem = "4G", time = "10m" }\n',
        "pipeline.py": PIPELINE,
    }
    laptop = Laptop(
        root / "laptop",
        '[connection]\nhost = "rv-login"\nuser = "abc1de"\nsite = "uva"\n'
        f'ssh_config = "{site.ssh_config}"\n[defaults]\naccount = "mygroup"\n',
    )
    return laptop, repository(root / "app", files)


def items(site: Any, name: str) -> list[dict[str, Any]]:
    """What has come out of a stage."""
    lines = site.ssh(f"cat {DATA}/stages/{name}.jsonl").stdout.splitlines()
    return [json.loads(line) for line in lines]


def left_behind(site: Any) -> str:
    """Directories of Ray on the nodes, and its processes anywhere."""
    # no look is what another node's looks for
    look = "ls -d /tmp/rv[r]ay.*\nps -e -o args= | grep -e '[r]vray' -e '[r]ay/core/'\ntrue\n"
    site.ssh("cat >look", stdin=look)
    return str(site.ssh("srun -Q -A mygroup -N 2 -n 2 --mem=10 bash look </dev/null").stdout)


def three_versions(found: list[dict[str, Any]]) -> None:
    """Every item is there, and each stage saw its own version of a package on its worker."""
    assert [one["n"] for one in found] == list(range(6))
    versions = {name: {one[name][0] for one in found} for name in ("base", "by-pip", "by-uv")}
    assert versions["by-pip"] == {"23.2"}
    assert versions["by-uv"] == {"24.0"}
    assert len(versions["base"]) == 1
    assert not versions["base"] & {"23.2", "24.0"}


def test_three_stages_see_three_versions_on_two_nodes(site: Any, app: tuple[Laptop, Path]) -> None:
    """As they were seen by the workers; the base's own packages are in all of them."""
    laptop, project = app
    sent = laptop.run("pipeline", "run", "pipeline.py", cwd=project)
    # each of two nodes copies the whole environment
    until(lambda: not site.ssh("squeue -h -u abc1de").stdout, 400)
    log = laptop.run("pipeline", "logs", "base", cwd=project, status=None)
    assert "stage by-uv is done" in log.stderr, log.stdout + log.stderr
    assert "the base environment also has pip, virtualenv, uv" in sent.stderr
    assert f"on {', '.join(sorted(NODES))}" in log.stderr
    found = items(site, "by-uv")
    three_versions(found)
    # four workers of one CPU each on two nodes with two; what Slurm says of the node is not lost
    seen = [one[name][1:3] for one in found for name in ("base", "by-pip", "by-uv")]
    assert {host for host, _ in seen} == NODES
    assert all(host == node for host, node in seen)
    assert {one["by-pip"][3] for one in found} == {"up"}
    assert {one["base"][3] for one in found} == {None}
    assert {one["by-uv"][4] for one in found} == {2}
    left = left_behind(site)
    assert not left, left
    again = laptop.run("pipeline", "plan", "pipeline.py", cwd=project)
    assert "Plan: 0 to run, 3 skipped." in again.stdout


def test_a_wrong_token_is_refused_and_scancel_leaves_nothing(
    site: Any, app: tuple[Laptop, Path]
) -> None:
    """By pools of actors this time, which see three versions, too, with a command behind them."""
    laptop, project = app
    laptop.env["RVSTATE_PIPELINE_BACKEND"] = "ray-actors"
    sent = laptop.run("pipeline", "run", "--json", "pipeline.py:waiting", cwd=project)
    stage = json.loads(sent.stdout)["stages"][-1]
    run = f"/scratch/abc1de/.rv/runs/{stage['run_id']}"
    until(lambda: "waits" in site.ssh(f"cat {run}/ray/wait.log", check=False).stdout, 400)
    found = items(site, "by-uv")
    three_versions(found)
    assert {one["base"][1] for one in found} == NODES
    assert site.ssh(f"stat -c %a {run}/ray/token").stdout == "600\n"
    address = site.ssh(f"cat {run}/ray/address").stdout.split()[0]
    site.ssh("cat >ask.py; umask 077; printf %064d 7 >wrong", stdin=ASK)
    python = f"{stage['environment']}/bin/python ask.py {address}"
    tell = "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH"
    right = site.ssh(f"{tell}={run}/ray/token {python}")
    assert set(right.stdout.split()) == NODES
    wrong = site.ssh(f"{tell}=$HOME/wrong {python}", check=False)
    assert wrong.returncode != 0
    assert "AuthenticationError" in wrong.stderr
    none = site.ssh(f"RAY_AUTH_MODE=disabled {python}", check=False)
    assert "AuthenticationError" in none.stderr
    site.ssh(f"scancel {stage['job_id']}")
    until(lambda: not site.ssh(f"squeue -h -j {stage['job_id']}", check=False).stdout)
    assert left_behind(site) == ""
    kept = site.ssh(f"ls {run}/ray {run}/ray/logs").stdout.split()
    assert {"node0.log", "node1.log", "node0", "node1"} <= {*kept}
    assert "token" not in kept
