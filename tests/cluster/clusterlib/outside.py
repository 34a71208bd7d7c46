"""Bringing the cluster up and down from outside, and what else is done to it from there."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from . import packages
from .layout import (
    HERE,
    MEMBERS,
    SLURM_PORTS,
    SSH_PORTS,
    ClusterError,
    Spec,
    cache_dir,
    load,
    say,
    unavailable,
)

UP_LIMIT = 60  # seconds; a machine that stalls for longer is given one more try
NET, PORT = (
    "127.77.0",
    16800,
)  # without CLUSTER_NET and CLUSTER_PORT: these, or the next that are free
NETWORK_FAULTS = ("drop", "blackhole", "refuse")
HANDED_IN = re.compile(
    r"(PIP|UV)_(\w*INDEX\w*|FIND_LINKS|CERT|TRUSTED_HOST|NATIVE_TLS|SYSTEM_CERTS|INSECURE_HOST"
    r"|OFFLINE|DEFAULT_TIMEOUT|HTTP_TIMEOUT|RETRIES|DISABLE_PIP_VERSION_CHECK)"
    r"|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|GIT_SSL_CAINFO|(?i:(http|https|no)_proxy)"
)


# ------------------------------------------------------------ can it run
def unshare(rootless: bool, *more: str) -> list[str]:
    user = ["--user", "--map-auto", "--map-root-user"] if rootless else []
    return [
        "unshare",
        *user,
        "--mount",
        "--pid",
        "--uts",
        "--ipc",
        "--fork",
        "--propagation",
        "private",
        *more,
    ]


def check(rootless: bool) -> None:
    """Raises with the reason if no cluster can run here; quick, and touches nothing."""
    if sys.platform != "linux":
        unavailable("the test cluster needs Linux")
    for tool, package in (
        ("unshare", "util-linux"),
        ("nsenter", "util-linux"),
        ("ssh-keygen", "openssh-client"),
    ):
        if not shutil.which(tool):
            unavailable(f"the test cluster needs {tool}: install {package}")
    if rootless and not shutil.which("newuidmap"):
        unavailable(
            "the test cluster needs root, or newuidmap and a range in /etc/subuid: "
            "use sudo or install uidmap"
        )
    probe = subprocess.run(unshare(rootless, "true"), capture_output=True, text=True)
    if probe.returncode:
        why = (probe.stderr.strip().splitlines() or ["?"])[-1]
        unavailable(
            f"the test cluster needs root with CAP_SYS_ADMIN, or user namespaces ({why}): "
            "use sudo, or a container with --privileged"
        )
    if not packages.have_tree() and (missing := packages.missing_tools()):
        unavailable(
            f"the test cluster needs {', '.join(missing)} to fetch its packages: "
            "use a Debian or Ubuntu machine"
        )


# ------------------------------------------------------------ processes
def start_time(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]


def is_up(spec: Spec | None) -> bool:
    if spec is None or not spec.pid:
        return False
    try:
        return start_time(spec.pid) == spec.start
    except OSError:
        return False


def running(state: Path) -> Spec:
    spec = load(state)
    if spec is None or not is_up(spec):
        raise ClusterError(f"not up (no cluster in {state})")
    return spec


def nsenter(spec: Spec, *command: str) -> list[str]:
    user = ["--user", "--setuid", "0", "--setgid", "0"] if spec.rootless else []
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
    enter = [
        "nsenter",
        "--target",
        str(spec.pid),
        *user,
        "--mount",
        "--pid",
        "--uts",
        "--ipc",
        "--root",
    ]
    return [*enter, "env", "-i", "-C", "/", path, "HOME=/root", "TERM=dumb", *command]


def call(spec: Spec, *command: str) -> int:
    return subprocess.run(nsenter(spec, *command)).returncode


def read(spec: Spec, *command: str) -> str:
    return subprocess.run(
        nsenter(spec, *command), stdout=subprocess.PIPE, text=True, check=True
    ).stdout


# ------------------------------------------------------------ up
def _free(addresses: list[tuple[str, int]]) -> bool:
    for address in addresses:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(address)
            except OSError:
                return False
    return True


def _choose_net() -> str:
    given = os.environ.get("CLUSTER_NET")
    for i in range(100):
        net = given or f"127.77.{i}"
        wanted = [(f"{net}.{h}", port) for h in (2, 9) for port in SSH_PORTS] + [
            (f"{net}.3", SSH_PORTS[0])
        ]
        if _free(wanted):
            return net
        if given:
            raise ClusterError(f"CLUSTER_NET={net} is in use")
    raise ClusterError("no free network in 127.77")


def _choose_port() -> int:
    given = os.environ.get("CLUSTER_PORT")
    for i in range(100):
        port = int(given) if given else PORT + i * 20
        if _free([("127.0.0.1", port + j) for j in range(SLURM_PORTS)]):
            return port
        if given:
            raise ClusterError(f"CLUSTER_PORT={port} to {port + SLURM_PORTS - 1} are not all free")
    raise ClusterError("no free ports from 16800 on")


def find_python(want: str) -> str | None:
    """A CPython of that version whose whole prefix can be bound elsewhere (pyenv's or uv's)."""
    default = f"{Path.home()}/.pyenv/versions:{Path.home()}/.local/share/uv/python"
    found = [
        (tuple(map(int, re.findall(r"\d+", home.name)[:3])), str(home))
        for where in os.environ.get("CLUSTER_PYTHONS", default).split(":")
        if where
        for home in Path(where).glob(f"*{want}.*")
        if (home / f"bin/python{want}").exists() and not home.is_symlink()
    ]
    return max(found)[1] if found else None


def _database() -> Path:
    """Where a database with the cluster's accounts in it is kept: making one takes some seconds."""
    seed = re.search(r"(?ms)^seed\(\) .*?^}", (HERE / "inner.sh").read_text())
    options = (HERE / "templates/my.cnf").read_text()
    made_from = f"{packages.tree_path().name} {MEMBERS} {seed and seed[0]} {options}"
    kept = cache_dir() / f"mysql-{hashlib.sha256(made_from.encode()).hexdigest()[:12]}.tar"
    if kept.exists():
        os.utime(kept)  # in use: not to be removed as old
    return kept


