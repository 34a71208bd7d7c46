#!/bin/sh
# Renew requirements/*.txt: exact versions and hashes of what pyproject.toml allows.
set -eu
cd "$(dirname "$0")/.."
compile() {
    .venv/bin/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --python-version 3.11 "$@"
}
compile pyproject.toml --output-file requirements/run.txt
compile pyproject.toml --extra notify --group dev --output-file requirements/dev.txt
