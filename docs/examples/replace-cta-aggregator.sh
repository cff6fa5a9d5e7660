#!/usr/bin/env bash
# What the CTA Aggregator needs to leave developer keys and tokens to Claviger: the tenant, the key that its Rails application
# verifies with, and a developer's key. Run it where `claviger` reaches the installation:
# replace-cta-aggregator.sh FOLDER EMAIL [TENANT]
set -euo pipefail
umask 077
folder=$1 email=$2 tenant=${3:-cta}

claviger tenant create "$tenant" --preset cta
# Accounts keep their ids, keys and secrets: rows of its table `users` (docs/moving.md)
#   claviger import --tenant "$tenant" --format cta users.json

# For the Rails application: config/claviger.pem.
claviger signing-key export --tenant "$tenant" --format pem >"$folder/claviger.pem"
# Instead of `rake user:create[EMAIL]`; the secret is shown this once. An admin's key takes `--role admin` besides.
claviger create-key --tenant "$tenant" --email "$email" --scope events:write >"$folder/key.txt"
