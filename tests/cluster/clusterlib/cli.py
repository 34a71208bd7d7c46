"""cluster: a real, small Slurm cluster behind real sshds, on this one machine, gone without trace.

up           start it and wait until it takes jobs; fetches the packages the first time
down         end it: one kill, the kernel does the rest
check        can it run here?  exit 0, or 69 and one line that says why not
packages     fetch and unpack the packages, if that has not been done
status       daemons, memory, nodes; --json: settings, users, nodes, versions
reset        between tests: heal, cancel jobs, empty the users' files, crontabs, mail and counters
latency      RTT_MS|off|stats|zero-stats|drop|blackhole|refuse|heal    of the "far" addresses
logins       JSON: accepted logins and sessions per user, since a mark
fault        kill|stop|hang DAEMON, drain|down NODE, fill|inodes MOUNT [LEFT], readonly MOUNT,
             drop|blackhole|refuse
heal         undo every fault
ctl          start|stop|kill9|pause|cont|check DAEMON: slurmctld slurmdbd mariadbd munged cron
             sshd-login sshd-duo sshd-noisy sshd-bastion slurmd@NODE
exec         CMD... as root inside
as           USER CMD... inside, by a login shell
ssh-config   path of an ssh_config whose hosts reach it

CLUSTER_STATE is the directory of one cluster; README.md has the rest.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from typing import NoReturn

from . import inside, outside, packages
from .layout import ClusterError, say, state_dir

FAULTS = (
    "kill",
    "stop",
    "hang",
    "drain",
    "down",
    "fill",
    "inodes",
    "readonly",
    *outside.NETWORK_FAULTS,
)


def _size(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*[kKmMgG]?", text):
        raise argparse.ArgumentTypeError("a size such as 512m or 2g")
    return text


def _parser() -> argparse.ArgumentParser:
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sub = ap.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name in ("up", "check", "packages"):
        q = sub.add_parser(name)
        q.add_argument("--rootless", action="store_true", default=os.geteuid() != 0)
        if name != "up":
            continue
        q.add_argument("--no-accounting", dest="accounting", action="store_false")
        q.add_argument("--home-size", type=_size, default="512m")
        q.add_argument("--scratch-size", type=_size, default="2g")
        q.add_argument("--tmp-size", type=_size, default="2g", help="of /tmp on each node")
        q.add_argument("--min-job-age", type=int, default=300, help="Slurm's MinJobAge")
        q.add_argument(
            "--python",
            choices=("auto", "debian"),
            default="auto",
            help="the miniforge module's: a 3.12 of the machine's if it has one, or Debian's",
        )
        q.add_argument(
            "--tied", action="store_true", help="goes down by itself when its standard input ends"
        )
    q = sub.add_parser("down")
    q.add_argument("--wipe", action="store_true", help="remove STATE, keys and logs, too")
    q = sub.add_parser("status")
    q.add_argument("--json", action="store_true")
    for name in ("reset", "heal", "ssh-config"):
        sub.add_parser(name)
    q = sub.add_parser("latency")
    q.add_argument("what")
    q = sub.add_parser("logins")
    q.add_argument("--since", default="", metavar="MARK", help='"mark" of an earlier answer')
    q = sub.add_parser("fault")
    q.add_argument(
        "kind",
        choices=FAULTS,
    )
    q.add_argument("arguments", nargs="*")
    q = sub.add_parser("ctl")
    q.add_argument("action", choices=("start", "stop", "kill9", "pause", "cont", "check"))
    q.add_argument("daemon")
    q = sub.add_parser("exec")
    q.add_argument("command", nargs=argparse.REMAINDER)
    q = sub.add_parser("as")
    q.add_argument("user")
    q.add_argument("command", nargs=argparse.REMAINDER)
    return ap


def _run(a: argparse.Namespace) -> int:
    state = state_dir()
    match a.verb:
        case "up":
            outside.up(state, vars(a))
        case "check":
            outside.check(a.rootless)
        case "packages":
            outside.check(a.rootless)
            print(packages.ensure_tree(a.rootless))
        case "down":
            outside.down(state, a.wipe)
        case "status":
            return outside.status(state, a.json)
        case "ssh-config":
            print(state / "ssh_config")
        case "reset":
            return outside.reset(outside.running(state))
        case "heal":
            return outside.heal(outside.running(state))
        case "latency":
            spec = outside.running(state)
            if a.what == "off":
                outside.delay(spec, "heal")
            answer = outside.delay(spec, "0" if a.what == "off" else a.what)
            if a.what == "stats":
                print(answer)
        case "logins":
            print(json.dumps(outside.logins(outside.running(state), a.since)))
        case "fault":
            return outside.fault(outside.running(state), a.kind, a.arguments)
        case "ctl":
            return outside.call(outside.running(state), "/opt/cluster/bin/ctl", a.action, a.daemon)
        case "exec":
            _become(outside.nsenter(outside.running(state), *a.command))
        case "as":
            _become(
                outside.nsenter(outside.running(state), "/opt/cluster/bin/as", a.user, *a.command)
            )
    return 0


def _become(command: list[str]) -> NoReturn:
    os.execvp(command[0], command)


def main() -> None:
    if sys.argv[1:2] == ["_inside"]:
        inside.main(sys.argv[2])
        return
    a = _parser().parse_args()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that an interrupted `up` cleans up after itself
    try:
        code = _run(a)
    except ClusterError as e:
        say(str(e))
        code = e.code
    except subprocess.CalledProcessError as e:
        say(str(e))
        code = 1
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
