#!/bin/sh
# Make .venv, the project's own environment, from the locked requirements.
#   setup.sh run|dev       run: what rvstate needs; dev: also what its tests and docs need
# Needs Python 3.11 or later with venv; everything else comes through pip.  Nothing is done when the
# lock file has not changed since.
set -eu
cd "$(dirname "$0")/.."
what=${1:-dev}

find_python() {
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
        # a version manager's shim may exist and not run
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$name"
            return 0
        fi
    done
    echo "setup: Python 3.11 or later is needed, and none was found." >&2
    echo "  → Install one, or name it: make demo PYTHON=/path/to/python3.12" >&2
    return 1
}

lock=requirements/$what.txt
stamp=.venv/.rvstate-$what
wanted=$(cksum <"$lock")
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi
python=$(find_python)
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    echo "setup: $python has no venv module." >&2
    echo "  → Install it (Debian and Ubuntu: apt-get install python3-venv)." >&2
    exit 1
fi
echo "setup: making .venv with $("$python" --version) (half a minute, once) ..."
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
printf '%s\n' "$wanted" >"$stamp"
