"""The mini-cluster itself: what other tests rely on is there, and nothing of it stays behind."""

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fixture import Cluster, start

pytestmark = pytest.mark.cluster


def until(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"timed out: {what}"
        time.sleep(0.1)


@pytest.fixture
def fresh(cluster: Cluster) -> Cluster:
    cluster.reset()
    return cluster


SHELLS = {
    "abc1de": "bash",
    "noi5ey": "bash",
    "csh7sh": "tcsh",
    "fsh8fi": "fish",
    "zsh7sh": "zsh",
    "frc4ed": "bash",
    "out5id": "bash",
    "u01aa": "bash",
    "u20aa": "bash",
}


# ------------------------------------------------------------------------------- logins and shells
@pytest.mark.parametrize("user", SHELLS)
def test_shell(cluster: Cluster, user: str) -> None:
    out = cluster.ssh("module load cuda/12.8.0; id -un; echo $CUDA_HOME; echo $SHELL", user=user)
    lines = out.stdout.split()
    assert lines[-3] == user
    assert lines[-2].endswith("/cuda/12.8.0")
    assert Path(lines[-1]).name == SHELLS[user]
    assert ("reminder" in out.stdout) == (user == "noi5ey")


def test_login_paths(cluster: Cluster) -> None:
    for host in ("rv-login", "rv-noisy", "rv-jump", "rv-far"):
        assert cluster.ssh("hostname", host=host).stdout == "udc-ba33-1\n"
    assert cluster.ssh("hostname", host="rv-bastion").stdout == "udc-bastion\n"
    noisy = cluster.ssh("true", host="rv-noisy", options=("-o", "LogLevel=INFO"))
    assert "UNAUTHORIZED USE PROHIBITED" in noisy.stderr
    refused = cluster.ssh("true", user="nol0gn", check=False)
    assert refused.returncode == 1
    assert "not available" in refused.stdout
    key = cluster.state / "keys/id_stranger"
    other = ["ssh", "-F", "none", "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
    other += ["-o", f"UserKnownHostsFile={cluster.state}/known_hosts", "-p", "2222"]
    stranger = subprocess.run([*other, f"abc1de@{cluster.facts['net']}.2", "true"], check=False)
    assert stranger.returncode == 255


def test_file_transfer(fresh: Cluster, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    config = ["-q", "-F", str(fresh.ssh_config)]
    subprocess.run(["scp", *config, tmp_path / "file", "rv-login:by-scp"], check=True)
    subprocess.run(
        ["sftp", *config, "-b", "-", "rv-login"],
        input=f"put {tmp_path}/file by-sftp\n",
        text=True,
        check=True,
    )
    assert fresh.ssh("cat by-scp by-sftp").stdout == "xx"
    assert "protocol version" in fresh.ssh("rsync --version").stdout


@pytest.mark.parametrize(("answer", "push", "works"), [("123456", "", True), ("1", "deny", False)])
def test_second_factor(fresh: Cluster, tmp_path: Path, answer: str, push: str, works: bool) -> None:
    assert fresh.ssh("true", host="rv-duo", check=False).returncode == 255  # BatchMode: no prompt
    if push:
        fresh.exec("sh", "-c", f"echo {push} >/run/cluster/duo-push-seconds")
    ask = tmp_path / "ask"
    ask.write_text(f"#!/bin/sh\necho {answer}\n")
    ask.chmod(0o755)
    done = subprocess.run(
        ["ssh", "-F", fresh.ssh_config, "rv-duo", "hostname"],
        env={**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.stdout == ("udc-ba33-1\n" if works else "")


def test_logins_are_counted(cluster: Cluster) -> None:
    mark = cluster.logins()["mark"]
    master = ("-o", f"ControlPath={cluster.state}/cm/%C", "-o", "ControlMaster=auto")
    cluster.ssh("true", user="u02aa", options=(*master, "-o", "ControlPersist=10"))
    cluster.ssh("true", user="u02aa", options=master)
    cluster.ssh("true", user="u02aa", options=(*master, "-O", "exit"))
    counts = cluster.logins(mark)
    assert counts["accepted"] == {"u02aa": 1}
    assert counts["sessions"] == {"u02aa": {"command": 2}}
    assert counts["by_sshd"]["login"] == {"accepted": 1, "sessions": 2}


# ------------------------------------------------------------------------------- Slurm
def test_job_runs_and_is_accounted(fresh: Cluster) -> None:
    script = "hostname; python3 -V; module list 2>&1; df -B1 --output=size /tmp | tail -1"
    job = fresh.ssh(
        f"module load miniforge; sbatch --parsable --wait -p gpu-a6000 --gres=gpu:a6000:1 "
        f"-o out --wrap '{script}'"
    ).stdout.strip()
    out = fresh.ssh("cat out").stdout
    assert out.startswith("udc-an25-1\nPython 3.1")
    assert "miniforge/24.11.3-py3.12" in out
    assert int(out.split()[-1]) >= 2 << 30, "node-local /tmp"
    sacct = f"sacct -nXP -o state,partition -j {job}"
    until(lambda: fresh.ssh(sacct).stdout == "COMPLETED|gpu-a6000\n", "sacct to know it")


def test_tmp_is_the_nodes_own(fresh: Cluster) -> None:
    srun = "srun -p standard -w udc-aj37-{} sh -c '{}'"
    fresh.ssh(srun.format(1, "touch /tmp/mine"))
    assert fresh.ssh(srun.format(2, "ls -A /tmp")).stdout == ""
    assert "mine" in fresh.ssh(srun.format(1, "ls -A /tmp; rm /tmp/mine")).stdout
    assert "mine" not in fresh.ssh("ls /tmp").stdout


def test_every_member_can_submit(fresh: Cluster) -> None:
    out = fresh.exec("sacctmgr", "-nP", "show", "assoc", "account=mygroup", "format=user").stdout
    members = set(out.split())
    assert {f"u{i:02d}aa" for i in range(1, 21)} | {"abc1de", "zsh7sh"} <= members
    assert fresh.run_as("u20aa", "sbatch", "-o", "/dev/null", "--wrap", "true").returncode == 0
    refused = fresh.run_as("out5id", "sbatch", "--wrap", "true", check=False)
    assert "Invalid account" in refused.stderr


def test_scrontab(fresh: Cluster) -> None:
    fresh.ssh("scrontab -", stdin="#SCRON -p standard -t 5\n0 0 1 1 * true\n")
    assert "0 0 1 1 *" in fresh.ssh("scrontab -l").stdout
    assert fresh.ssh("squeue -h -o %T,%r").stdout == "PENDING,BeginTime\n"


def test_crontab(fresh: Cluster) -> None:
    fresh.ssh("crontab -", stdin="0 0 1 1 * true\n")
    assert fresh.ssh("crontab -l").stdout == "0 0 1 1 * true\n"


def test_preempt_requeues(fresh: Cluster) -> None:
    where = "sbatch --parsable -o /dev/null --exclusive -N1 -w udc-aj37-2"
    low = fresh.ssh(f"{where} -p preempt --requeue --wrap 'sleep 60'").stdout.strip()
    until(lambda: "RUNNING" in fresh.ssh(f"squeue -h -j {low} -o %T").stdout, "low job to run")
    high = fresh.ssh(f"{where} -p standard --wrap 'sleep 60'").stdout.strip()
    until(lambda: "RUNNING" in fresh.ssh(f"squeue -h -j {high} -o %T").stdout, "high job to run")
    assert "Restarts=1" in fresh.ssh(f"scontrol show job {low}").stdout


def test_mail_is_recorded(fresh: Cluster) -> None:
    fresh.ssh(
        "sbatch -J letter --mail-type=END --mail-user=me@example.org -o /dev/null --wrap true"
    )
    until(fresh.mail, "mail")
    argv = fresh.mail()[0]["argv"]
    assert argv[1] == "-s"
    assert "Name=letter Ended" in argv[2]
    assert argv[3] == "me@example.org"
    fresh.ssh("echo body | mail -s hello you@example.org")
    assert fresh.mail()[1]["body"] == "body\n"
    assert fresh.mail()[1]["by"] == "abc1de"


# ------------------------------------------------------------------------------- Pythons
def test_pythons(cluster: Cluster) -> None:
    facts = cluster.facts["python"]
    prefix = facts["miniforge"]["prefix"]
    show = "import sys; print(sys.version.split()[0], sys.prefix)"
    out = cluster.ssh(
        f"module load miniforge/24.11.3-py3.12; python3 -c '{show}'; python -V"
    ).stdout
    assert out.splitlines()[0] == f"{facts['miniforge']['version']} {prefix}"
    old = cluster.ssh("/usr/bin/python3 -V; ls /usr/bin/python3.*").stdout
    assert f"Python {facts['system']['version']}" in old
    beside = re.search(r"/usr/bin/python3\.(\d+)$", old, re.MULTILINE)
    assert beside
    assert f"Python 3.{beside[1]}." in cluster.ssh(f"{beside[0]} -V").stdout


# ------------------------------------------------------------------------------- network, faults
def test_delay_proxy_counts(fresh: Cluster) -> None:
    fresh.latency(40)
    began = time.monotonic()
    fresh.ssh("true", host="rv-far")
    assert time.monotonic() - began > 0.2
    stats = fresh.stats()
    assert stats["connections"] == 1
    assert 5 <= stats["turns"] <= 10
    fresh.latency("off")
    assert fresh.stats()["rtt_ms"] == 0


def test_faults_of_the_network(fresh: Cluster) -> None:
    far = {"host": "rv-far", "check": False, "options": ("-o", "ConnectTimeout=2")}
    fresh.fault("refuse")
    assert "Connection refused" in fresh.ssh("true", **far).stderr  # type: ignore[arg-type]
    fresh.heal()
    fresh.fault("blackhole")
    assert "timed out" in fresh.ssh("true", **far).stderr  # type: ignore[arg-type]
    fresh.heal()
    with subprocess.Popen(["ssh", "-F", fresh.ssh_config, "rv-far", "sleep 30"]) as ssh:
        until(lambda: fresh.stats()["down"] > 3000, "the connection")
        fresh.fault("drop")
        assert ssh.wait(10) == 255


def test_faults_of_daemons_and_nodes(fresh: Cluster) -> None:
    fresh.fault("down", "udc-ax01-1")
    fresh.fault("stop", "sshd-noisy")
    fresh.fault("kill", "slurmctld")
    fresh.heal()
    fresh.fault("drain", "udc-an25-1", "broken")
    assert "drain" in fresh.ssh("sinfo -h -n udc-an25-1 -o %T").stdout
    fresh.heal()
    # A controller that has just come back calls a node unknown until it has heard of it; and it may
    # run jobs again whose end it had not saved, so a busy node is as good as an idle one.
    broken = {"unknown", "down", "drained", "draining", "fail", "failing"}
    for _ in range(100):
        states = set(fresh.ssh("sinfo -h -o %T").stdout.replace("*", "").split())
        if not states & broken:
            break
        time.sleep(0.2)
    assert not states & broken
    assert fresh.ssh("true", host="rv-noisy").returncode == 0


def test_faults_of_file_systems(fresh: Cluster) -> None:
    def write(where: str) -> str:
        return fresh.ssh(f"head -c 1000000 /dev/zero >{where}/abc1de/x", check=False).stderr

    fresh.fault("fill", "/scratch", "64k")
    assert "No space left" in write("/scratch")
    fresh.fault("inodes", "/standard")
    assert "No space left" in fresh.ssh("touch /standard/mygroup/x", check=False).stderr
    fresh.fault("readonly", "/home")
    assert "Read-only" in write("/home")
    fresh.heal()
    assert write("/home") + write("/scratch") == ""


# ------------------------------------------------------------------------------- life
def test_reset_empties(cluster: Cluster) -> None:
    cluster.ssh("sbatch -o /dev/null --wrap 'sleep 60'; touch x /scratch/abc1de/y")
    cluster.ssh("crontab -", stdin="0 0 1 1 * true\n")
    cluster.reset()
    assert cluster.ssh("ls; ls -A /scratch/abc1de; squeue -h").stdout == ""
    assert cluster.ssh("crontab -l", check=False).returncode == 1


def test_second_beside_it_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    options = ("--no-accounting", "--python=debian", "--scratch-size=300m", "--home-size=100m")
    other = start(*options, env={"TMPDIR": str(tmp_path)})
    try:
        net, port = other.facts["net"], other.facts["port"]
        assert net != cluster.facts["net"]
        assert port != cluster.facts["port"]
        assert other.facts["python"]["miniforge"]["from"] == "debian"
        sizes = "df -B1M --output=size /scratch /home | tail -n +2"
        other.reset()
        assert other.ssh(sizes).stdout.split() == ["300", "100"]
        assert other.ssh("srun -p standard hostname").stdout == "udc-aj37-1\n"
        assert cluster.ssh("srun -p standard hostname").stdout == "udc-aj37-1\n"
        made = other.ssh(
            "module load miniforge; python3 -m venv v && v/bin/python -m pip --version "
            "&& v/bin/python -c 'import sys; print(sys.base_prefix)'"
        ).stdout.splitlines()
        assert "/home/abc1de/v/lib" in made[0]
        assert made[1] == other.facts["python"]["miniforge"]["prefix"]
        namespace = os.readlink(f"/proc/{other.facts['pid']}/ns/pid")
        other.ssh("nohup sleep 1000 >/dev/null 2>&1 </dev/null &")
    finally:
        other.down()
    assert not other.state.exists()
    assert list(tmp_path.iterdir()) == []
    assert str(other.state) not in Path("/proc/mounts").read_text()
    assert str(other.state) not in Path("/proc/net/unix").read_text()
    for process in filter(lambda p: p.name.isdigit(), Path("/proc").iterdir()):
        try:
            assert os.readlink(process / "ns/pid") != namespace
            assert str(other.state).encode() not in (process / "cmdline").read_bytes()
        except (FileNotFoundError, PermissionError):  # ended meanwhile; not ours
            continue
    listening = {
        int(line.split()[1].split(":")[1], 16)
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    assert not listening & set(range(port, port + 9))


def test_tied_cluster_ends_with_its_holder(tmp_path: Path) -> None:
    other = start("--no-accounting", env={"TMPDIR": str(tmp_path)})
    pid = other.facts["pid"]
    os.close(other._hold)
    try:
        until(lambda: not Path(f"/proc/{pid}").exists(), "the cluster to end")
    finally:
        other.cli("down", "--wipe")
