"""The cluster's own tree of Debian packages: unpacked in the cache, never installed on the machine.

apt resolves the whole closure, base system included, against an empty dpkg status in private
directories; dpkg-deb unpacks it without running maintainer scripts, and the few things those would
have done are done here.
"""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .layout import CRONTAB, HERE, MUNGE, SLURM, SSHD, cache_dir, say, unavailable

RECIPE = 1  # raise it when what is done with the packages changes

_NAMES = (
    "base-files base-passwd bash binutils bzip2 ca-certificates coreutils cron curl dash "
    "debianutils diffutils file findutils fish gawk gcc git grep gzip hostname less libc-bin "
    "libc6-dev libpam-modules libpam-runtime libpam0g-dev lmod login mariadb-client-core "
    "mariadb-server-core mawk mount munge ncurses-base ncurses-bin openssh-client "
    "openssh-server openssh-sftp-server passwd procps psmisc python3 python3-dev python3-pip "
    "python3-venv rsync sed slurm-client slurm-wlm slurm-wlm-mysql-plugin slurmctld slurmd "
    "slurmdbd tar tcsh tzdata util-linux xz-utils zsh "
)
PACKAGES = tuple(_NAMES.split())
LINKS = {  # what update-alternatives would have made
    "usr/bin/awk": "mawk",
    "usr/bin/cc": "gcc",
    "usr/bin/csh": "tcsh",
    "usr/bin/lua": "lua5.3",
    "usr/bin/pager": "less",
    "usr/bin/which": "which.debianutils",
    "usr/bin/sh": "bash",  # as on Red Hat: with dash, `sbatch --wrap` would not have `module`
    "usr/sbin/slurmctld": "slurmctld-wlm",
    "usr/sbin/slurmd": "slurmd-wlm",
    "usr/sbin/slurmstepd": "slurmstepd-wlm",
    "usr/sbin/sendmail": "/opt/cluster/bin/mail",
    "etc/mtab": "/proc/self/mounts",
}
LEFT_OUT = ("usr/share/doc/*", "usr/share/info/*", "usr/share/locale/*", "usr/share/man/*")
TOOLS = ("apt-get", "dpkg-deb", "tar", "unshare", "setpriv", "chroot", "mount")
WITH_US = ("setpriv", "--pdeathsig", "KILL")  # a killed `cluster` leaves nothing at work
UNUSED_DAYS = 30


def _host_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def tree_path() -> Path:
    digest = hashlib.sha256()
    release = _host_release()
    for part in (str(RECIPE), *PACKAGES, release.get("VERSION_CODENAME", "?"), platform.machine()):
        digest.update(part.encode() + b"\0")
    for name in ("build-scrontab.sh", "pam_duo.c"):
        digest.update((HERE / name).read_bytes())
    return cache_dir() / f"tree-{digest.hexdigest()[:12]}"


def have_tree() -> bool:
    return (tree_path() / "complete").exists()


