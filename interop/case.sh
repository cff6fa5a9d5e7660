# shellcheck shell=bash
# What every case in Bash stands on: sourced from the repository's root.

# check WHAT COMMAND...: prints the line that the runner counts, and ends the case if the command fails.
check() {
    local what=$1
    shift
    if "$@"; then echo "ok $what"; else
        echo "not ok $what"
        exit 1
    fi
}
# The command line, beside the runner's server; for scripts that a case runs too.
claviger() { "$BINARY" --data-dir "$DATA" "$@"; }
export -f claviger
