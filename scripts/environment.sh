# Sourced by the other scripts: makes sure .venv holds what constraints.txt pins, and activates it.
# The stamp is the text of what was installed, so a changed pin or dependency installs again.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

find_python() {
    local candidate
    for candidate in "${POINTSMAN_PYTHON:-}" python3.11 python3 python3.12 python3.13; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "pointsman needs Python 3.11, 3.12 or 3.13 on the PATH (or named in POINTSMAN_PYTHON)" >&2
    return 1
}

# ensure_environment EXTRAS: EXTRAS is "", "[dev]" or "[benchmark]".
ensure_environment() {
    local extras="$1" stamp wanted
    stamp="$root/.venv/pointsman-installed${extras}"
    wanted="$root $(cat "$root/pyproject.toml" "$root/constraints.txt")"
    if ! is_installed; then
        # Two scripts that are started at once take turns. macOS has no flock, and does without.
        (
            if command -v flock >/dev/null; then flock 9; fi
            if ! is_installed; then install_extras "$extras"; fi
        ) 9<"$root"
    fi
    export PATH="$root/.venv/bin:$PATH"
}

is_installed() {
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]
}

install_extras() {
    local python
    python="$(find_python)"
    echo "Setting up $root/.venv (once) ..." >&2
    # The other stamps stay if they are of the same pins: what was installed for them is not taken away.
    local each
    for each in "$root"/.venv/pointsman-installed*; do
        if [ -f "$each" ] && [ "$(cat "$each")" != "$wanted" ]; then rm "$each"; fi
    done
    [ -x "$root/.venv/bin/python" ] || "$python" -m venv --clear "$root/.venv"
    "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint "$root/constraints.txt" --editable "$root$1"
    printf '%s' "$wanted" >"$stamp"
}
