#!/bin/bash
# Makes this checkout ready: the system packages, and .venv with every Python package that constraints.txt pins.
#
#     deploy/setup.sh run      what `make run`, `make demo` and `make lint` need
#     deploy/setup.sh test     and what the tests need besides
#
# When nothing changed it does nothing and needs no network. Index, proxy and certificates are the machine's own: pip's
# and apt's settings are used as they are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s\n' "$*" >&2; }
fail() { say "setup: $*"; exit 1; }

level=${1:-run}
case $level in run | test) ;; *) fail "say 'run' or 'test', not '$level'" ;; esac

# --- system packages ------------------------------------------------------------------------------------------------

# softhsm2: an HSM in software, for development and tests. pango, harfbuzz and the fonts: the demo's PDF.
# poppler-utils: pdfsig, which looks at the signed PDF with eyes that are not ours; libnss3-tools: its trust anchors.
# Liberation fonts cover Vietnamese from version 2 on, which Debian 12 has in a package of its own.
packages=(softhsm2 libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 poppler-utils libnss3-tools)
# shellcheck disable=SC1091
case $(. /etc/os-release 2>/dev/null && echo "${ID:-}${VERSION_ID:-}") in
    debian12 | ubuntu22.04) packages+=(fonts-liberation2) ;;
    *) packages+=(fonts-liberation) ;;
esac
if [[ $level == test ]]; then packages+=(age gcc libc6-dev opensc openssl postgresql strace); fi

command -v python3 >/dev/null || fail "python3 is missing: Trien needs Python 3.11 or newer"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$(python3 --version) is too old: Trien needs Python 3.11 or newer"

missing=()
if command -v dpkg-query >/dev/null; then
    for package in "${packages[@]}"; do
        # shellcheck disable=SC2016
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    # Debian's own python3 comes without ensurepip; other builds of Python have it.
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
else
    say "setup: this is not Debian; it is taken for granted that these are installed: ${packages[*]}"
fi

if ((${#missing[@]})); then
    if [[ $(id -u) == 0 ]]; then
        as_root=()
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root=(sudo -n)
    else
        say "setup: these system packages are missing, and installing them takes an administrator. Run this line, then try again:"
        say ""
        say "    sudo sh -c 'apt-get update && apt-get install -y --no-install-recommends ${missing[*]}'"
        say ""
        exit 1
    fi
    say "setup: installing the system packages ${missing[*]}"
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 apt-get)
    { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } </dev/null >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        fail "apt-get could not install ${missing[*]}; its last lines are above"
    }
fi

# --- Python packages ------------------------------------------------------------------------------------------------

members=(proto/gen/python server client/python)
inputs=(deploy/setup.sh deploy/bootstrap.txt constraints.txt pyproject.toml "${members[@]/%//pyproject.toml}")
# A .venv knows its own path, so one that was copied or moved is made anew.
state=$({ python3 --version; pwd; cat "${inputs[@]}"; } | sha256sum)
stamp=.venv/.installed
if [[ -f $stamp && $(<"$stamp") == "$state" ]] && .venv/bin/python -c '' 2>/dev/null; then exit 0; fi

say "setup: installing the Python packages into .venv (once; 1 to 2 minutes on a slow line)"
rm -f "$stamp"
if [[ ! -x .venv/bin/python || $(.venv/bin/python --version 2>&1) != "$(python3 --version)" ]]; then rm -rf .venv; fi
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then python3 -m venv .venv || fail "python3 -m venv failed"; fi
pip=(.venv/bin/python -m pip --disable-pip-version-check)

# uv does not read pip's settings: hand them on, unless the machine has settings for uv.
setting() { "${pip[@]}" config list 2>/dev/null | sed -n "s/^[^=]*\.$1='\(.*\)'\$/\1/p" | tail -n 1; }
if [[ -z ${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-} ]]; then
    index=$(setting index-url)
    if [[ -n $index ]]; then export UV_DEFAULT_INDEX=$index; fi
fi
if [[ -z ${SSL_CERT_FILE:-} ]]; then
    certificates=$(setting cert)
    if [[ -n $certificates ]]; then export SSL_CERT_FILE=$certificates; fi
fi
export UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1

retry() {  # a registry that does not answer once is no reason to start all over
    local attempt
    for attempt in 1 2 3; do
        if "$@"; then return 0; fi
        if ((attempt < 3)); then say "setup: trying again"; sleep 3; fi
    done
    fail "could not install the Python packages (three tries): is a package index reachable? The messages are above"
}
retry "${pip[@]}" install --quiet --require-hashes -r deploy/bootstrap.txt </dev/null
uv=(.venv/bin/uv pip --quiet)
python=(--python .venv/bin/python)
retry "${uv[@]}" install "${python[@]}" --require-hashes -r constraints.txt </dev/null
# What builds the members (hatchling) was pinned and installed with the rest, so nothing is fetched here.
editables=()
for member in "${members[@]}"; do editables+=(-e "./$member"); done
"${uv[@]}" install "${python[@]}" --offline --no-deps --no-build-isolation "${editables[@]}" </dev/null ||
    fail "could not install the workspace's own packages"
.venv/bin/uv pip check "${python[@]}" >/dev/null 2>&1 || {
    .venv/bin/uv pip check "${python[@]}" >&2 || true
    fail "constraints.txt does not hold what the pyproject.toml files ask for: run 'make constraints'"
}
printf '%s\n' "$state" >"$stamp"
