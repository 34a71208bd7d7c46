"""Working on the cluster as if it were here: one running job, and what looks at it or enters it."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rvstate.transport import control_directory
from tests.runkit import Laptop, repository, until

pytestmark = pytest.mark.cluster

SECRET = "hunter2 'q' \"d\" $HOME #x\nline two"


@pytest.fixture(scope="module")
def laptop(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """rvstate on a machine of its own, with one secret."""
    cluster.reset()
    found = Laptop(
        tmp_path_factory.mktemp("laptop"),
        '[connection]\nhost = "rv-login"\nuser = "abc1de"\nsite = "uva"\n'
        f'ssh_config = "{cluster.ssh_config}"\n[defaults]\naccount = "mygroup"\n',
    )
    (found.home / "env.json").write_text(json.dumps({"vars": {"RV_TEST_SECRET": SECRET}}))
    yield found
    for port in [t["port"] for t in found.document("status").get("tunnels", [])]:
        found.run("forward", "--stop", str(port))


@pytest.fixture(scope="module")
def job(laptop: Laptop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A job with two GPUs that waits to be ended."""
    app = repository(tmp_path_factory.mktemp("work") / "desk", {"mark": "snapshot\n"})
    words = ("-g", "2", "-t", "a100", "--time", "1h", "--name", "desk", "sleep", "900")
    found = laptop.submit(*words, cwd=app)
    laptop.await_state(found["run_id"], "RUNNING")
    return found


def test_status_is_one_remote_command(cluster: Any, laptop: Laptop, job: dict[str, Any]) -> None:
    """Account, storage, pending changes, jobs and free GPUs, as Slurm and the site tell them."""
    mark = cluster.logins()["mark"]
    found = laptop.document("status")
    assert sum(cluster.logins(mark)["sessions"].get("abc1de", {}).values()) == 1
    assert found["connection"] == {"ok": True, "account": "abc1de@rv-login", "node": "udc-ba33-1"}
    assert found["account"]["name"] == "mygroup"
    assert found["account"]["balances"][0]["available"] == 8742210
    assert [run["job_id"] for run in found["jobs"]] == [job["job_id"]]
    places = {place["path"]: place for place in found["storage"]}
    assert places["/home/abc1de"]["quota"]
    assert places["/scratch/abc1de"]["inodes_used"] > 0
    free = {gpu["kind"]: gpu["free"] for gpu in found["gpus"]}
    assert free["a100_80"] == 14
    # a run makes what jobs need; caches and the shell's block are converge's
    assert found["state"]["pending_changes"] > 0
    assert found["trouble"] == []
    shown = laptop.run("status").stdout
    assert len(shown.splitlines()) < 24
    assert "mygroup: 8,742,210 available" in shown


def test_status_of_an_account_that_is_not_reached_is_an_answer(
    cluster: Any, tmp_path: Path
) -> None:
    """For programs a document, with the exit code of the trouble."""
    config = (
        f'[connection]\nhost = "rv-nowhere"\nsite = "uva"\nssh_config = "{cluster.ssh_config}"\n'
    )
    done = Laptop(tmp_path / "lost", config).run("status", "--json", status=1)
    found = json.loads(done.stdout)
    assert found["connection"]["ok"] is False
    assert found["connection"]["reason"] == "UnreachableError"


def test_gpus_are_asked_inside_the_job(cluster: Any, laptop: Laptop, job: dict[str, Any]) -> None:
    """The job's own two on its node; the driver's words are the stand-in's."""
    cluster.exec("sh", "-c", "echo 42 2048 >/run/cluster/gpu-use")
    (run,) = laptop.document("gpu")["runs"]
    node = cluster.exec("squeue", "-h", "-j", job["job_id"], "-o", "%N").stdout.strip()
    seen = [(g["node"], g["index"], g["busy_percent"], g["memory_used_mib"]) for g in run["gpus"]]
    assert seen == [(node, 0, 42, 2048), (node, 1, 42, 2048)]
    assert "42%" in laptop.run("gpu", job["job_id"]).stdout
    assert "is called" in laptop.run("gpu", "nosuch", status=64).stderr