def missing_tools() -> list[str]:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [name for name in TOOLS if not shutil.which(name, path=path)]


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    cache_dir().mkdir(parents=True, exist_ok=True)
    with open(cache_dir() / name, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another `cluster` to finish with the cache")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def ensure_tree(rootless: bool) -> Path:
    """The finished tree; made first if need be, which a killed earlier try does not disturb."""
    tree = tree_path()
    if have_tree():
        os.utime(tree / "complete")
        return tree
    if missing := missing_tools():
        unavailable(
            f"cannot fetch the cluster's packages: no {', '.join(missing)} here; "
            "it needs a Debian or Ubuntu machine"
        )
    with lock("lock"):
        if not have_tree():
            _make(tree, rootless)
    return tree


def _make(tree: Path, rootless: bool) -> None:
    began = time.monotonic()
    work = tree.with_suffix(
        ".work"
    )  # what apt has already fetched is kept, what is unpacked is not
    root = work / "root"
    _remove(root)
    root.mkdir(parents=True)
    apt = _Apt(work / "apt")
    say("fetching the package lists")
    apt.run("update")
    say(f"fetching {len(PACKAGES)} packages and all they need")
    apt.run("--yes", "--download-only", "install", *PACKAGES)
    debs = sorted(apt.archives.glob("*.deb"))
    versions = dict(deb.name.split("_")[:2] for deb in debs)
    source = _fetch_source(apt, versions["slurm-wlm"])
    size = sum(file.stat().st_size for file in (*debs, source)) / 1e6
    say(f"{len(debs)} packages, {size:.0f} MB, after {time.monotonic() - began:.0f} s; unpacking")
    _unpack(root, debs)
    _configure(root)
    say("building scrontab and the second factor's PAM module")
    _build(root, source, rootless)
    stamp = {
        "versions": {name: version.replace("%3a", ":") for name, version in versions.items()},
        "megabytes": round(size),
        "seconds": round(time.monotonic() - began),
    }
    (root / "complete").write_text(json.dumps(stamp))
    _remove(tree)
    root.rename(tree)
    _remove(work)
    _prune()
    say(f"packages ready in {tree} after {time.monotonic() - began:.0f} s")


def _remove(path: Path) -> None:
    """Out of the way first: what a killed try left may still be written to for a moment."""
    if path.exists():
        trash = path.with_name(f"{path.name}.{os.getpid()}.trash")
        path.rename(trash)
        subprocess.run(["chmod", "-R", "u+rwX", trash], stderr=subprocess.DEVNULL)
        shutil.rmtree(trash, ignore_errors=True)


def _prune() -> None:
    """Remove trees and databases that nobody has used for long, and what else is left."""
    for used in (*cache_dir().glob("tree-*/complete"), *cache_dir().glob("mysql-*.tar")):
        if time.time() - used.stat().st_mtime > UNUSED_DAYS * 86400:
            if used.name == "complete":
                _remove(used.parent)
            else:
                used.unlink(missing_ok=True)
    for trash in cache_dir().glob("*.trash"):
        shutil.rmtree(trash, ignore_errors=True)


# ------------------------------------------------------------ fetching
class _Apt:
    """apt-get, with all but the machine's sources, keys and logins in private directories."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.archives = home / "cache/archives"
        for d in ("state/lists/partial", "cache/archives/partial", "log", "sources"):
            (home / d).mkdir(parents=True, exist_ok=True)
        (home / "state/status").touch()
        _write_sources(home / "sources")
        settings = {
            "Dir::State": home / "state",
            "Dir::State::status": home / "state/status",
            "Dir::State::lists": home / "state/lists",
            "Dir::Cache": home / "cache",
            "Dir::Cache::archives": home / "cache/archives",
            "Dir::Log": home / "log",
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": home / "sources",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",  # user _apt cannot write in a home directory
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        lines = [f'{key} "{value}";' for key, value in settings.items()]
        # the machine's own hooks would clean its cache or wake its services
        hooks = (
            "APT::Update::Pre-Invoke",
            "APT::Update::Post-Invoke",
            "APT::Update::Post-Invoke-Success",
        )
        lines = [f"#clear {name};" for name in hooks] + lines
        (home / "apt.conf").write_text("\n".join(lines) + "\n")

    def run(self, *args: str, cwd: Path | None = None) -> None:
        log = self.home / "apt.log"
        with log.open("w") as out:
            command = [*WITH_US, "apt-get", "-q", f"-c={self.home / 'apt.conf'}", *args]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd
            )
        text = log.read_text(errors="replace")
        failed = args == ("update",) and re.search(r"(?m)^(E|W|Err).*(Failed|failed)", text)
        if done.returncode or failed:
            errors = [line for line in text.splitlines() if re.match("(E|W|Err):", line)] or ["?"]
            unavailable(f"cannot fetch the cluster's packages: {errors[-1]} (all of it: {log})")


def _write_sources(target: Path) -> None:
    """The machine's sources for its own release, with deb-src added; not those of third parties."""
    code = _host_release().get("VERSION_CODENAME", "")
    etc = Path("/etc/apt")
    lists = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]
    ours = re.compile(rf"{re.escape(code)}(-(updates|security|proposed-updates))?(/updates)?")
    n = 0
    for file in filter(Path.exists, lists):
        for line in file.read_text().splitlines():
            m = re.match(r"deb\s+(\[.*?\]\s+)?(\S+)\s+(\S+)\s+(.*)", line)
            if m and ours.fullmatch(m[3]):
                rest = line.split(None, 1)[1]
                (target / f"{n:02d}.list").write_text(f"deb {rest}\ndeb-src {rest}\n")
                n += 1
    for file in sorted((etc / "sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", file.read_text()):
            text = "\n".join(line for line in stanza.splitlines() if not line.startswith("#"))
            fields = dict(re.findall(r"(?m)^([\w-]+):\s*(.*)$", text))
            suites = fields.get("Suites", "").split()
            if suites and all(ours.fullmatch(s) for s in suites) and fields.get("Enabled") != "no":
                text = re.sub(r"(?m)^Types:.*$", "Types: deb deb-src", text)
                (target / f"{n:02d}.sources").write_text(text.strip() + "\n")
                n += 1
    if not n:
        unavailable(
            f"cannot fetch the cluster's packages: no source for release {code or '?'} in /etc/apt"
        )


def _fetch_source(apt: _Apt, version: str) -> Path:
    target = apt.home / "source"
    target.mkdir(exist_ok=True)
    wanted = f"slurm-wlm={re.sub(r'[+]b[0-9]+$', '', version.replace('%3a', ':'))}"
    apt.run("source", "--download-only", wanted, cwd=target)
    return next(target.glob("*.orig.tar.*"))


# ------------------------------------------------------------ unpacking
def _unpack(root: Path, debs: Sequence[Path]) -> None:
    for d in (
        "bin",
        "sbin",
        "lib",
        "lib64",
    ):  # merged as on an installed system, though packages may not know
        (root / "usr" / d).mkdir(parents=True)
        (root / d).symlink_to(f"usr/{d}")
    excludes = [f"--exclude=./{pattern}" for pattern in LEFT_OUT]
    # all belongs to whoever unpacks, which inside is root both with and without a user namespace
    tar = [
        "tar",
        "-x",
        "-p",
        "--no-same-owner",
        "--keep-directory-symlink",
        *excludes,
        "-C",
        str(root),
    ]

    def one(deb: Path) -> None:
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE
        ) as unpack:
            subprocess.run(tar, stdin=unpack.stdout, check=True)
        if unpack.returncode:
            unavailable(f"cannot unpack {deb}; delete {root.parent} and try again")

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, debs))