def up(state: Path, options: Mapping[str, object]) -> None:
    old = load(state)
    if is_up(old):
        raise ClusterError(f"already up in {state}")
    rootless = bool(options["rootless"])
    check(rootless)
    tree = packages.ensure_tree(rootless)
    _prepare(state)
    database = _database()
    own = options["python"] == "debian"
    for last in (False, True):
        with packages.lock(
            "ports.lock"
        ):  # until it listens: so that the next one sees what is taken
            spec = Spec(
                state=str(state),
                tree=str(tree),
                net=_choose_net(),
                port=_choose_port(),
                rootless=rootless,
                accounting=bool(options["accounting"]),
                min_job_age=int(str(options["min_job_age"])),
                home_size=str(options["home_size"]),
                scratch_size=str(options["scratch_size"]),
                tmp_size=str(options["tmp_size"]),
                python=None if own else find_python("3.12"),
                old_python=None if own else find_python("3.6"),
                database=str(database) if database.exists() else None,
                tied=bool(options["tied"]),
                env={
                    k: v for k, v in os.environ.items() if HANDED_IN.fullmatch(k) and "\n" not in v
                },
            )
            spec.save()
            _write_ssh_config(spec)
            try:
                _start(spec, database)
                return
            except ClusterError as e:
                if last:
                    raise
                say(f"{e}; trying once more")