def test_costs_are_counted_from_accounting(laptop: Laptop, job: dict[str, Any]) -> None:
    """Two GPUs of that type, by the site's price; and a plan leaves the balance lessened by it."""

    def counted() -> list[dict[str, Any]]:
        found = laptop.document("cost", "--days", "1")["costs"]
        return [cost for cost in found if cost["kind"] == "a100_80"]

    # accounting lags behind the job's start
    until(counted)
    (cost,) = counted()
    assert cost["jobs"] >= 1
    assert cost["units"] == pytest.approx(cost["hours"] * 508.89)
    plan = laptop.document("cost", "-g", "2", "-t", "a100", "--time", "4h")
    assert plan["total"] == pytest.approx(8 * 508.89)
    assert plan["balance"]["available"] == 8742210
    assert "8,738,139 after this job" in laptop.run("cost", "-g2", "-ta100", "--time=4h").stdout


def test_a_command_in_the_job_has_all_that_the_job_has(
    cluster: Any, laptop: Laptop, job: dict[str, Any]
) -> None:
    """Node, GPUs, secret, modules, snapshot and exit code; nothing of it in Slurm's records."""
    node = cluster.exec("squeue", "-h", "-j", job["job_id"], "-o", "%N").stdout.strip()
    line = 'echo "$(hostname) $CUDA_VISIBLE_DEVICES $SLURM_JOB_ID $PWD $(cat mark)"; '
    line += 'printf %s "$RV_TEST_SECRET"; type module >/dev/null && exit 7  # hush-hush'
    done = laptop.run("ssh", "desk", "--run", line, status=7)
    shown = f"{node} 0,1 {job['job_id']} {job['snapshot']} snapshot\n{SECRET}"
    assert done.stdout == shown
    steps = cluster.exec("sacct", "-n", "-P", "-j", job["job_id"], "--format=JobName,SubmitLine")
    assert "hush-hush" not in steps.stdout
    assert laptop.state(job["run_id"]) == "RUNNING"
    assert (
        "has no node 'n9'" in laptop.run("ssh", "--node", "n9", "--run", "true", status=64).stderr
    )


def test_any_ssh_client_is_let_in_by_the_printed_block(
    cluster: Any, laptop: Laptop, job: dict[str, Any], tmp_path: Path
) -> None:
    """Plain ssh and scp with that file alone, through the login node, into the job."""
    block = laptop.run("ssh", "--config", job["job_id"]).stdout
    config = tmp_path / "config"
    config.write_text(block)
    alias = f"rv-{job['job_id']}"
    line = 'echo "$SLURM_JOB_ID $CUDA_VISIBLE_DEVICES $PWD"; printf %s "$RV_TEST_SECRET"; exit 5'
    argv = ["ssh", "-F", str(config), alias, line]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 5, done.stderr
    assert done.stdout == f"{job['job_id']} 0,1 /home/abc1de\n{SECRET}"
    source, back = tmp_path / "blob", tmp_path / "back"
    source.write_bytes(bytes(range(256)) * 4000)
    for one, two in ((source, f"{alias}:blob"), (f"{alias}:blob", back)):
        subprocess.run(["scp", "-q", "-F", str(config), one, two], check=True, timeout=60)
    assert back.read_bytes() == source.read_bytes()
    stranger = str(cluster.state / "keys" / "id_stranger")
    config.write_text(block.replace(str(laptop.home / "ssh" / "id_ed25519"), stranger))
    done = subprocess.run(["ssh", "-F", str(config), "-o", "BatchMode=yes", alias, "true"])
    assert done.returncode == 255


SERVER = """
import http.server, os, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{socket.gethostname()} {os.environ['SLURM_JOB_ID']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_a_service_in_a_job_is_reached_until_the_job_ends(
    cluster: Any, laptop: Laptop, tmp_path: Path
) -> None:
    """Through a step in the job, again after a cut, by one session; the shared connection stays."""
    app = repository(tmp_path / "serve", {"serve.py": SERVER})
    words = ("--time", "10m", "--name", "serve", "python3", "serve.py")
    run = laptop.submit(*words, cwd=app)
    laptop.await_state(run["run_id"], "RUNNING")
    until(lambda: laptop.run("logs", run["job_id"], "--out").stdout.strip())
    remote = int(laptop.run("logs", run["job_id"], "--out").stdout)
    # the mini-cluster's loopback is this machine's, so the service's own port is taken here
    refused = laptop.run("forward", str(remote), status=3).stderr
    port = int(refused.rsplit("rvstate forward ", 1)[1].split(":")[0])
    mark = cluster.logins()["mark"]
    (made,) = laptop.document("forward", "serve", f"{port}:{remote}")["tunnels"]
    assert cluster.logins(mark)["accepted"].get("abc1de", 0) == 0
    node = cluster.exec("squeue", "-h", "-j", run["job_id"], "-o", "%N").stdout.strip()

    def reached() -> bool:
        try:
            with urllib.request.urlopen(made["address"], timeout=5) as answer:
                return bool(answer.read().decode() == f"{node} {run['job_id']}")
        except OSError:
            return False

    assert reached()
    # the witness that it leads through the job: without its step nothing gets there
    steps = cluster.exec("squeue", "-h", "-s", "-j", run["job_id"], "-o", "%i %j").stdout
    step = next(line.split()[0] for line in steps.splitlines() if "batch" not in line)
    cluster.run_as("abc1de", "scancel", step)
    until(lambda: not reached())
    until(reached)
    laptop.run("stop", "-y", "serve")
    until(lambda: not laptop.document("forward", "--list")["tunnels"])
    argv = ["ssh", "-F", str(cluster.ssh_config), "-o", f"ControlPath={control_directory()}/%C"]
    check = subprocess.run([*argv, "-l", "abc1de", "-O", "check", "rv-login"], capture_output=True)
    assert check.returncode == 0


NOTEBOOK = """#!/usr/bin/env python3
import http.server, json, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        good = self.path == "/?token=" + os.environ["JUPYTER_TOKEN"]
        self.send_response(200 if good else 403)
        self.end_headers()
        self.wfile.write(os.getcwd().encode() if good else b"")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
