#!/bin/bash
# Runs every check of `make lint`, all of them also when one fails, and names those that did.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PWD/.venv/bin:$PATH

failed=()
check() {
    printf '== %s\n' "$1"
    "${@:2}" </dev/null || failed+=("$1")
}

check "ruff check" ruff check --quiet
check "ruff format" ruff format --check --quiet
check "mypy" mypy server/src client/python/src deploy/demo
check "import-linter" lint-imports
check "proto" python proto/build.py check

if ((${#failed[@]})); then
    printf 'lint failed: %s\n' "$(IFS=,; echo "${failed[*]}")"
    exit 1
fi
echo "lint passed"
