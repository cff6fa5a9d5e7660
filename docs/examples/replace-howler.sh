#!/usr/bin/env bash
# What Howler needs to leave accounts, logins, keys and tokens to Claviger: the tenant, its people and their keys, and a key with
# which Howler's API asks. Run it where `claviger` reaches the installation: replace-howler.sh FOLDER [TENANT]
#
# FOLDER may hold users.json, Howler's users with their keys: docs/moving.md says how to get it.
set -euo pipefail
umask 077
folder=$1 tenant=${2:-howler}

claviger tenant create "$tenant" --preset howler
if [ -e "$folder/users.json" ]; then
    # It ends with 1 when something was left out, and says what.
    claviger import --tenant "$tenant" --format howler "$folder/users.json" || [ $? -eq 1 ]
fi

# For Howler's API: howler_auth.py asks with it.
claviger app create --tenant "$tenant" --name howler-api
{
    echo "CLAVIGER_TENANT=$tenant"
    claviger key create --tenant "$tenant" --app howler-api --scope verify --expires never |
        sed -n 's/^api_key  */CLAVIGER_KEY=/p; s/^api_secret  */CLAVIGER_SECRET=/p'
} >"$folder/howler-api.env"
