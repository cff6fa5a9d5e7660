# shellcheck shell=bash
# For scripts that drive a server of their own: sourced, from the repository's root, by demo, browser-test and interop.
# The caller sets `script`, its own name. What is kept between functions:
#
#   scratch   a folder that goes when the script ends      data       the server's data directory within
#   claviger  the binary                                   origin     where the server listens, once it is started
#
# CLAVIGER_BIN may name a binary that is built already.

scratch=
data=
server=

server_wrote_last() {
    [ -n "$scratch" ] && [ -s "$scratch/server.log" ] || return 0
    printf 'The server wrote last:\n' >&2
    tail -n 20 "$scratch/server.log" >&2
}
say() { printf '%s: %s\n' "$script" "$*" >&2; }
fail() {
    printf '%s: %s\n' "$script" "$*" >&2
    server_wrote_last
    exit 1
}

stop_server() {
    [ -n "$server" ] || return 0
    kill -TERM "$server" 2>/dev/null || true
    for ((i = 0; i < 150; i++)); do
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$server" 2>/dev/null || true
    local status=0
    wait "$server" 2>/dev/null || status=$?
    server=
    return "$status"
}
# The private Postgres goes when its last user has gone, which is a moment later.
postgres_is_gone() {
    for ((i = 0; i < 150; i++)); do
        [ -n "$(find -L "$data" -maxdepth 4 -name postmaster.pid 2>/dev/null)" ] || return 0
        sleep 0.1
    done
    return 1
}
# shellcheck disable=SC2317  # called by the trap
cleanup() {
    status=$?
    trap - EXIT
    trap '' HUP INT TERM
    stop_server || true
    if [ -n "$scratch" ]; then
        postgres_is_gone || true
        scripts/remove-data-dir "$scratch/data" || true
        rm -rf "$scratch"
    fi
    exit "$status"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Settings of the surroundings would test something else.
for name in "${!CLAVIGER_@}" DATABASE_URL; do
    case $name in
    CLAVIGER_BIN | CLAVIGER_POSTGRES_BIN) ;;
    *) unset "$name" ;;
    esac
done
# What is asked here is on this machine, whatever proxy leads elsewhere.
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1

make_scratch() {
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/claviger-$script.XXXXXX")
    data=$scratch/data
    # The private Postgres of a server started by root runs under another account, which has to pass.
    chmod 711 "$scratch"
}

# install_packages PACKAGE...: by the system's package manager, and says so.
install_packages() {
    local packages=("$@")
    local as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    command -v apt-get >/dev/null && command -v "${as_root[@]:-true}" >/dev/null ||
        fail "install these first: ${packages[*]}"
    local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive
        apt-get install -y --no-install-recommends "${packages[@]}")
    say "running: ${install[*]}"
    # A package may start a server that nobody asked for, unless this file forbids it (Debian's invoke-rc.d).
    local policy=/usr/sbin/policy-rc.d own=
    [ -e "$policy" ] || own=$policy
    [ -z "$own" ] || printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" install -m 755 /dev/stdin "$own"
    local status=0
    { "${as_root[@]}" apt-get update && "${install[@]}"; } >&2 || status=$?
    [ -z "$own" ] || "${as_root[@]}" rm -f "$own"
    [ "$status" -eq 0 ] || fail "that did not succeed"
}

build_claviger() {
    claviger=${CLAVIGER_BIN:-}
    # The binary refuses settings that it does not know.
    unset CLAVIGER_BIN
    if [ -z "$claviger" ]; then
        claviger=$(SQLX_OFFLINE=true cargo build --bin claviger --message-format json-render-diagnostics |
            sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    fi
    [ -x "$claviger" ] || fail "there is no binary at '$claviger'"
}

run_claviger() {
    "$claviger" --data-dir "$data" "$@" 2>"$scratch/cli.log" || {
        cat "$scratch/cli.log" >&2
        fail "claviger $1 $2 did not succeed"
    }
}

# Below the range from which the system draws ports for outgoing connections.
free_port() {
    local port
    for ((i = 0; i < 100; i++)); do
        port=$((20000 + RANDOM % 12000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return 0
        fi
    done
    return 1
}

start_server() {
    local port
    port=$(free_port) || fail "no free port"
    origin=http://127.0.0.1:$port
    "$claviger" --data-dir "$data" serve --listen "127.0.0.1:$port" >"$scratch/server.log" 2>&1 </dev/null &
    server=$!
    for ((i = 0; i < 300; i++)); do
        kill -0 "$server" 2>/dev/null || fail "the server ended while starting"
        if curl --silent --fail --max-time 2 --output /dev/null "$origin/readyz"; then
            return 0
        fi
        sleep 0.1
    done
    fail "the server was not ready within 30 seconds"
}
