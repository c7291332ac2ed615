# Sourced by the other scripts: makes .venv with what is asked for, unless it is there already.
#   make_env EXTRAS      e.g. make_env local,dev
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
VENV=$ROOT/.venv

find_python() {
    local python
    for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        echo "$python"
        return
    done
    return 1
}

make_env() {
    local extras=$1 stamp want python
    python=$(find_python) || {
        echo "kubeml needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2
        exit 2
    }
    # The code itself counts too: it is installed, not linked, as people get it.
    want=$(cat pyproject.toml constraints.txt <(find kubeml brokers tasks -type f \
        \( -name '*.py' -o -name '*.lua' -o -name '*.acl' \) -print0 | sort -z | xargs -0 sha256sum) | sha256sum | cut -d' ' -f1)
    stamp=$VENV/kubeml-installed
    # pip comes last: without it an earlier attempt was interrupted.
    [ -x "$VENV/bin/pip" ] || "$python" -m venv --clear "$VENV"
    if ! { [ -f "$stamp" ] && grep -qx "$want $extras" "$stamp"; }; then
        local deps
        rm -rf build # setuptools would install modules from there that exist no more
        deps=$(cat pyproject.toml constraints.txt | sha256sum | cut -d' ' -f1)
        if [ -f "$stamp" ] && grep -qx "deps $deps $extras" "$stamp"; then
            "$VENV/bin/pip" install --quiet --no-deps --force-reinstall .
        else
            echo "installing kubeml into .venv ..." >&2
            "$VENV/bin/pip" install --quiet -c constraints.txt ".[$extras]"
        fi
        printf '%s\n' "$want $extras" "deps $deps $extras" > "$stamp"
    fi
    export PATH="$VENV/bin:$PATH"
}
