"""A status list is read with PyJWT and zlib alone: a bit is set when its token is called back."""

import time
import zlib

import jwt
import requests

from case import BASE, ISSUER, METADATA, check, decoded, key

metadata = requests.get(METADATA, timeout=10).json()
known = jwt.PyJWKClient(metadata["jwks_uri"])


def token():
    answer = requests.post(
        f"{BASE}/v1/authentications",
        headers={"Authorization": ":".join(key("client"))},
        json={"audience": "es256"},
        timeout=10,
    )
    return answer.json()["jwt"]


def place(text):
    return jwt.decode(text, options={"verify_signature": False})["status"]["status_list"]


def bits(uri):
    answer = requests.get(uri, headers={"Accept": "application/statuslist+jwt"}, timeout=10)
    check("the media type", answer.headers["content-type"] == "application/statuslist+jwt", answer.headers)
    check("the type", jwt.get_unverified_header(answer.text)["typ"] == "statuslist+jwt")
    signed_by = known.get_signing_key_from_jwt(answer.text).key
    claims = jwt.decode(answer.text, signed_by, algorithms=["ES256"], issuer=ISSUER, options={"require": ["sub", "iat", "exp"]})
    check("the list is the one that was asked for", claims["sub"] == uri, claims["sub"])
    check("it may be kept for a while", 0 < claims["ttl"] <= claims["exp"] - claims["iat"], claims)
    lst = claims["status_list"]["lst"]
    check("one bit for each", claims["status_list"]["bits"] == 1)
    return zlib.decompress(decoded(lst))


def is_set(whole, index):
    return whole[index // 8] >> (index % 8) & 1 == 1


kept, called_back = token(), token()
one, other = place(kept), place(called_back)
check("each token has its own place", one["uri"] == other["uri"] and one["idx"] != other["idx"], (one, other))
listed = requests.get(metadata["status_list_aggregation_endpoint"], timeout=10).json()["status_lists"]
check("the list is among all", one["uri"] in listed, listed)
before = bits(one["uri"])
check("both are good", not is_set(before, one["idx"]) and not is_set(before, other["idx"]))
answer = requests.post(metadata["revocation_endpoint"], data={"token": called_back}, auth=key("client"), timeout=10)
check("one is called back", answer.status_code == 200, answer.text)
time.sleep(1)
after = bits(one["uri"])
check("its bit is set", is_set(after, other["idx"]))
check("the other is not", not is_set(after, one["idx"]))
check("nor any else", sum(byte.bit_count() for byte in after) == sum(byte.bit_count() for byte in before) + 1)
