#!/usr/bin/env bash
# Install icestream with each supported Python of this machine, run some quick tests with it, and say which versions are not there.
set -euo pipefail

supported=(3.11 3.12 3.13)
folder=build/pythons
# Formats, kernels, records, the whole engine on small numbers, and the documentation's code: what a Python version may break.
tests=(tests/io tests/test_records.py tests/test_files.py tests/test_docs.py tests/algorithms/test_arrays.py
    tests/flow/test_engine_contract.py tests/cli/test_commands.py)

is_version() {
    [[ $("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) == "$2" ]]
}

find_python() { # on the PATH, or one that pyenv keeps without showing it
    local candidate
    local candidates=("python$1" /usr/bin/"python$1" /usr/local/bin/"python$1")
    if command -v pyenv >/dev/null; then
        candidates+=("$(pyenv root)/versions/$1".*/bin/"python$1")
    fi
    for candidate in "${candidates[@]}"; do
        if is_version "$candidate" "$1"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

try_version() {
    local venv=$folder/$1
    PYTHON=$2 bash scripts/make-venv.sh "$venv" &&
        "$venv/bin/python" -m pip install --quiet --constraint constraints.txt --editable '.[test]' &&
        "$venv/bin/python" -m pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile -m "not services" "${tests[@]}"
}

summary=()
failed=0
tried=0
for version in "${supported[@]}"; do
    if ! python=$(find_python "$version"); then
        summary+=("Python $version  not on this machine")
        continue
    fi
    echo "== Python $version: $python"
    tried=$((tried + 1))
    if try_version "$version" "$python"; then
        summary+=("Python $version  passed ($python)")
    else
        summary+=("Python $version  FAILED ($python)")
        failed=1
    fi
done

printf '%s\n' "" "${summary[@]}"
if ((tried == 0)); then
    echo "no supported Python was found" >&2
    exit 1
fi
exit $failed
