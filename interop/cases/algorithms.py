"""PyJWT and joserfc verify the tokens of audiences with other algorithms, and refuse what nobody signed: what an
attacker makes of a token and of the public keys (RFC 8725 §2 and §3). So does the issuer itself."""

import base64
import hashlib
import hmac
import json
import warnings

import jwt
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwk
from joserfc import jwt as rfc
from joserfc.errors import JoseError, SecurityWarning

from case import ALGORITHMS, BASE, ISSUER, METADATA, check, decoded, key, refuses

warnings.simplefilter("ignore", SecurityWarning)
metadata = requests.get(METADATA, timeout=10).json()
jwks = requests.get(metadata["jwks_uri"], timeout=10).json()


def token(alg):
    answer = requests.post(
        f"{BASE}/v1/authentications",
        headers={"Authorization": ":".join(key("client"))},
        json={"audience": alg.lower()},
        timeout=10,
    )
    check(f"a token of {alg}", answer.status_code == 201, answer.text)
    return answer.json()["jwt"]


def audience(alg):
    return f"https://{alg.lower()}.example"


def encode(part):
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def pyjwt(text, alg):
    # PyJWT knows Ed25519 by the older name alone; the name in the header chooses nothing: `algorithms` does.
    known = jwt.PyJWKClient(metadata["jwks_uri"]).get_signing_key_from_jwt(text)
    return jwt.decode(text, known.key, algorithms=[alg], issuer=ISSUER, audience=audience(alg))


def joserfc(text, alg):
    decoded = rfc.decode(text, jwk.KeySet.import_key_set(jwks), algorithms=[alg])
    registry = rfc.JWTClaimsRegistry(
        iss={"essential": True, "value": ISSUER}, aud={"essential": True, "value": audience(alg)}, exp={"essential": True}
    )
    registry.validate(decoded.claims)
    return decoded.claims


def issuer(text, alg):
    answer = requests.post(f"{ISSUER}/v1/introspect", data={"token": text}, auth=key("asker"), timeout=10)
    if answer.json() != {"active": False}:
        return answer.json()
    raise PermissionError("inactive")


def attacks(good, alg):
    """What can be made of a good token without the private key."""
    head, body, signature = good.split(".")
    header = json.loads(decoded(head))
    public = next(one for one in jwks["keys"] if one["kid"] == header["kid"])
    mine = Ed25519PrivateKey.generate()
    raw = mine.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    own = {"kty": "OKP", "crv": "Ed25519", "x": encode(raw), "kid": header["kid"]}

    def signed(header, sign):
        text = f"{encode(header)}.{body}"
        return f"{text}.{encode(sign(text.encode()))}"

    for none in ("none", "None", "NONE", ""):
        yield f"J1: alg {none!r}, without a signature", f"{encode({**header, 'alg': none})}.{body}."
        yield f"J1: alg {none!r}, with the old one", f"{encode({**header, 'alg': none})}.{body}.{signature}"
    for wrong in (alg.lower(), alg + " ", "ES512", "PS256"):
        if wrong != alg:
            yield f"J1: alg {wrong!r}", f"{encode({**header, 'alg': wrong})}.{body}.{signature}"
    secrets = {"its JWK": json.dumps(public).encode(), "its bytes": (public.get("x") or public.get("n")).encode(), "nothing": b""}
    for what, secret in secrets.items():
        by = lambda text, secret=secret: hmac.new(secret, text, hashlib.sha256).digest()
        yield f"J2: HS256, the secret is {what}", signed({**header, "alg": "HS256"}, by)
    others = {"EdDSA": "ES256", "Ed25519": "ES256", "ES256": "RS256", "RS256": "ES256"}
    yield "J2: the algorithm of another key", f"{encode({**header, 'alg': others[alg]})}.{body}.{signature}"
    yield "J9: brings its own key", signed({**header, "alg": "EdDSA", "jwk": own}, mine.sign)
    yield "J9: names a place with keys", signed({**header, "alg": "EdDSA", "jku": "https://attacker.example/jwks"}, mine.sign)
    yield "J9: brings a certificate", signed({**header, "alg": "EdDSA", "x5c": [encode(raw)]}, mine.sign)
    yield "J10: names no key that there is", signed({**header, "alg": "EdDSA", "kid": "../../etc/passwd"}, mine.sign)
    neighbour = next(one for one in jwks["keys"] if one["kid"] != header["kid"])
    yield "J6: names another service's key", f"{encode({**header, 'kid': neighbour['kid']})}.{body}.{signature}"
    claims = json.loads(decoded(body))
    for name, value in (("sub", "root"), ("aud", "https://elsewhere.example"), ("exp", claims["exp"] + 1), ("scope", "*:*")):
        yield f"J3: another {name}", f"{head}.{encode({**claims, name: value})}.{signature}"
    yield "J13: four parts", f"{good}.{signature}"
    yield "J13: two parts", f"{head}.{body}"
    yield "J13: an empty signature", f"{head}.{body}."


verifiers = {
    # A key of another kind than the algorithm takes is a TypeError there.
    "PyJWT": (pyjwt, (jwt.PyJWTError, TypeError), {"EdDSA", "ES256", "RS256"}),
    "joserfc": (joserfc, (JoseError, ValueError), {"EdDSA", "Ed25519", "ES256", "RS256"}),
    "the issuer": (issuer, PermissionError, {"EdDSA", "Ed25519", "ES256", "RS256"}),
}
for alg in ALGORITHMS:
    good = token(alg)
    elsewhere = token(next(other for other in ALGORITHMS if other != alg))
    made = dict(attacks(good, alg))
    for name, (verify, error, knows) in verifiers.items():
        if alg not in knows:
            refuses(f"{name}: {alg} is a name that it does not know", error, lambda: verify(good, alg))
            continue
        check(f"{name}: a token of {alg}", verify(good, alg)["aud"] in (audience(alg), [audience(alg)]))
        if name != "the issuer":
            # It knows of all services, and says for whom a token is.
            refuses(f"{name}: J8: a token of {alg} for another service", error, lambda: verify(elsewhere, alg))
        for what, text in made.items():
            refuses(f"{name}, {alg}: {what}", error, lambda: verify(text, alg))