def _configure(root: Path) -> None:
    """What maintainer scripts would have done, as far as the cluster needs it."""
    etc = root / "etc"
    for name, target in LINKS.items():
        if target.startswith("/") or (root / name).parent.joinpath(target).exists():
            (root / name).unlink(missing_ok=True)
            (root / name).symlink_to(target)
    for d in ("usr/local/bin", "usr/local/sbin", "usr/lib/security", "usr/libexec", "build"):
        (root / d).mkdir(parents=True, exist_ok=True)
    shutil.copy(root / "usr/share/base-files/profile", etc / "profile")
    shutil.copy(root / "usr/share/libc-bin/nsswitch.conf", etc / "nsswitch.conf")
    for kind in ("account", "auth", "password", "session", "session-noninteractive"):
        word = kind.split("-")[0]
        (etc / f"pam.d/common-{kind}").write_text(
            f"{word} required pam_{'unix' if word == 'auth' else 'permit'}.so\n"
        )
    shells = ("sh", "bash", "rbash", "dash", "csh", "tcsh", "fish", "zsh")
    (etc / "shells").write_text(
        "".join(f"/bin/{s}\n/usr/bin/{s}\n" for s in shells) + "/usr/sbin/nologin\n"
    )
    masters = {
        n: (root / f"usr/share/base-passwd/{n}.master").read_text() for n in ("passwd", "group")
    }
    passwd, group = (text.replace(":*:", ":x:") for text in (masters["passwd"], masters["group"]))
    for user, number, home in (
        ("slurm", SLURM, "/nonexistent"),
        ("munge", MUNGE, "/nonexistent"),
        ("sshd", SSHD, "/run/sshd"),
    ):
        passwd += f"{user}:x:{number}:{number}::{home}:/usr/sbin/nologin\n"
        group += f"{user}:x:{number}:\n"
    (etc / "passwd").write_text(passwd)
    (etc / "group").write_text(group + f"crontab:x:{CRONTAB}:\n")
    (etc / "timezone").write_text("Etc/UTC\n")
    (etc / "localtime").unlink(missing_ok=True)
    (etc / "localtime").symlink_to("/usr/share/zoneinfo/Etc/UTC")
    certificates = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    (etc / "ssl/certs/ca-certificates.crt").write_text(
        "".join(c.read_text().strip() + "\n" for c in certificates)
    )
    for d in ("cron.d", "cron.hourly", "cron.daily", "cron.weekly", "cron.monthly", "profile.d"):
        shutil.rmtree(etc / d, ignore_errors=True)  # the packages' own chores and greetings
        (etc / d).mkdir()
    (etc / "crontab").write_text("")
    (etc / "default/locale").touch()
    _pythons(root)


