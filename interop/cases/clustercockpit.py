"""Tokens of the preset clustercockpit under one raw Ed25519 key, as cc-metric-store and golang-jwt check them: by cryptography's
own Ed25519 with a clock that is late, and by PyJWT, which refuses an `iat` of the future without leeway."""

import base64
import json
import subprocess
import time
import os

import jwt
import requests
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from case import BASE, check, decoded, refuses, tampered

TOKENS = 1000


def claviger(*arguments):
    done = subprocess.run(
        [os.environ["BINARY"], "--data-dir", os.environ["DATA"], *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def raw_check(token, key, now):
    """What a verifier does that knows one raw key: `alg` exactly, the signature, `exp` and `iat` without leeway."""
    header, payload, signature = token.split(".")
    if json.loads(decoded(header))["alg"] != "EdDSA":
        raise ValueError("alg")
    key.verify(decoded(signature), f"{header}.{payload}".encode())
    claims = json.loads(decoded(payload))
    if claims["iat"] > now or claims.get("exp", now + 1) <= now:
        raise ValueError("time")
    return claims


claviger("tenant", "create", "cockpit", "--preset", "clustercockpit")
claviger("add-user", "--tenant", "cockpit", "--no-server", "bot:api:pa:ss")
raw = requests.get(f"{BASE}/t/cockpit/v1/public-key?format=raw", timeout=10).text.strip()
key = Ed25519PublicKey.from_public_bytes(base64.b64decode(raw))

session = requests.Session()
answer = session.post(
    f"{BASE}/t/cockpit/login", data={"username": "bot", "password": "pa:ss"}, allow_redirects=False, timeout=10
)
check("a password with a colon logs in", answer.status_code == 302 and answer.headers["location"] == "/", answer.text)
by_hand = claviger("jwt", "--tenant", "cockpit", "--no-server", "bot")
check("the command prints a token without an end", "exp" not in raw_check(by_hand, key, time.time()), by_hand)

wrong = 0
for _ in range(TOKENS):
    token = session.get(f"{BASE}/t/cockpit/frontend/jwt/", params={"username": "bot"}, timeout=10).text
    claims = raw_check(token, key, int(time.time()) - 1)
    shown = jwt.decode(token, key, algorithms=["EdDSA"], options={"require": ["iat", "sub"]})
    wrong += claims["sub"] != "bot" or claims["roles"] != ["api"] or shown != claims
check(f"{TOKENS} tokens in a row hold, and none is of the future", wrong == 0, wrong)
refuses("a tampered payload", InvalidSignature, lambda: raw_check(tampered(token, 1), key, time.time()))
refuses("another key", InvalidSignature, lambda: raw_check(token, Ed25519PublicKey.from_public_bytes(bytes(31) + b"\1"), time.time()))

store = base64.b64decode(claviger("audience", "public-key", "--tenant", "cockpit", "cc-metric-store", "--format", "raw"))
refuses("an API token at the metric store, whose key is another", InvalidSignature,
        lambda: raw_check(token, Ed25519PublicKey.from_public_bytes(store), time.time()))
