#!/usr/bin/env bash
# docs/examples/replace-howler.sh and howler_auth.py do what docs/replace-howler.md says: people and keys with Howler's own hashes log
# in, and the two headers are judged in Howler's words.
set -euo pipefail

. interop/case.sh

folder=$SCRATCH/howler
mkdir -p "$folder"
# The secret of each is the owner's name, as in Howler's own fixtures.
# shellcheck disable=SC2016  # a hash
user='$2b$04$abcdefghijklmnopqrstuuNAQExucr2LsqaD9NvAY5wVk.CUu2Mve' admin='$2b$04$abcdefghijklmnopqrstuuQe66hACgXZ.ImKMvPGdqru0gQrWJ8Ju'
cat >"$folder/users.json" <<JSON
[{"uname": "admin", "password": "$admin", "type": ["admin", "user"], "is_active": true, "apikeys": {
    "devkey": {"acl": ["R", "W", "E"], "password": "$admin"}, "readonly": {"acl": ["R"], "password": "$admin"}}},
 {"uname": "user", "name": "User", "classification": "TLP:W", "password": "$user", "type": ["user"], "is_active": true, "apikeys": {
    "devkey": {"acl": ["R", "W"], "password": "$user", "expiry_date": "2099-01-31T00:00:00Z"},
    "impersonate_admin": {"acl": ["R", "W", "I"], "password": "$user", "agents": ["admin", "goose"]},
    "impersonate_potato": {"acl": ["R", "W", "I"], "password": "$user", "agents": ["potato"]}}}]
JSON
check "the set-up" bash docs/examples/replace-howler.sh "$folder" replaced-howler

set -a
# shellcheck disable=SC1091  # just written
. "$folder/howler-api.env"
set +a
CLAVIGER_URL=$BASE/t/$CLAVIGER_TENANT PYTHONPATH=$PYTHONPATH:docs/examples python - <<'PYTHON'
import base64
import os

import requests
from case import BASE, check
from howler_auth import Refused, authenticate


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


def outcome(headers, **more):
    try:
        person = authenticate(headers, address="198.51.100.7", **more)
    except Refused as refused:
        return refused.status, refused.message
    return person["username"], person["priv"]


def login(**body):
    answer = requests.post(f"{os.environ['CLAVIGER_URL']}/api/v1/auth/login", json=body, timeout=10)
    return answer.json()["api_response"]["app_token"]


admin = {"Authorization": basic("admin:devkey:admin")}
reader = {"Authorization": "Bearer " + login(user="admin", apikey="readonly:admin")}
anybody = {"Authorization": "Bearer " + login(user="user", password="user")}
everything = ["R", "W", "E"]
no_access = (403, "You do not have access to this API.")
for what, headers, more, expected in [
    ("a password", {"Authorization": basic("user:user")}, {}, ("user", everything)),
    ("a key with the hash that Howler kept", admin, {}, ("admin", everything)),
    ("its MAC in the hash's place", admin, {}, ("admin", everything)),
    ("an app token", anybody, {}, ("user", everything)),
    ("an app token in a WebSocket's first message", anybody, {"transport": "ws"}, ("user", everything)),
    ("the limits of the key behind one", reader, {"privileges": ["W"]}, no_access),
    ("and what it may", reader, {"privileges": ["R", "W"]}, ("admin", ["R"])),
    ("a type, whatever proves who has it", admin, {"types": ["admin"]}, ("admin", everything)),
    ("a type that a person has not", anybody, {"types": ["admin"]}, no_access),
    ("a type that a person has", {"Authorization": basic("admin:admin")}, {"types": ["admin"]}, ("admin", everything)),
    ("no header", {}, {}, (401, "No Authorization header present")),
    ("half a header", {"Authorization": "Basic"}, {}, (400, "The Authorization header is neither Basic nor Bearer.")),
    ("a wrong password", {"Authorization": basic("admin:wrong")}, {}, (401, "Invalid login information")),
    ("no such key", {"Authorization": basic("admin:nokey:admin")}, {}, (401, "API Key does not exist")),
    ("no such token", {"Authorization": "Bearer user:" + "0" * 64}, {}, (401, "Invalid token")),
    ("no token at all", {"Authorization": "Bearer garbage"}, {}, (401, "Invalid token")),
]:
    check(what, outcome(headers, **more) == expected, outcome(headers, **more))

lent = {"X-Impersonating": basic("user:impersonate_admin:user")}
for how in (admin, {"Authorization": basic("admin:admin")}, {"Authorization": "Bearer " + login(user="admin", password="admin")}):
    check("acting for the owner of a key", outcome({**how, **lent}, privileges=["W"]) == ("user", ["R", "W"]))
    check("with no more than that key", outcome({**how, **lent}) == no_access)
    other = {**how, "X-Impersonating": basic("user:impersonate_potato:user")}
    check("and not with one for others", outcome(other, privileges=["W"]) == (403, "Not a valid impersonation api key"))
    other = {**how, "X-Impersonating": basic("user:user")}
    check("nor with a password", outcome(other, privileges=["W"]) == (401, "No impersonated user found"))
alone = outcome({"Authorization": basic("user:impersonate_admin:user")}, privileges=["R"])
check("such a key is nobody's own", alone[0] == 403 and alone[1].startswith("Cannot use impersonation key in normal"), alone)
for n in range(5):
    outcome({"Authorization": basic("user:guess")})
locked = outcome({"Authorization": basic("user:user")})
check("five failures lock", locked[0] == 401 and locked[1].startswith("Maximum password retry of 5 was reached."), locked)
check("and no key with them", outcome({"Authorization": basic("user:devkey:user")}, privileges=["R"]) == ("user", ["R", "W"]))
os.environ["CLAVIGER_URL"] = f"{BASE}/t/nowhere"
check("what cannot be found out is no yes", outcome(admin)[0] == 503)
PYTHON