def _pythons(root: Path) -> None:
    """The "ancient" system Python as a file of its own, and its version again in another prefix."""
    system = root / "usr/bin/python3"
    real = system.resolve()
    version = real.name
    # for the cluster's own scripts, whatever is bound over python3
    (root / "usr/libexec/platform-python").symlink_to(f"../bin/{version}")
    system.unlink()
    shutil.copy(real, system)
    prefix = root / "miniforge"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "lib/python3").mkdir(parents=True)
    (prefix / "include").mkdir()
    shutil.copy(real, prefix / "bin" / version)
    for name in ("python3", "python"):
        (prefix / "bin" / name).symlink_to(version)
    library = prefix / "lib" / version
    subprocess.run(["cp", "-al", root / "usr/lib" / version, library], check=True)
    (library / "EXTERNALLY-MANAGED").unlink(missing_ok=True)
    subprocess.run(
        ["cp", "-al", root / "usr/lib/python3/dist-packages", prefix / "lib/python3"], check=True
    )
    (prefix / "include" / version).symlink_to(f"/usr/include/{version}")
    for triplet in (root / "usr/lib").glob("*-linux-gnu*"):  # where links of the library point to
        (prefix / "lib" / triplet.name).symlink_to(f"/usr/lib/{triplet.name}")
    for name in ("pip", "pip3"):
        (prefix / "bin" / name).write_text(
            '#!/bin/sh\nexec "$(dirname "$0")/python3" -m pip "$@"\n'
        )
        (prefix / "bin" / name).chmod(0o755)


def _build(root: Path, source: Path, rootless: bool) -> None:
    build = root / "build"
    subprocess.run(["tar", "-x", "--no-same-owner", "-f", source, "-C", build], check=True)
    for name in ("build-scrontab.sh", "pam_duo.c"):
        shutil.copy(HERE / name, build)
    pam = "gcc -O2 -Wall -shared -fPIC -o /usr/lib/security/pam_duo.so /build/pam_duo.c -lpam"
    python = "/usr/libexec/platform-python"
    compiled = f"{python} -m compileall -q /usr/lib/python3* /miniforge/lib/python3* || true"
    script = f"ldconfig && {pam} && {{ {compiled} & }} && /build/build-scrontab.sh /build && wait"
    command = [*WITH_US, "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    command += ["--propagation", "private"]
    if rootless:
        command += ["--user", "--map-root-user"]
    log = root.parent / "build.log"
    with log.open("w") as out:
        done = subprocess.run(
            [*command, HERE / "in-tree.sh", root, "bash", "-c", script], stdout=out, stderr=out
        )
    if done.returncode:
        unavailable(f"cannot build scrontab: see {log}")
    shutil.move(build / "scrontab", root / "usr/bin/scrontab")
    _remove(build)