about = {"port": server.server_port, "token": os.environ["JUPYTER_TOKEN"]}
with open(os.environ["JUPYTER_RUNTIME_DIR"] + "/jpserver-1.json", "w") as file:
    json.dump(about, file)
server.serve_forever()
"""


def test_a_notebook_server_in_the_job_is_reached_by_its_token(
    cluster: Any, laptop: Laptop, job: dict[str, Any]
) -> None:
    """Once for each run, in the job's surroundings; its token is nowhere else, and stop ends it."""
    install = (
        "mkdir -p ~/bin && cat >~/bin/jupyter-server && chmod +x ~/bin/jupyter-server && "
        "echo 'PATH=~/bin:$PATH' >>~/.bash_profile"
    )
    cluster.ssh(install, user="abc1de", stdin=NOTEBOOK)
    (made,) = laptop.document("forward", "--jupyter", "desk")["tunnels"]
    assert made["what"] == "Jupyter"
    with urllib.request.urlopen(made["address"], timeout=5) as answer:
        assert answer.read().decode() == job["snapshot"]
    token = made["address"].partition("token=")[2]
    (again,) = laptop.document("forward", "--jupyter", "desk")["tunnels"]
    assert again["address"] == made["address"]
    told = cluster.exec("sh", "-c", "ps -eo args; sacct -a -P --format=JobName,SubmitLine").stdout
    assert "rvstate-jupyter" in told
    assert token not in told
    assert token not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert laptop.document("forward", "--stop", str(made["port"]))["stopped"] == [made["port"]]
    until(lambda: "rvstate-jupyter" not in cluster.exec("squeue", "-s", "-o", "%j").stdout)


def test_a_watched_tree_is_pushed_through_a_lost_connection(cluster: Any, tmp_path: Path) -> None:
    """Now, on a change, and after a cut; by one connection, until Ctrl-C."""
    laptop = Laptop(
        tmp_path / "far",
        '[connection]\nhost = "rv-far"\nuser = "abc1de"\nsite = "uva"\n'
        f'ssh_config = "{cluster.ssh_config}"\n',
    )
    app = repository(tmp_path / "watched", {"a.txt": "1", ".gitignore": "*.log\n"})
    code = "/scratch/abc1de/rv-workspaces/watched/main/code"

    def there(text: str) -> Callable[[], bool]:
        line = f"cd {code} && ls && cat a.txt"
        return lambda: cluster.run_as("abc1de", "sh", "-c", line, check=False).stdout == text

    process = laptop.start("sync", "watch", cwd=app)
    try:
        until(there("a.txt\n1"), 120)
        (app / "a.txt").write_text("2")
        (app / "x.log").write_text("noise")
        until(there("a.txt\n2"), 120)
        # not refused alone: what is open would go on serving
        cluster.fault("drop")
        cluster.fault("refuse")
        (app / "a.txt").write_text("3")
        assert process.stderr is not None
        said = iter(process.stderr.readline, "")
        assert any("Tries again in 2 s" in line for line in said)
        (app / "b.txt").write_text("new")
        cluster.heal()
        until(there("a.txt\nb.txt\n3"), 120)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=180)
    finally:
        cluster.heal()
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "Watching has ended." in err
    assert "sent a.txt" in out
    assert "x.log" not in out
