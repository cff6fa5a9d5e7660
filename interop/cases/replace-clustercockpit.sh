#!/usr/bin/env bash
# docs/examples/replace-clustercockpit.sh does what docs/replace-clustercockpit.md says: its keys verify its tokens, in a program
# with the libraries of cc-metric-store, which go runs where it is installed.
set -euo pipefail

. interop/case.sh

folder=$SCRATCH/replaced
mkdir -p "$folder"
bash docs/examples/replace-clustercockpit.sh "$folder" replaced >/dev/null 2>&1
# shellcheck disable=SC1091  # just written
. "$folder/cc-backend.env"
published=$(curl --silent --fail "$BASE/t/replaced/v1/public-key?format=raw")
check "cc-backend's key is the one that is published" test "$JWT_PUBLIC_KEY" = "$published"
check "there is a private key, of another pair" test -n "$JWT_PRIVATE_KEY"
check "the cross-login has a key of its own" test "$CROSS_LOGIN_JWT_PUBLIC_KEY" != "$JWT_PUBLIC_KEY"

api=$(cat "$folder/api.jwt") store=$(cat "$folder/metric-store.jwt")
status() { curl --silent --output /dev/null --write-out '%{http_code}' "$@"; }
check "the API token is a caller of its dialect" test "$(status -H "X-Auth-Token: $api" "$BASE/t/replaced/config/users/")" = 403
check "the metric store's token is none" test "$(status -H "X-Auth-Token: $store" "$BASE/t/replaced/config/users/")" = 401

if command -v go >/dev/null; then
    said=$(cd interop/metric-store && GOFLAGS=-mod=readonly go run . "$folder/cc-metric-store.json" "$store" "$api" "${store}x")
    check "the metric store takes its own token" test "$(sed -n 1p <<<"$said")" = "yes writer"
    check "and not one for the API" grep -q '^no ' <<<"$(sed -n 2p <<<"$said")"
    check "and not one that was tampered with" grep -q '^no ' <<<"$(sed -n 3p <<<"$said")"
fi