def _prepare(state: Path) -> None:
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ClusterError(f"cannot make {state}: {e.strerror}") from e
    if state.stat().st_uid != os.getuid():
        raise ClusterError(f"{state} belongs to another user; set CLUSTER_STATE")
    state.chmod(0o755)
    for d in ("keys", "cm", "ns"):
        (state / d).mkdir(exist_ok=True)
    (state / "cm").chmod(0o700)
    for key in ("host_ed25519", "host_rsa", "id_ed25519", "id_stranger"):
        file = state / "keys" / key
        if not file.exists():
            kind = "rsa" if key.endswith("rsa") else "ed25519"
            command = [
                "ssh-keygen",
                "-q",
                "-t",
                kind,
                "-N",
                "",
                "-C",
                "cluster-test",
                "-f",
                str(file),
            ]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _start(spec: Spec, database: Path) -> None:
    began = time.monotonic()
    for name in ("ready", "mysql.tar", "mysql.tar.new"):
        spec.path(name).unlink(missing_ok=True)
    shutil.rmtree(spec.path("failed-log"), ignore_errors=True)
    program = [sys.executable, "-S", "-I", str(HERE / "cluster"), "_inside", spec.state]
    with spec.path("up.log").open("w") as log:
        child = subprocess.Popen(
            unshare(spec.rootless, "--kill-child", *program),
            stdin=None if spec.tied else subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        while not spec.path("ready").exists():
            if child.poll() is not None or time.monotonic() - began > UP_LIMIT:
                sys.stderr.write(spec.path("up.log").read_text()[-3000:])
                raise ClusterError(
                    f"did not come up within {UP_LIMIT} s, or ended; see {spec.path('up.log')}"
                )
            time.sleep(0.01)
    except BaseException:  # also when interrupted: nothing half-made may stay
        _kill(child)
        spec.path("delay.sock").unlink(missing_ok=True)
        raise
    spec.outer = child.pid
    spec.pid = int(Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()[0])
    spec.start = start_time(spec.pid)
    spec.save()
    if spec.path("mysql.tar").exists():
        _keep(spec.path("mysql.tar"), database)
    print(
        f"up in {time.monotonic() - began:.2f} s; ssh -F {spec.path('ssh_config')} rv-login",
        flush=True,
    )


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """Ends unshare and, by --kill-child, its pid namespace."""
    inner = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    pids = inner.read_text().split() if inner.exists() else []
    child.kill()
    child.wait()
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.01)


def _keep(made: Path, wanted: Path) -> None:
    with (
        tempfile.NamedTemporaryFile(dir=wanted.parent, delete=False) as new,
        made.open("rb") as old,
    ):
        shutil.copyfileobj(old, new)
    Path(new.name).replace(wanted)
    made.unlink()


def _write_ssh_config(spec: Spec) -> None:
    near, bastion, far = f"{spec.net}.2", f"{spec.net}.3", spec.far
    hosts = ""
    for name, address, port, extra in (
        ("rv-login", near, 2222, ""),
        ("rv-duo", near, 2223, ""),
        ("rv-noisy", near, 2224, ""),
        ("rv-bastion", bastion, 2222, ""),
        ("rv-jump", near, 2222, "    ProxyJump rv-bastion\n"),
        ("rv-far", far, 2222, ""),
        ("rv-far-duo", far, 2223, ""),
        ("rv-far-noisy", far, 2224, ""),
    ):
        hosts += f"Host {name}\n    HostName {address}\n    Port {port}\n{extra}"
    common = {
        "IdentityFile": spec.path("keys/id_ed25519"),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": spec.path("known_hosts"),
        "GlobalKnownHostsFile": "none",
        "StrictHostKeyChecking": "yes",
        "LogLevel": "ERROR",
        "User": "abc1de",
    }
    hosts += f"Host rv-* {spec.net}.*\n" + "".join(f"    {k} {v}\n" for k, v in common.items())
    spec.path("ssh_config").write_text(hosts)
    public = [
        spec.path("keys", f"{key}.pub").read_text().split()[:2]
        for key in ("host_ed25519", "host_rsa")
    ]
    known = [
        f"[{h}]:{p} {' '.join(key)}\n"
        for h in (near, bastion, far)
        for p in SSH_PORTS
        for key in public
    ]
    spec.path("known_hosts").write_text("".join(known))


# ------------------------------------------------------------ down, status
def down(state: Path, wipe: bool) -> None:
    began = time.monotonic()
    spec = load(state)
    was_up = spec is not None and is_up(spec)
    if spec is not None and was_up:
        os.kill(spec.pid, signal.SIGKILL)
        while Path(f"/proc/{spec.pid}").exists() or Path(f"/proc/{spec.outer}/ns/mnt").exists():
            if time.monotonic() - began > 20:
                raise ClusterError("still dying")
            time.sleep(0.005)
    for name in ("cluster.json", "ready", "delay.sock", "facts.json"):
        (state / name).unlink(missing_ok=True)
    for socket_file in (state / "cm").glob("*"):  # of the tests' own masters
        socket_file.unlink()
    if wipe and spec is not None:
        shutil.rmtree(state)
    print(f"down in {time.monotonic() - began:.2f} s" if was_up else "was not up")


