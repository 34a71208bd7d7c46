"""converge against bare ssh, stock pyinfra operations and Ansible, for the same state."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import BIN, HERE, Bench
from benchmarks.table import line


def rows(bench: Bench) -> Iterator[str]:
    """Nothing to do, from nothing, and twenty accounts; at 0 and 50 ms round trip."""
    yield "converge: the same account through rvstate, stock pyinfra operations and Ansible"
    ansible = _ansible() if bench.peers else None
    for rtt in (0, 50):
        bench.cluster.latency(rtt)
        yield f"  nothing to do, {rtt} ms round trip"
        yield from _nothing_to_do(bench, rtt, ansible)
    bench.cluster.latency(50)
    yield "  an empty account to converged, 50 ms round trip"
    yield from _from_nothing(bench)
    yield "  twenty accounts with nothing to do, warm, 50 ms round trip"
    yield from _twenty(bench)
    bench.cluster.latency(0)


def _nothing_to_do(bench: Bench, rtt: int, ansible: Path | None) -> Iterator[str]:
    bench.run("rvstate", "converge", "-y")
    bare = bench.seconds(*bench.ssh_argv(bench.user), "rv-far", "true", runs=15)
    ours = bench.seconds("rvstate", "converge", "--check", runs=9)
    yield line("bare `ssh host true`, warm", bare)
    yield line("rvstate converge --check", ours)
    yield line("times a bare ssh", ours / bare, "at most 2.5" if rtt else "", most=2.5)
    if not bench.peers:
        return
    stock = bench.seconds(*_stock(bench, bench.user), runs=3)
    _must_have_run(bench)
    yield line("stock pyinfra", stock)
    yield line(
        "faster than stock pyinfra",
        stock / ours,
        f"at least {12 if rtt else 7}",
        least=12 if rtt else 7,
    )
    if ansible is not None:
        theirs = bench.seconds(*_playbook(bench, ansible, bench.user), runs=3)
        yield line("ansible-core", theirs)
        yield line("faster than Ansible", theirs / ours, "at least 20", least=20)


def _must_have_run(bench: Bench) -> None:
    """A peer that reached no host would be very fast."""
    done = subprocess.run(
        _stock(bench, bench.user), env=bench.env, capture_output=True, text=True, check=True
    )
    if "Grand total                 21" not in done.stdout + done.stderr:
        raise SystemExit(f"stock pyinfra did not run its 21 operations:\n{done.stderr}")


def _from_nothing(bench: Bench) -> Iterator[str]:
    ours = _fresh(
        bench, lambda: bench.once("rvstate", "converge", "-y", "--only", "directory,cache,shell")
    )
    yield line("rvstate converge -y", ours)
    if bench.peers:
        stock = _fresh(bench, lambda: bench.once(*_stock(bench, bench.user)))
        yield line("stock pyinfra", stock)
        yield line("faster than stock pyinfra", stock / ours, "at least 4", least=4)


def _twenty(bench: Bench) -> Iterator[str]:
    words = ("rvstate", "converge", "--only", "directory,cache,shell")
    bench.clusters([f"u{number:02}aa" for number in range(1, 21)])
    bench.run(*words, "--all", "-y")
    one = bench.seconds(*words, "--check", "--cluster", "u01aa")
    every = bench.seconds(*words, "--check", "--all")
    bench.config(bench.user)
    yield line("one account", one)
    yield line("twenty accounts", every)
    yield line("times one", every / one, "at most 4", most=4)


def _fresh(bench: Bench, measure: object) -> float:
    """Median over runs that each begin with an empty account and a warm connection."""
    assert callable(measure)
    taken = []
    for _ in range(3):
        bench.cluster.exec(
            "sh",
            "-c",
            f"rm -rf /scratch/{bench.user}/.rv* /scratch/{bench.user}/.cache "
            f"/scratch/{bench.user}/rv-workspaces /home/{bench.user}/.cache; "
            f"sed -i '/rvstate/,/rvstate/d' /home/{bench.user}/.bashrc",
        )
        bench.run(*bench.ssh_argv(bench.user), "rv-far", "true")
        taken.append(measure())
    return statistics.median(taken)


def _stock(bench: Bench, user: str) -> tuple[str, ...]:
    return (
        "env",
        f"BENCH_USER={user}",
        f"BENCH_SSH_CONFIG={bench.cluster.ssh_config}",
        f"BENCH_KNOWN_HOSTS={bench.cluster.state / 'known_hosts'}",
        str(BIN / "pyinfra"),
        "-y",
        str(HERE / "peers" / "inventory.py"),
        str(HERE / "peers" / "account_pyinfra.py"),
    )


def _ansible() -> Path:
    """ansible-playbook in an environment of its own: it is no dependency of the project."""
    place = BIN.parent / "peers"
    if not (place / "bin" / "ansible-playbook").exists():
        subprocess.run([str(BIN / "python"), "-m", "venv", str(place)], check=True)
        install = [str(place / "bin" / "pip"), "install", "--quiet", "ansible-core>=2.17"]
        subprocess.run(install, check=True)
    return place / "bin" / "ansible-playbook"


def _playbook(bench: Bench, ansible: Path, user: str) -> tuple[str, ...]:
    options = (
        f"-F {bench.cluster.ssh_config} -o ControlMaster=auto -o ControlPersist=10m "
        f"-o ControlPath={bench.sockets}/%C"
    )
    return (
        "env",
        "ANSIBLE_PIPELINING=1",
        f"ANSIBLE_SSH_ARGS={options}",
        "ANSIBLE_LOCALHOST_WARNING=false",
        str(ansible),
        *("-i", "rv-far,", "-u", user),
        *("-e", f"home=/home/{user}", "-e", f"scratch=/scratch/{user}"),
        *("-e", "ansible_python_interpreter=/usr/bin/python3.11"),
        str(HERE / "peers" / "account_ansible.yml"),
    )
