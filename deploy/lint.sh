#!/bin/bash
# Runs every check of `make lint`, all of them also when one fails, and names those that did.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PWD/.venv/bin:$PATH

failed=()
check() {  # quiet when all is well
    local output
    if output=$("${@:2}" </dev/null 2>&1); then
        printf '%-14s ok\n' "$1"
    else
        failed+=("$1")
        printf '%-14s FAILED\n%s\n' "$1" "$output"
    fi
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