def _memory(spec: Spec) -> list[tuple[float, str]]:
    inside = os.readlink(f"/proc/{spec.pid}/ns/pid")
    rows = []
    for entry in filter(lambda e: e.name.isdigit(), Path("/proc").iterdir()):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if os.readlink(entry / "ns/pid") == inside:
                pss = re.search(r"(?m)^Pss:\s+(\d+)", (entry / "smaps_rollup").read_text())
                rows.append(
                    (int(pss[1]) / 1024 if pss else 0.0, (entry / "comm").read_text().strip())
                )
    return sorted(rows, reverse=True)


def status(state: Path, as_json: bool) -> int:
    spec = load(state)
    if spec is None or not is_up(spec):
        print(json.dumps({"up": False}) if as_json else "down")
        return 1
    memory = _memory(spec)
    if as_json:
        facts = json.loads(spec.path("facts.json").read_text())
        kept = (
            "state",
            "tree",
            "net",
            "port",
            "rootless",
            "accounting",
            "home_size",
            "scratch_size",
            "tmp_size",
            "pid",
        )
        settings = {key: getattr(spec, key) for key in kept}
        more = {
            "ssh_config": str(spec.path("ssh_config")),
            "memory_mib": round(sum(m for m, _ in memory)),
        }
        print(json.dumps({"up": True, **settings, **more, **facts}, indent=1))
        return 0
    for size, name in memory:
        print(f"{size:8.1f} MiB  {name}")
    print(f"{sum(m for m, _ in memory):8.1f} MiB  total PSS of {len(memory)} processes", flush=True)
    return call(spec, "sinfo", "-N", "-o", "%N %P %T %G %C")


def reset(spec: Spec) -> int:
    began = time.monotonic()
    for word in ("heal", "0", "zero-stats"):
        delay(spec, word)
    rc = call(spec, "/opt/cluster/bin/reset")
    print(f"reset in {time.monotonic() - began:.2f} s")
    return rc


# ------------------------------------------------------------ network, faults
def delay(spec: Spec, word: str) -> str:
    with socket.socket(socket.AF_UNIX) as s, _short(spec.path("delay.sock")) as path:
        try:
            s.connect(path)
        except OSError as e:
            raise ClusterError(
                f"the delay proxy does not answer ({e.strerror}): see {spec.path('delay.log')}"
            ) from e
        s.sendall(word.encode() + b"\n")
        answer = s.makefile().readline().strip()
    if not answer or answer.startswith("error"):
        raise ClusterError(answer or f"the delay proxy failed: see {spec.path('delay.log')}")
    return answer


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of at most 107 bytes for a socket, however deep STATE is."""
    fd = os.open(path.parent, os.O_PATH)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)


def fault(spec: Spec, kind: str, arguments: list[str]) -> int:
    if kind in NETWORK_FAULTS:
        delay(spec, kind)
        return 0
    signals = {"kill": "kill9", "stop": "stop", "hang": "pause"}
    if kind in signals:
        return call(spec, "/opt/cluster/bin/ctl", signals[kind], *arguments)
    return call(spec, "/opt/cluster/bin/fault", kind, *arguments)


def heal(spec: Spec) -> int:
    delay(spec, "heal")
    return call(spec, "/opt/cluster/bin/heal")


# ------------------------------------------------------------ logins
def logins(spec: Spec, since: str) -> dict[str, object]:
    """Counts of what the sshds logged after a mark: accepted logins, and sessions by kind."""
    seen = dict(part.split(":") for part in since.split(",")) if since else {}
    marks = []
    accepted: dict[str, int] = {}
    sessions: dict[str, dict[str, int]] = {}
    by_sshd: dict[str, dict[str, int]] = {}
    for name in ("login", "duo", "noisy", "bastion"):
        text = read(spec, "cat", f"/var/log/cluster/sshd-{name}.log").encode()
        marks.append(f"{name}:{len(text)}")
        new = text[int(seen.get(name, 0)) :].decode(errors="replace")
        who = re.findall(r"(?m)^Accepted \S+ for (\S+) from", new)
        what = re.findall(
            r"(?m)^Starting session: (forced-command|command|shell|subsystem).*? for (\S+) from",
            new,
        )
        for user in who:
            accepted[user] = accepted.get(user, 0) + 1
        for kind, user in what:
            kinds = sessions.setdefault(user, {})
            kinds[kind] = kinds.get(kind, 0) + 1
        by_sshd[name] = {"accepted": len(who), "sessions": len(what)}
    return {"mark": ",".join(marks), "accepted": accepted, "sessions": sessions, "by_sshd": by_sshd}
