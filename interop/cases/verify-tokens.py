"""PyJWT and joserfc verify tokens with nothing but the JWK set, and refuse what they should."""

import time
import warnings

import jwt
import requests
from joserfc import jwk
from joserfc import jwt as rfc
from joserfc.errors import JoseError, SecurityWarning

from case import ISSUER, METADATA, RESOURCE, check, key, refuses, tampered

# RFC 9864 would rather have `Ed25519` than `EdDSA`; what most libraries know is the latter.
warnings.simplefilter("ignore", SecurityWarning)
metadata = requests.get(METADATA, timeout=10).json()
known = jwt.PyJWKClient(metadata["jwks_uri"])
keys = jwk.KeySet.import_key_set(requests.get(metadata["jwks_uri"], timeout=10).json())
required = ["iss", "sub", "aud", "exp", "iat", "jti"]


def token(name, endpoint=metadata["token_endpoint"], **more):
    form = {"grant_type": "client_credentials", **more}
    answer = requests.post(endpoint, data=form, auth=key(name), timeout=10)
    check(f"a token for {name}", answer.status_code == 200, answer.text)
    return answer.json()["access_token"]


def pyjwt(text, audience=ISSUER):
    signed_by = known.get_signing_key_from_jwt(text).key
    return jwt.decode(text, signed_by, algorithms=["EdDSA"], issuer=ISSUER, audience=audience, options={"require": required})


def joserfc(text, audience=ISSUER):
    decoded = rfc.decode(text, keys, algorithms=["EdDSA", "Ed25519"])
    claims = rfc.JWTClaimsRegistry(
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": audience},
        **{name: {"essential": True} for name in ("sub", "exp", "iat", "jti")},
    )
    claims.validate(decoded.claims)
    return decoded.claims


brief = token("brief")
until = time.time() + 7
good = token("client")
elsewhere = token("client", resource=RESOURCE)
stranger = token("stranger", endpoint=metadata["token_endpoint"].replace("/t/interop/", "/t/elsewhere/"))
header = jwt.get_unverified_header(good)
check("the header says what it is", header["typ"] == "at+jwt" and header["kid"] in [k.kid for k in keys.keys], header)
for name, verify, error in (("PyJWT", pyjwt, jwt.PyJWTError), ("joserfc", joserfc, (JoseError, ValueError))):
    check(f"{name}: a good token", verify(good)["scope"] == "events:read events:write", good)
    check(f"{name}: a token for a resource, there", verify(elsewhere, RESOURCE)["aud"] == RESOURCE, elsewhere)
    refuses(f"{name}: a token for a resource, elsewhere", error, lambda: verify(elsewhere))
    refuses(f"{name}: a good token, at the resource", error, lambda: verify(good, RESOURCE))
    refuses(f"{name}: another tenant's token", error, lambda: verify(stranger))
    for part, what in enumerate(("header", "payload", "signature")):
        refuses(f"{name}: a tampered {what}", error, lambda: verify(tampered(good, part)))
    refuses(f"{name}: without a signature", error, lambda: verify(good.rsplit(".", 1)[0] + "."))
time.sleep(max(0, until - time.time()))
refuses("PyJWT: an expired token", jwt.ExpiredSignatureError, lambda: pyjwt(brief))
refuses("joserfc: an expired token", JoseError, lambda: joserfc(brief))
