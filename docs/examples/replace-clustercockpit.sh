#!/usr/bin/env bash
# What ClusterCockpit needs to leave accounts, logins and tokens to Claviger: the tenant, the keys for its configuration, and
# tokens for scripts. Run it where `claviger` reaches the installation: replace-clustercockpit.sh FOLDER [TENANT]
set -euo pipefail
umask 077
folder=$1 tenant=${2:-cc}

claviger tenant create "$tenant" --preset clustercockpit
# To keep the key pair that ClusterCockpit signed with, and with it every token that is out:
#   claviger signing-key import --tenant "$tenant" --file /path/to/cc-backend/.env --now

# For cc-backend's .env. It wants a private key to be set too, and must not use it: any pair but the published sample does.
{
    echo "JWT_PUBLIC_KEY=\"$(claviger signing-key export --tenant "$tenant" --format raw)\""
    claviger gen-keypair | sed -n 's/^ED25519 PRIVATE_KEY=/JWT_PRIVATE_KEY=/p'
    echo "CROSS_LOGIN_JWT_PUBLIC_KEY=\"$(claviger audience public-key --tenant "$tenant" cc-cross-login)\""
} >"$folder/cc-backend.env"

# For cc-metric-store's config.json. A key of its own: it looks at no claim, so any token under its key opens all of it.
echo "{\"jwt-public-key\": \"$(claviger audience public-key --tenant "$tenant" cc-metric-store)\"}" >"$folder/cc-metric-store.json"

# A user for scripts, without a password; its token for the REST API, and one for the metric store (cluster.json).
claviger add-user --tenant "$tenant" writer:api:
claviger jwt --tenant "$tenant" writer >"$folder/api.jwt"
claviger token issue --tenant "$tenant" --user writer --audience cc-metric-store --expires none >"$folder/metric-store.jwt"
