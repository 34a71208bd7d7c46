#!/bin/sh
# The main job on the embedded default: an account in a throw-away directory, jobs as processes.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH
RVSTATE_HOME=$(mktemp -d "${TMPDIR:-/tmp}/rvstate-demo.XXXXXX")
export RVSTATE_HOME PATH
unset RVSTATE_CONFIG RVSTATE_CLUSTER
# the job of the last step has ended by then; what is left is only files
trap 'rm -rf "$RVSTATE_HOME"' EXIT

show() {
    printf '\n$ %s\n' "$*"
    "$@"
}

echo "A throw-away account lives in $RVSTATE_HOME; your own files are not touched."
show rvstate converge -y
show rvstate converge
cd examples/hello
show rvstate run train.py
show rvstate ps
show rvstate logs -f
printf '\nThe batch script, the same that Slurm would get:\n\n'
cat "$RVSTATE_HOME"/local/scratch/.rv/runs/*/job.sh
printf '\nThat was all of it: README.md says how to point it at your cluster.\n'
