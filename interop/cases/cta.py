"""Tokens of the preset cta, a thousand in a row, as its consumers check them: by the bare public key, refusing a future `iat`; by
PyJWT without an audience or leeway; by joserfc, which Authlib stands on."""

import base64
import json
import time
import uuid

import jwt
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc import jwt as jose
from joserfc.jwk import KeySet

from case import BASE, check, claviger, decoded

TOKENS = 1000
TENANT = "aggregator"
claviger("tenant", "create", TENANT, "--preset", "cta")
made = claviger("create-key", "--tenant", TENANT, "--email", "foo@example.com")
pair = f"{made['api_key']}:{made['api_secret']}"
raw = requests.get(f"{BASE}/t/{TENANT}/v1/public-key?format=raw", timeout=10).text.strip()
bare = Ed25519PublicKey.from_public_bytes(base64.b64decode(raw))
jwks = requests.get(f"{BASE}/t/{TENANT}/.well-known/jwks.json", timeout=10).json()
key, keys = jwt.PyJWKSet.from_dict(jwks).keys[0].key, KeySet.import_key_set(jwks)

session = requests.Session()
wrong = []
for number in range(TOKENS):
    # The root, as a client that knows of no tenants asks it.
    answer = session.post(f"{BASE}/v1/authentications", headers={"AUTHORIZATION": pair}, timeout=10)
    token = answer.json()["jwt"]
    head, payload, signature = token.split(".")
    now = time.time()
    try:
        bare.verify(decoded(signature), f"{head}.{payload}".encode())
        claims = json.loads(decoded(payload))
        same = jwt.decode(token, key, algorithms=["EdDSA"]) == claims == jose.decode(token, keys, algorithms=["EdDSA"]).claims
        good = answer.status_code == 201 and list(answer.json()) == ["jwt"] and same and json.loads(decoded(head))["alg"] == "EdDSA"
        good = good and claims["iat"] <= now and claims["exp"] - claims["iat"] == 86_400 and claims["admin"] is False
        if not good or str(uuid.UUID(claims["sub"])) != claims["sub"]:
            wrong.append((number, claims))
    except Exception as error:  # whatever a consumer would stumble over
        wrong.append((number, repr(error)))
check(f"{TOKENS} tokens in a row hold for each, for a day, and none is of the future", not wrong, wrong[:3])
