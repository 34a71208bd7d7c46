#!/bin/sh
# List every shell script of the project, found by its first line.
set -eu
cd "$(dirname "$0")/.."
git ls-files --cached --others --exclude-standard | while IFS= read -r file; do
    [ -f "$file" ] || continue
    IFS= read -r first <"$file" || [ -n "$first" ] || continue
    case $first in
        '#!'*/sh | '#!'*/bash | '#!'*'env bash' | '#!'*'env sh') printf '%s\n' "$file" ;;
    esac
done
