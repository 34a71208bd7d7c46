"""What runs in the cluster's namespaces: lays out the root file system, boots, reaps as pid 1.

Root inside is a tmpfs with the tree's /usr bound read-only, a copy of the tree's /etc, and
everything else new.  (An overlay would do as root, but not in a user namespace; binds do in both.)
All files are made before the chroot, while this Python's own library can still be imported.
"""

import configparser
import ctypes
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from . import delayproxy
from .layout import (
    CRONTAB,
    CTL,
    GROUPS,
    HERE,
    LOGIN,
    MEMBERS,
    MINIFORGE,
    MUNGE,
    NODES,
    SLURM,
    SSH_PORTS,
    USERS,
    Spec,
    load,
    template,
)

_libc = ctypes.CDLL(None, use_errno=True)
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_RELATIME = 1, 32, 4096, 16384, 1 << 21
_LOCKED = (
    2 | 4 | 8 | 1024 | 2048
)  # nosuid, nodev, noexec, noatime, nodiratime: the same numbers in statvfs
_ST_RELATIME = 4096
_IMPORTS = (
    "import bz2, ctypes, json, lzma, sqlite3, ssl, venv, zlib, sys; print(sys.version.split()[0])"
)


def _mount(source: str, target: Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    target.mkdir(parents=True, exist_ok=True)
    _mount_call(source, target, kind, flags, data)


def _mount_call(source: str, target: Path, kind: str, flags: int, data: str) -> None:
    if _libc.mount(source.encode(), bytes(target), kind.encode(), flags, data.encode()):
        error = ctypes.get_errno()
        raise OSError(error, f"mount {source} on {target} ({kind} {data}): {os.strerror(error)}")


def _bind(source: Path, target: Path, *, readonly: bool = False) -> None:
    """Bind a directory; read-only must keep the flags that a user namespace may not take away."""
    _mount(str(source), target, "", _MS_BIND | _MS_REC)
    if readonly:
        have = os.statvfs(target).f_flag
        keep = have & _LOCKED | (_MS_RELATIME if have & _ST_RELATIME else 0)
        _mount_call("none", target, "", _MS_BIND | _MS_REMOUNT | _MS_RDONLY | keep, "")


class Inside:
    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.tree = Path(spec.tree)
        self.root = spec.path("ns")
        self.began = self.last = time.monotonic()

    def mark(self, what: str) -> None:
        now = time.monotonic()
        print(f"{now - self.began:8.2f} s  {what} ({now - self.last:.2f})", flush=True)
        self.last = now

    def write(
        self, name: str, text: str | bytes, mode: int = 0o644, owner: int | tuple[int, int] = 0
    ) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        file.chmod(mode)
        os.chown(file, *((owner, owner) if isinstance(owner, int) else owner))

    def directory(self, name: str, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> None:
        (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / name).chmod(mode)
        os.chown(self.root / name, *owner)

    # ------------------------------------------------------------ file systems
    def mounts(self) -> None:
        spec, root = self.spec, self.root
        # a mount point itself, so that `unshare --mount` works inside the chroot
        _mount("tmpfs", root, "tmpfs", 0, "size=64m,mode=755")
        for entry in self.tree.iterdir():
            if entry.is_symlink():
                (root / entry.name).symlink_to(os.readlink(entry))  # bin, lib, lib64, sbin
        _bind(
            self.tree / "usr", root / "usr", readonly=True
        )  # `cluster exec` cannot harm the cache
        _bind(Path("/dev"), root / "dev")
        _bind(Path("/sys"), root / "sys")
        _mount("devpts", root / "dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620,gid=5")
        _mount_call(str(root / "dev/pts/ptmx"), root / "dev/ptmx", "", _MS_BIND, "")
        _mount("tmpfs", root / "dev/shm", "tmpfs", 0, "mode=1777")
        _mount("proc", root / "proc", "proc")
        for name, size, mode in (
            ("tmp", spec.tmp_size, "1777"),
            ("run", "64m", "755"),
            ("root", "16m", "711"),
            # separate file systems, as on a real machine: a rename or hard link across them fails
            ("home", spec.home_size, "755"),
            ("scratch", spec.scratch_size, "755"),
            ("standard", "512m", "755"),
            ("var", "1g", "755"),
            ("apps", "64m", "755"),
            ("opt", "16m", "755"),
            ("usr/local/bin", "16m", "755"),
            ("usr/local/sbin", "16m", "755"),
        ):
            _mount("tmpfs", root / name, "tmpfs", 0, f"size={size},mode={mode}")
        for entry in Path("/opt").iterdir():  # a machine's own package indexes may live there
            if entry.is_dir():
                _bind(entry.resolve(), root / "opt" / entry.name)
        shutil.copytree(self.tree / "etc", root / "etc", symlinks=True)
        self.directory("run/cluster")
        _bind(Path(spec.state), root / "run/cluster/state")

    # ------------------------------------------------------------ Pythons
    def pythons(self) -> dict[str, dict[str, str]]:
        """The miniforge module's and the "ancient" system Python; the machine's if they run."""
        spec, root = self.spec, self.root
        miniforge, source = root / MINIFORGE, "host"
        if not spec.python or not self._host_python(spec.python, miniforge, "bin/python3.12"):
            _bind(self.tree / "miniforge", miniforge, readonly=True)
            source = "debian"
        version = self._version(f"/{MINIFORGE}/bin/python3")
        facts = {"miniforge": {"version": version, "from": source, "prefix": f"/{MINIFORGE}"}}
        source = "debian"
        if spec.old_python and self._host_python(
            spec.old_python, root / "opt/python36", "bin/python3.6"
        ):
            old = Path(spec.old_python, "bin/python3.6")
            _mount_call(str(old.resolve()), root / "usr/bin/python3", "", _MS_BIND, "")
            source = "host"
        facts["system"] = {
            "version": self._version("/usr/bin/python3"),
            "from": source,
            "path": "/usr/bin/python3",
        }
        return facts

    def _host_python(self, prefix: str, at: Path, program: str) -> bool:
        """Bind a prefix, also where it was built for: libpython may have an absolute path."""
        _bind(Path(prefix), at, readonly=True)
        original = self.root / Path(prefix).resolve().relative_to("/")
        try:
            if not original.exists():
                _bind(Path(prefix).resolve(), original, readonly=True)
            self._version(f"/{at.relative_to(self.root)}/{program}")
        except (OSError, subprocess.CalledProcessError) as e:
            print(f"{prefix} does not run inside, the tree's own Python instead: {e}", flush=True)
            _libc.umount2(bytes(at), 2)
            return False
        return True

    def _version(self, program: str) -> str:
        command = ["chroot", str(self.root), program, "-I", "-c", _IMPORTS]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env={"PATH": "/usr/sbin:/usr/bin"},
        )
        return done.stdout.strip()

    # ------------------------------------------------------------ files
    def accounts(self) -> None:
        etc = self.root / "etc"
        passwd, group = (etc / "passwd").read_text(), (etc / "group").read_text()
        for name, (number, shell) in USERS.items():
            passwd += f"{name}:x:{number}:{number}:Test User:/home/{name}:{shell}\n"
            group += f"{name}:x:{number}:\n"
        for name, (number, members) in GROUPS.items():
            group += f"{name}:x:{number}:{','.join(members)}\n"
        names = [line.split(":")[0] for line in passwd.splitlines()]
        self.write("etc/passwd", passwd)
        self.write("etc/group", group)
        self.write("etc/shadow", "".join(f"{n}:*:19000:0:99999:7:::\n" for n in names), 0o600)

    def from_host(self) -> None:
        """The machine's name service, certificates, indexes: jobs reach what it reaches."""
        own = [CTL, LOGIN, "udc-bastion", *NODES]
        hosts = f"127.0.0.1 localhost {' '.join(own)}\n"
        if Path("/etc/hosts").exists():
            lines = Path("/etc/hosts").read_text().splitlines()
            hosts += "".join(f"{x}\n" for x in lines if not x.startswith(("127.", "::1", "#")))
        self.write("etc/hosts", hosts)
        variables = self.spec.env
        bundles = {
            "/etc/ssl/certs/ca-certificates.crt",
            *(v for k, v in variables.items() if _names_file(k)),
        }
        for file in ("/etc/resolv.conf", "/etc/uv/uv.toml", *bundles):
            if Path(file).is_file() and (file in bundles or not (self.root / file[1:]).exists()):
                target = self.root / file[1:]
                if not target.is_relative_to(self.root / "usr"):
                    self.write(file[1:], Path(file).read_bytes())
        config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        if (config / "uv/uv.toml").is_file():
            self.write("etc/uv/uv.toml", (config / "uv/uv.toml").read_bytes())
        pip = configparser.RawConfigParser()
        pip.read(["/etc/pip.conf", config / "pip/pip.conf"])
        if pip.sections():
            with open(self.root / "etc/pip.conf", "w") as out:
                pip.write(out)
        search = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin\n"
        self.write("etc/environment", search + "".join(f"{k}={v}\n" for k, v in variables.items()))

    def modules(self) -> None:
        """As on a Red Hat-like site: ~/.bashrc sources /etc/bashrc, that /etc/profile.d."""
        init = "/usr/share/lmod/lmod/init"
        self.write(
            "etc/profile.d/00-modulepath.sh",
            "export MODULEPATH=/apps/modulefiles LMOD_SYSTEM_DEFAULT_MODULES=\n",
        )
        self.write("etc/profile.d/modules.sh", f'[ -n "$BASH_VERSION" ] && . {init}/bash\n')
        self.write("etc/csh.cshrc", f"setenv MODULEPATH /apps/modulefiles\nsource {init}/csh\n")
        self.write(
            "etc/fish/conf.d/modules.fish",
            f"set -gx MODULEPATH /apps/modulefiles\nsource {init}/fish\n",
        )
        self.write("etc/zsh/zshenv", f"export MODULEPATH=/apps/modulefiles\n. {init}/zsh\n")
        bashrc = (
            'for i in /etc/profile.d/*.sh; do [ -r "$i" ] && . "$i" >/dev/null; done; unset i\n'
        )
        self.write("etc/bashrc", bashrc)
        shutil.copytree(HERE / "modulefiles", self.root / "apps/modulefiles")
        # what only the compiler's module puts on CPATH
        self.write(
            "apps/software/standard/core/gcc/11.4.0/include/rv_site.h", "#define RV_SITE 114\n"
        )

    def site(self) -> None:
        """What the site adds: its commands, ours to run it, and the users' skeleton."""
        spec, opt = self.spec, self.root / "opt/cluster"
        shutil.copytree(HERE / "site", opt / "site")
        (opt / "bin").mkdir()
        (opt / "dev").mkdir()
        for i in range(16):
            (opt / f"dev/gpu{i}").symlink_to("/dev/null")  # gres.conf asks for character devices
        for name in ("forced-shell", "mail"):
            (opt / "site" / name).rename(opt / "bin" / name)
        shutil.copy(HERE / "inner.sh", opt / "bin/ctl")
        for name in ("reset", "as", "homes", "heal", "fault"):
            (opt / "bin" / name).symlink_to("ctl")
        local = self.root / "usr/local/bin"
        for name, target in (("allocations", "site"), ("hdquota", "site"), ("mail", "bin")):
            (local / name).symlink_to(f"/opt/cluster/{target}/{name}")
        for name in ("bashrc", "bash_profile"):
            self.write(f"opt/cluster/skel/.{name}", (HERE / f"skel/dot.{name}").read_text())
        shutil.copy(HERE / "skel/noisy.bashrc", opt)
        keys = spec.path("keys")
        self.write(
            "opt/cluster/skel/.ssh/authorized_keys", (keys / "id_ed25519.pub").read_text(), 0o600
        )
        (opt / "skel/.ssh").chmod(0o700)
        settings = {
            "NET": spec.net,
            "PORT": spec.port,
            "LOGIN": LOGIN,
            "CTL": CTL,
            "NODES": " ".join(NODES),
            "USERS": " ".join(USERS),
            "MEMBERS": " ".join(MEMBERS),
            "ACCOUNTING": int(spec.accounting),
            "HOME_SIZE": spec.home_size,
            "SCRATCH_SIZE": spec.scratch_size,
            "TMP_SIZE": spec.tmp_size,
        }
        lines = (f"{key}={shlex.quote(str(value))}\n" for key, value in settings.items())
        self.write("opt/cluster/env", "".join(lines))
        # crontab is setgid, which the tree, all one user's, cannot hold
        shutil.copy(self.tree / "usr/bin/crontab", local / "crontab")
        os.chown(local / "crontab", 0, CRONTAB)
        (local / "crontab").chmod(0o2755)

    def daemons_files(self) -> None:
        slurm, munge = (SLURM, SLURM), (MUNGE, MUNGE)
        for name in ("var/cache", "var/log/cluster", "run/sshd", "usr/local/sbin", "work"):
            self.directory(name)
        for name in ("var/log/slurm", "var/spool/slurmctld", "var/lib/cluster-mysql", "run/slurm"):
            self.directory(name, owner=slurm)
        for name in ("var/log/munge", "var/lib/munge", "run/munge"):
            self.directory(name, owner=munge)
        self.directory("run/mysqld", 0o700, slurm)
        self.directory("var/tmp", 0o1777)
        self.directory("var/spool/cluster-mail", 0o1777)
        self.directory("var/spool/cron/crontabs", 0o1730, (0, CRONTAB))
        (self.root / "var/run").symlink_to("/run")
        self.write("run/munge-key", os.urandom(64).hex(), 0o400, MUNGE)
        for file in (HERE / "templates").iterdir():
            text = template(self.spec, file.name)
            match file.name:
                case "slurmdbd.conf":
                    self.write(f"etc/slurm/{file.name}", text, 0o600, SLURM)
                case "slurm.conf" | "gres.conf" | "my.cnf":
                    self.write(f"etc/slurm/{file.name}", text)
                case "pam_sshd":
                    for name in ("sshd", "sshd-login", "sshd-noisy", "sshd-bastion"):
                        self.write(f"etc/pam.d/{name}", text)
                case "pam_sshd-duo":
                    self.write("etc/pam.d/sshd-duo", text)
                case _:
                    self.write(f"etc/ssh/cluster/{file.name}", text)
        self.write("etc/motd.cluster", "Welcome to the test cluster.\n")
        for key in ("host_ed25519", "host_rsa"):
            self.write(f"etc/ssh/cluster_{key}", self.spec.path("keys", key).read_bytes(), 0o600)
        if self.spec.accounting and self.spec.database:
            subprocess.run(
                ["tar", "-xpf", self.spec.database, "-C", str(self.root / "var/lib/cluster-mysql")],
                check=True,
            )

    # ------------------------------------------------------------ life
    def proxy(self) -> None:
        """Start the delay proxy: outside the chroot, but in the pid namespace, to end with it."""
        spec = self.spec
        maps = [f"--map={spec.far}:{port}={spec.net}.2:{port}" for port in SSH_PORTS]
        command = [
            sys.executable,
            "-I",
            str(delayproxy.__file__),
            "--control",
            str(spec.path("delay.sock")),
            *maps,
        ]
        with open(spec.path("delay.log"), "w") as log:
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def facts(self, pythons: dict[str, dict[str, str]]) -> None:
        stamp = json.loads((self.tree / "complete").read_text())
        shown = {
            "slurm": "slurm-wlm",
            "openssh": "openssh-server",
            "lmod": "lmod",
            "fish": "fish",
            "zsh": "zsh",
        }
        facts = {
            "python": pythons,
            "versions": {name: stamp["versions"][package] for name, package in shown.items()},
            "users": {name: shell for name, (_, shell) in USERS.items()},
            "nodes": list(NODES),
        }
        self.spec.path("facts.json").write_text(json.dumps(facts, indent=1) + "\n")

    def run(self) -> None:
        spec = self.spec
        if spec.tied:
            threading.Thread(target=_end_with_stdin, daemon=True).start()
        self.proxy()
        self.mounts()
        self.mark("mounts")
        self.accounts()
        self.from_host()
        self.modules()
        self.site()
        self.daemons_files()
        self.mark("files")
        self.facts(self.pythons())
        self.mark("Pythons")
        socket.sethostname(LOGIN)
        os.chroot(self.root)
        os.chdir("/")
        os.environ.clear()
        os.environ.update(
            PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", HOME="/root"
        )
        state = Path("/run/cluster/state")
        for command in ("homes", "ctl boot"):
            argv = [f"/opt/cluster/bin/{command.split()[0]}", *command.split()[1:]]
            done = subprocess.run(argv, stdin=subprocess.DEVNULL)
            if done.returncode:
                shutil.copytree("/var/log", state / "failed-log", dirs_exist_ok=True)
                sys.exit(f"{command} failed: {done.returncode}; logs in {spec.path('failed-log')}")
        self.mark("daemons")
        (state / "ready").touch()
        while True:  # reap what daemons and jobs leave behind
            try:
                os.wait()
            except ChildProcessError:
                time.sleep(1)


def _names_file(variable: str) -> bool:
    return variable.endswith(("_FILE", "_BUNDLE", "PIP_CERT", "CAINFO"))


def _end_with_stdin() -> None:
    """Let the end of who holds the other end of this pipe be the cluster's end, too."""
    while os.read(0, 1):
        pass
    os._exit(0)


def main(state: str) -> None:
    spec = load(Path(state))
    assert spec is not None
    Inside(spec).run()
