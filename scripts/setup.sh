#!/bin/sh
# Makes .venv from the locked versions, and does nothing when it is there already.
#
#   PYTHON   the interpreter to use; without it, the first one found that is 3.11 or newer,
#            one that can build extensions before one that cannot
#
# hnswlib is published as source only, so a C++ compiler and Python's headers are needed.
# What is missing is installed when we are root and the machine has apt-get; otherwise the
# command to type is printed.
set -eu

cd "$(dirname "$0")/.."
venv=.venv
stamp=$venv/.locked-versions

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

# The stamp holds what the environment was made from.
fingerprint() {
    cat requirements-build.lock requirements.lock pyproject.toml scripts/setup.sh | sha256sum | cut -d ' ' -f 1
}

is_python_311() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }
has_headers() {
    "$1" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null
}
has_compiler() { command -v "${CXX:-g++}" >/dev/null 2>&1 || command -v c++ >/dev/null 2>&1; }

choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_python_311 "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.11 or newer."
        printf '%s\n' "$PYTHON"
        return
    fi
    first=
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        is_python_311 "$candidate" || continue
        first=${first:-$candidate}
        if has_venv "$candidate" && has_headers "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    printf '%s\n' "$first"
}

# Debian splits venv and the headers off into packages named after the version.
debian_packages_missing() {
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    has_venv "$python" || printf 'python%s-venv ' "$version"
    has_headers "$python" || printf 'python%s-dev ' "$version"
    has_compiler || printf 'g++ '
}

install_missing() {
    packages=$1
    if ! command -v apt-get >/dev/null 2>&1; then
        fail "missing, by Debian's names: $packages. Install them with this system's package manager, then run it again."
    fi
    if [ "$(id -u)" -ne 0 ]; then
        fail "missing: $packages. Type:  sudo apt-get install $packages"
    fi
    say "installing $packages"
    log=$(mktemp)
    # shellcheck disable=SC2086 # a list of packages
    if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        $packages; } >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        fail "apt-get could not install $packages."
    fi
    rm -f "$log"
}

install_locked() {
    pip="$venv/bin/python -m pip --disable-pip-version-check --quiet"
    say "installing the locked versions, hnswlib from source: a minute or two"
    $pip install --require-hashes --only-binary :all: -r requirements-build.lock
    # hnswlib is compiled for this very processor; a wheel in pip's cache may be for another one.
    awk '/^[^ ]/ {chosen = /^hnswlib==/} chosen' requirements.lock >"$venv/hnswlib.lock"
    $pip install --require-hashes --no-build-isolation --no-deps --no-cache-dir -r "$venv/hnswlib.lock"
    $pip install --require-hashes --no-build-isolation --no-deps -r requirements.lock
    $pip install --no-build-isolation --no-deps --editable .
    $pip check
}

# Whether .venv runs, and on the interpreter that was asked for.
venv_is_usable() {
    "$venv/bin/python" -c '' 2>/dev/null || return 1
    [ -z "${PYTHON:-}" ] || [ "$("$venv/bin/python" --version)" = "$("$PYTHON" --version 2>&1)" ]
}

wanted=$(fingerprint)
if venv_is_usable && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

python=$(choose_python)
[ -n "$python" ] || fail "no Python 3.11 or newer found. Install one, or name it: make setup PYTHON=/path/to/python3"
missing=$(debian_packages_missing | sed 's/ $//')
[ -z "$missing" ] || install_missing "$missing"

rm -f "$stamp"
if ! venv_is_usable; then
    say "making $venv with $("$python" --version)"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi
install_locked
printf '%s\n' "$wanted" >"$stamp"
say "ready"
