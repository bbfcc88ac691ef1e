#!/usr/bin/env bash
# One command for everything: ./run.sh help
set -euo pipefail

called_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"
checkout=$PWD
venv=$checkout/.venv
unset PYTHONHOME PYTHONPATH

usage() {
    cat <<'TEXT'
./run.sh VERB, on a machine with Python 3.11 or newer and nothing else. The first call sets up .venv.

  start [NODE]              start the local cluster in the background, or what is missing of it
  stop [NODE]               stop it
  restart [NODE]            stop and start with the same data and the settings it was started with
  status [--json]           show the nodes
  logs [NODE] [--follow]    print what the nodes wrote
  test [--long] [--containers]
                            linters, types, tests; with longer campaigns; with the compose file
  perf (or analyze) [OPTION...]
                            measure write latency at write quorum 1 to 5 and write a report (a minute or two)
  retinue ARGUMENT...       the retinue command itself, such as: ./run.sh retinue get color
                            more to measure: ./run.sh retinue lab --help, ./run.sh retinue bench --quick
  help                      this text

start and restart read WRITE_QUORUM, MIN_DELAY, MAX_DELAY (milliseconds), FOLLOWER_COUNT, PORT (the leader's, followers
count up) and DATA_DIR from the environment, and every other setting of docs/settings.md.
TEXT
}

fail() {
    printf 'run.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

find_python() {
    local candidate old=''
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
                printf '%s\n' "$candidate"
                return
            fi
            old=$candidate
        fi
    done
    if [[ -n $old ]]; then
        fail "$old has no venv module: install it (on Debian: apt install python3-venv)." 2
    fi
    fail 'Python 3.11 or newer is needed: install it, or set PYTHON to its path.' 2
}

# What an installation depends on: the list, where the checkout is, and which Python the environment belongs to.
wanted_stamp() { # REQUIREMENTS
    printf '%s %s %s' "$(cksum <"$1")" "$checkout" "$(readlink -f "$venv/bin/python")"
}

is_installed() { # REQUIREMENTS
    [[ -x $venv/bin/python && -f $venv/$1.stamp && $(<"$venv/$1.stamp") == "$(wanted_stamp "$1")" ]]
}

ensure_installed() { # REQUIREMENTS
    local python
    if is_installed "$1"; then
        return
    fi
    python=$(find_python)
    # The lock ends with the process that holds it, so a call that was killed leaves nothing behind.
    exec 9>>"$checkout/.venv.lock"
    "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' || fail 'The file .venv.lock cannot be locked.'
    if ! is_installed "$1"; then
        install "$1" "$python"
        wanted_stamp "$1" >"$venv/$1.stamp"
    fi
    exec 9>&-
}

install() { # REQUIREMENTS PYTHON
    local site
    printf 'Setting up .venv from %s ...\n' "$1" >&2
    # An environment belongs to its place and its Python: after a move of either it is made anew.
    if [[ ! -f $venv/place || $(<"$venv/place") != "$(wanted_stamp /dev/null)" ]]; then
        rm -rf "$venv"
        "$2" -m venv "$venv" >&2 || {
            rm -rf "$venv"
            fail "$2 cannot make a virtual environment in $checkout: see above." 2
        }
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$1" >&2 ||
        fail 'The packages could not be installed: see above, check the network, and try again.'
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    printf '%s\n' "$checkout/src" >"$site/retinue-checkout.pth"
    wanted_stamp /dev/null >"$venv/place"
}

run_retinue() {
    ensure_installed requirements.txt
    case ${1:-} in
    lab | verify) ensure_installed requirements-lab.txt ;;
    esac
    cd "$called_from"
    exec "$venv/bin/python" -m retinue "$@"
}

run_for_cluster() {
    export DATA_DIR=${DATA_DIR:-${RETINUE_DATA_DIR:-$checkout/.retinue}}
    run_retinue "$@"
}

run_tests() {
    local option tests=()
    for option in "$@"; do
        case $option in
        --long) export RETINUE_LONG=1 ;;
        --containers) export RETINUE_CONTAINERS=1 ;;
        *) tests+=("$option") ;;
        esac
    done
    ensure_installed requirements.txt
    ensure_installed requirements-lab.txt
    ensure_installed requirements-dev.txt
    export PATH=$venv/bin:$PATH
    ruff check .
    ruff format --check .
    mypy
    lint-imports
    pytest -q -n 2 --cov --cov-report=term tests/core tests/scenarios
    exec pytest -n 2 --durations=15 ${tests[@]+"${tests[@]}"}
}

verb=${1:-help}
shift || true
case $verb in
start | stop | restart | logs) run_for_cluster "$verb" "$@" ;;
status) run_for_cluster nodes "$@" ;;
perf | analyze) run_retinue lab quorum --preset classic "$@" ;;
retinue) run_retinue "$@" ;;
test) run_tests "$@" ;;
help | -h | --help) usage ;;
*)
    usage >&2
    fail "There is no verb $verb." 2
    ;;
esac
