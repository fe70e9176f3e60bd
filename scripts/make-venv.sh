#!/usr/bin/env bash
# Make a virtual environment with the first Python on this machine that is new enough; PYTHON=… chooses one.
set -euo pipefail

venv=${1:?usage: make-venv.sh FOLDER}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if command -v "$candidate" >/dev/null && is_new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

if [[ -x $venv/bin/python ]] && is_new_enough "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    exit 0
fi

if ! python=$(find_python); then
    found="not installed"
    command -v "${PYTHON:-python3}" >/dev/null && found=$("${PYTHON:-python3}" --version 2>&1 || true)
    {
        echo "icestream needs Python 3.11 or newer; '${PYTHON:-python3}' here is: ${found:-not installed}"
        echo "  Debian 12, Ubuntu 24.04 and later:   sudo apt-get install python3 python3-venv"
        echo "  Ubuntu 22.04:                        sudo apt-get install python3.11 python3.11-venv"
        echo "  another Python that is installed:    make PYTHON=/path/to/python3.12 …"
    } >&2
    exit 1
fi

if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    version=$("$python" -c 'import sys; print(f"{sys.version_info.major}.{sys.version_info.minor}")')
    {
        echo "$python has no venv module (Debian and Ubuntu ship it in a package of its own):"
        echo "  sudo apt-get install python$version-venv"
    } >&2
    exit 1
fi

"$python" -m venv --clear "$venv"
