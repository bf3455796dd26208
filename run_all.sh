#!/usr/bin/env bash
# Installs what is needed into .venv and runs the notebooks; ./run_all.sh --help
set -euo pipefail

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd -P)
venv=$root/.venv
python=$venv/bin/python
unset PYTHONHOME PYTHONPATH # .venv and nothing else

fail() {
    printf 'run_all.sh: %s\n' "$1" >&2
    exit 1
}

find_python() {
    local name old=""
    for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            "$name" -c 'import ensurepip, venv' >/dev/null 2>&1 && { echo "$name"; return; }
            old="$("$name" --version) lacks the modules venv and ensurepip: install its venv package (on Debian and Ubuntu: python3-venv)"
        fi
    done
    fail "${old:-Python 3.11 or newer is needed, and none was found; see https://www.python.org/downloads}"
}

# What .venv was made for: these requirements, in this place, by this Python.
wanted() {
    "$python" -c 'import hashlib, sys
print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest(), *sys.version_info[:2], sys.argv[2])' "$root/pyproject.toml" "$root" 2>/dev/null
}

# Runs a command with its output in the log, and shows on one line that it is at work.
quietly() {
    local log=$root/runs/install.log started=$SECONDS pid
    mkdir -p "$root/runs"
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    trap 'kill "$pid" 2>/dev/null || true; exit 130' INT TERM
    if [ -t 1 ]; then
        while kill -0 "$pid" 2>/dev/null; do
            printf '\r\033[KInstalling into .venv, %d s: %.50s' $((SECONDS - started)) "$(tail -n 1 "$log" 2>/dev/null)"
            sleep 0.5
        done
        printf '\r\033[K'
    fi
    if ! wait "$pid"; then
        tail -n 15 "$log" >&2
        fail "the installation failed; its whole log is $log"
    fi
    trap - INT TERM
}

install() {
    echo "Installing into .venv (once; some minutes, some GB)"
    # None yet, half made, moved, or of an older Python.
    if ! "$python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        local base
        base=$(find_python)
        quietly "$base" -m venv --clear "$venv"
    fi
    cd "$root"
    quietly "$python" -m pip install --no-input --disable-pip-version-check --editable ".[dev]"
    cd "$OLDPWD"
    wanted >"$venv/installed"
}

installed() {
    [ -f "$venv/installed" ] && [ "$(cat "$venv/installed")" = "$(wanted)" ]
}

if ! installed; then
    if [ "$*" = --help ] || [ "$*" = -h ]; then # which needs none of it
        cd "$root"
        base=$(find_python)
        exec "$base" -m lib.options
    fi
    mkdir -p "$root/runs"
    exec 9>"$root/runs/.installing"
    if command -v flock >/dev/null; then flock 9; fi # another one may be at it
    installed || install
    exec 9>&-
fi
exec "$python" -P -m lib.run_all "$@"
