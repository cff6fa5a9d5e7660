#!/usr/bin/env bash
# What Cheshire Cat needs to leave people, logins, tokens and keys to Claviger: the tenant, an admin, the two keys of its clients,
# and the settings of its plugin. Run it where `claviger` reaches the installation:
# replace-cheshire-cat.sh FOLDER [TENANT [PUBLIC-URL]]
set -euo pipefail
umask 077
folder=$1 tenant=${2:-cat} url=${3:-http://127.0.0.1:8080}

# The admin panel reads its token from a cookie; without the panel, leave the settings out.
claviger tenant create "$tenant" --preset cheshire-cat --settings '{"dialects": {"cheshire-cat": {"panel_cookie": true}}}'

# The first admin, in place of admin/admin.
openssl rand -hex 16 >"$folder/admin.password"
claviger user add --tenant "$tenant" --username admin --role admin --password-stdin <"$folder/admin.password"

# new_key APPLICATION OPTION...: KEY:SECRET, as clients send it.
new_key() {
    local app=$1
    shift
    claviger key create --tenant "$tenant" --app "$app" "$@" |
        awk '$1 == "api_key" { key = $2 } $1 == "api_secret" { print key ":" $2 }'
}

# For clients that call without a person: what were CCAT_API_KEY and CCAT_API_KEY_WS.
claviger app create --tenant "$tenant" --name cat-clients
{
    echo "HTTP_KEY=$(new_key cat-clients --name http --role admin --transport http --act-as '*' --act-as-default user)"
    echo "WS_KEY=$(new_key cat-clients --name ws --role user --transport ws --act-as '*' --act-as-default user)"
} >"$folder/clients.env"

# For the plugin: PUT /auth_handler/settings/ClavigerAuthConfig.
claviger app create --tenant "$tenant" --name cat-core
core=$(new_key cat-core --name plugin --scope verify)
echo "{\"url\": \"$url/t/$tenant\", \"key\": \"$core\", \"ask\": true}" >"$folder/auth_handler.json"

# For the cat's own .env: its core still looks at these, so nobody may know them.
for name in CCAT_API_KEY CCAT_API_KEY_WS CCAT_JWT_SECRET; do
    echo "$name=$(openssl rand -hex 32)"
done >"$folder/cat.env"
