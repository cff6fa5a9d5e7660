#!/usr/bin/env bash
# What Howler needs to leave accounts, logins, keys and tokens to Claviger: the tenant, its people and their keys, and a key with
# which Howler's API asks. Run it where `claviger` reaches the installation: replace-howler.sh FOLDER [TENANT]
#
# FOLDER may hold what Howler kept:
#   people.jsonl   an object a line: {"username": "ada", "email": "ada@example.org", "roles": ["user"],
#                  "attributes": {"name": "Ada", "groups": ["USERS"], "classification": "TLP:W"}, "password_hash": "$2b$12$…"}
#   apikeys.tsv    a key a line, its parts separated by tabs: user, name, privileges (RWE, RWI), agents (admin,goose, or -), end
#                  (2027-01-31T00:00:00Z, or never), and the bcrypt hash
set -euo pipefail
umask 077
folder=$1 tenant=${2:-howler}

claviger tenant create "$tenant" --preset howler
[ ! -e "$folder/people.jsonl" ] || claviger user import --tenant "$tenant" "$folder/people.jsonl"

# A key keeps its name and its secret. Its id, which is unique in the whole installation, nobody needs.
while IFS=$'\t' read -r user name letters agents end hash; do
    options=(--tenant "$tenant" --user "$user" --name "$name" --expires "$end")
    [[ $letters != *R* ]] || options+=(--scope howler:read)
    [[ $letters != *W* ]] || options+=(--scope howler:write)
    [[ $letters != *E* ]] || options+=(--scope howler:extended)
    if [[ $letters == *I* ]]; then
        IFS=, read -ra names <<<"$agents"
        for agent in "${names[@]}"; do options+=(--agent "$agent"); done
    fi
    id=$tenant-$(tr -c 'A-Za-z0-9.\n-' _ <<<"$user-$name")
    claviger key import --hashed "${options[@]}" <<<"$id:$hash"
done < <(cat "$folder/apikeys.tsv" 2>/dev/null || true)

# For Howler's API: howler_auth.py asks with it.
claviger app create --tenant "$tenant" --name howler-api
{
    echo "CLAVIGER_TENANT=$tenant"
    claviger key create --tenant "$tenant" --app howler-api --scope verify --expires never |
        sed -n 's/^api_key  */CLAVIGER_KEY=/p; s/^api_secret  */CLAVIGER_SECRET=/p'
} >"$folder/howler-api.env"
