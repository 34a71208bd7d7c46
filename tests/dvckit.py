"""Real DVC from wherever pip is configured to look, and a small project that uses it.

DVC and what it needs are some 30 MB of wheels, so they are kept in a cache outside the clone
(RVSTATE_DVC_CACHE, or ~/.cache/rvstate-dvc), with an environment for this machine beside them.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

PYTHON = "3.11"  # Debian 12's, which the cluster has with --python=debian
_PIP = ("-m", "pip", "--disable-pip-version-check")


def digest(text: str) -> str:
    """How DVC names a file of that text."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


PIPELINE = """stages:
  prepare:
    cmd: python prepare.py
    deps: [prepare.py, seed.txt]
    params: [rows]
    outs: [data.txt]
  train:
    cmd: python train.py
    deps: [train.py, data.txt]
    params: [model.lr, fails, seconds]
    outs: [model.txt]
    metrics:
      - metrics.json:
          cache: false
"""
TRAIN = """import json
import sys
import time

import yaml

with open("params.yaml") as file:
    params = yaml.safe_load(file)
time.sleep(params["seconds"])
if params["fails"]:
    sys.exit("it fails, as it is told to")
with open("model.txt", "w") as file:
    file.write(f"lr {params['model']['lr']}\\n")
with open("metrics.json", "w") as file:
    json.dump({"loss": params["model"]["lr"] * 2, "code": "as it is committed"}, file)
"""
PREPARE = """import yaml

with open("params.yaml") as file:
    rows = yaml.safe_load(file)["rows"]
with open("data.txt", "w") as file:
    file.write("data\\n" * rows)
    with open("seed.txt") as seed:
        file.write(seed.read())
"""
# what is only in the DVC remote
SEED = "from the remote\n"
FILES = {
    "dvc.yaml": PIPELINE,
    "params.yaml": "model:\n  lr: 0.5\nrows: 100\nfails: false\nseconds: 0\n",
    "prepare.py": PREPARE,
    "train.py": TRAIN,
    ".dvcignore": "",
    ".gitignore": "/seed.txt\n",
    "seed.txt.dvc": f"outs:\n- md5: {digest(SEED)}\n  size: 16\n  hash: md5\n  path: seed.txt\n",
    ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
}

# Says what it is asked, and does what DVC does to git: an experiment is a commit with a reference
# of its own, named by the commit that it started from.
STAND_IN = """#!/bin/bash
printf '%s\\0' "$#" "$@" >>{log}
case $* in
    'remote list') cat {place}/remotes ;;
    'exp run'*)
        pwd >{place}/where
        cp -R "$PWD" {place}/seen
        cat .dvc/config.local >{place}/config
        if [ -e {place}/waits ]; then touch {place}/started; sleep 300; exit 255; fi
        status=$(cat {place}/status)
        [ "$status" = 0 ] || exit "$status"
        base=$(git rev-parse HEAD)
        echo result >result.txt
        git add result.txt && git commit --quiet -m experiment
        git update-ref "refs/exps/${{base:0:2}}/${{base:2}}/tidy-name" HEAD
        git update-ref refs/exps/exec/EXEC_HEAD "$base"
        ;;
    'exp push'*)
        # one that another result is in the way of is no failure to DVC
        for ref in $(git for-each-ref --format='%(refname)' | grep tidy); do
            said=$(git push --quiet origin "$ref" 2>&1) && continue
            case $said in *rejected*) echo 'No experiments to push.' ;; *) exit 255 ;; esac
        done
        ;;
    'push --run-cache') cat {place}/pushes >/dev/null ;;
esac
"""


def cache() -> Path:
    """Where the wheels are kept."""
    default = Path.home() / ".cache" / "rvstate-dvc"
    return Path(os.environ.get("RVSTATE_DVC_CACHE") or default)


def wheels() -> Path | None:
    """A directory of wheels of DVC and all that it needs; None where pip's sources lack some."""
    kept = cache() / "wheels"
    if list(kept.glob("dvc-*.whl")):
        return kept
    part = cache() / f".part-{os.getpid()}"
    words = ("wheel", "--quiet", "--wheel-dir", str(part), "dvc")
    done = subprocess.run([_python(), *_PIP, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None
    kept.parent.mkdir(parents=True, exist_ok=True)
    part.rename(kept)
    return kept


def here(found: Path) -> Path:
    """The directory of this machine's own `dvc`, from those wheels.

    Args:
        found: The wheels.
    """
    place = cache() / "here"
    program = place / "bin" / "dvc"
    if not (place / "whole").exists():
        subprocess.run([_python(), "-m", "venv", "--clear", str(place)], check=True)
        words = ("install", "--quiet", "--no-index", "--find-links", str(found), "dvc")
        subprocess.run([str(place / "bin" / "python"), *_PIP, *words], check=True)
        (place / "whole").touch()
    return program.parent


def _python() -> str:
    """An interpreter of the version that the wheels are for."""
    same = f"{sys.version_info[0]}.{sys.version_info[1]}" == PYTHON
    return sys.executable if same else f"python{PYTHON}"
