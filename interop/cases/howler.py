"""Tokens of the preset howler as Howler checks them (PyJWT, the JWK set by `kid`, its audience, no leeway), and a client that speaks
Howler's routes: Basic, app tokens, impersonation."""

import json

import jwt
import requests

from case import BASE, check, claviger, refuses, tampered

TOKENS = 1000
TENANT = "howling"
API = f"{BASE}/t/{TENANT}/api/v1"


def key(user, name, *more):
    made = claviger("key", "create", "--tenant", TENANT, "--user", user, "--name", name, *more)
    return made["api_key"], made["api_secret"]


ALL = ["--scope", "howler:read", "--scope", "howler:write", "--scope", "howler:extended"]
claviger("tenant", "create", TENANT, "--preset", "howler")
people = [
    {"username": "admin", "roles": ["admin", "user"]},
    {"username": "user", "roles": ["user"], "email": "user@howler.example", "attributes": {"name": "User", "groups": ["USERS"]}},
]
claviger("user", "import", "--tenant", TENANT, "-", input="\n".join(json.dumps(person) for person in people))
password = "seven green lanterns drift"
claviger("user", "set-password", "--tenant", TENANT, "--password-stdin", "user", input=password)
devkey = key("admin", "devkey", *ALL)
lent = key("user", "impersonate_admin", "--scope", "howler:read", "--scope", "howler:write", "--agent", "admin")

# A thousand in a row, each with the set's key of its `kid`, found again as Howler's cache does.
session = requests.Session()
jwks = jwt.PyJWKClient(f"{BASE}/t/{TENANT}/.well-known/jwks.json", lifespan=12 * 3600)
wrong = 0
for _ in range(TOKENS):
    token = session.post(f"{BASE}/t/{TENANT}/v1/authentications", auth=devkey, timeout=10).json()["jwt"]
    signing = jwks.get_signing_key_from_jwt(token)
    claims = jwt.decode(token, signing.key, algorithms=[jwt.get_unverified_header(token)["alg"]], audience="howler")
    wrong += claims["sub"] != "admin" or claims["priv"] != ["R", "W", "E"] or "kid" not in jwt.get_unverified_header(token)
check(f"{TOKENS} tokens in a row hold, and none is of the future", wrong == 0, wrong)
for part in (1, 2):
    refuses(f"a token tampered with in part {part}", jwt.InvalidTokenError,
            lambda part=part: jwt.decode(tampered(token, part), signing.key, algorithms=["EdDSA"], audience="howler"))
refuses("a token for another audience", jwt.InvalidAudienceError,
        lambda: jwt.decode(token, signing.key, algorithms=["EdDSA"], audience="other"))


def whoami(status=200, path="/user/whoami/", **how):
    answer = requests.get(f"{API}{path}", timeout=10, **how)
    envelope = answer.json()
    names = {"api_error_message", "api_response", "api_server_version", "api_status_code"}
    check(f"{status} in the envelope", set(envelope) == names and (answer.status_code, envelope["api_status_code"]) == (status, status),
          answer.text)
    return envelope["api_response"] or envelope["api_error_message"]


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


user = whoami(auth=("user", password))
check("a password says who one is", (user["username"], user["name"], user["groups"]) == ("user", "User", ["USERS"]), user)
check("so does a key by its name", whoami(auth=("admin", f"devkey:{devkey[1]}"))["is_admin"] is True)
check("and a JWT", whoami(headers=bearer(token))["username"] == "admin")

login = requests.post(f"{API}/auth/login/", json={"user": "user", "password": password}, timeout=10).json()["api_response"]
check("a login gives an app token", login["app_token"].startswith("user:") and len(login["app_token"]) == 69, login)
check("which says who one is", whoami(headers=bearer(login["app_token"]))["username"] == "user")
login = requests.post(f"{API}/auth/login", json={"user": "admin", "apikey": f"devkey:{devkey[1]}"}, timeout=10).json()["api_response"]
check("a key gives one too, with its privileges", login["privileges"] == ["R", "W", "E"], login)

second = {"X-Impersonating": requests.auth._basic_auth_str("user", f"impersonate_admin:{lent[1]}")}
for how in ({"auth": ("admin", f"devkey:{devkey[1]}"), "headers": second},
            {"headers": {**bearer(login["app_token"]), **second}},
            {"headers": {**bearer(token), **second}}):
    check("one acts for the owner of a second key", whoami(**how)["username"] == "user")
check("and not with a password", whoami(401, auth=("admin", f"devkey:{devkey[1]}"),
      headers={"X-Impersonating": requests.auth._basic_auth_str("user", password)}) == "No impersonated user found")

made = requests.post(f"{API}/auth/apikey", json={"name": "ci", "priv": ["R"]}, auth=("user", password), timeout=10)
name, secret = made.json()["api_response"]["apikey"].split(":", 1)
check("a key of one's own is good at once", whoami(auth=("user", f"{name}:{secret}"))["username"] == "user")
gone = requests.delete(f"{API}/auth/apikey/ci", auth=("user", password), timeout=10)
check("and gone at once", gone.status_code == 204 and whoami(401, auth=("user", f"{name}:{secret}")) == "API Key does not exist")
out = requests.post(f"{API}/auth/logout", headers=bearer(login["app_token"]), timeout=10)
check("an app token can be logged out", out.status_code == 200 and whoami(401, headers=bearer(login["app_token"])) == "Invalid token")
