#!/bin/sh
# Make .venv with everything that Pulmofuse needs. Called by `make env`; may be run again at any
# time. PYTHON names the interpreter to build on.
set -eu
cd "$(dirname "$0")/.."

venv=.venv
log=$venv/install.log
recent='import sys; sys.exit(sys.version_info < (3, 11))'

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Any recent interpreter will do, unless the person names one.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3 python3.13 python3.12 python3.11 python
    fi
    for candidate in "$@"; do
        if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c "$recent" 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    wanted=$1
    found=$("$wanted" -c 'import platform; print(platform.python_version())' 2>/dev/null) ||
        fail "no Python found (tried $wanted); install Python 3.11 or later"
    fail "Python 3.11 or later is needed, and $wanted is $found;" \
        "install a newer one, or name it: make env PYTHON=/path/to/python3.11"
}

# pip has much to say that is no fault; it goes into a log, whose end is shown if pip fails.
install() {
    if ! "$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
        -c constraints.txt "$@" >>"$log" 2>&1; then
        printf '\n--- end of %s ---\n' "$log" >&2
        tail -n 20 "$log" >&2
        fail "pip could not install $*; mend the cause above (often the network or the disk)" \
            "and run make again: it goes on from here"
    fi
}

python=$(find_python)
version=$("$python" -c 'import platform; print(platform.python_version())')

# `python -m venv` would fail half-way without these, and Debian ships them apart.
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python has no ensurepip; on Debian or Ubuntu: sudo apt install" \
        "python${version%.*}-venv"

echo "1/3 Make $venv with Python $version"
if ! "$venv/bin/python" -c "$recent" 2>/dev/null; then
    # Absent, moved, broken or too old.
    "$python" -m venv --clear "$venv"
fi
: >"$log"

echo "2/3 Install PyTorch (a large download; can take minutes)"
install torch

echo "3/3 Install Pulmofuse and the other packages (can take minutes)"
install -e '.[dev,notebook]'

touch "$venv/.ready"
echo "Ready: $venv"
