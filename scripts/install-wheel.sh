#!/bin/sh
# Build the wheel and install it into .venv: what is tried is what users get.
set -eu
cd "$(dirname "$0")/.."
sources=$(find rvstate pyproject.toml README.md -type f ! -name '*.pyc' -exec cksum {} + | cksum)
stamp=.venv/.rvstate-wheel
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sources" ]; then
    exit 0
fi
rm -rf dist
.venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall \
    dist/rvstate-*.whl
printf '%s\n' "$sources" >"$stamp"
