"""Verifies tokens offline and follows what is revoked: python3 verify.py ISSUER AUDIENCE, one token a line."""
import json
import sys
import threading
import time
import urllib.request

import jwt

CLAIMS = ("sid", "key_id", "sub", "client_id", "jti", "tid")
# Whoever acts for another stops with what lets them.
ACTING = (("sub", "sub"), ("client_id", "sub"), ("sid", "sid"), ("key_id", "key_id"), ("key_id", "client_key_id"))
LONGEST_SILENCE = 60  # seconds without news, after which nothing is accepted


class Refused(Exception):
    pass


class Verifier:
    def __init__(self, issuer, audience):
        self.issuer, self.audience = issuer, audience
        with urllib.request.urlopen(f"{issuer}/.well-known/oauth-authorization-server", timeout=5) as answer:
            metadata = json.load(answer)
        if metadata["issuer"] != issuer:
            raise RuntimeError("the metadata are another issuer's")
        self.feed = metadata["revocations_endpoint"]
        self.keys = jwt.PyJWKClient(metadata["jwks_uri"])  # keeps the keys, and asks again when one is not among them
        self.revoked, self.cursor, self.as_of = {}, None, 0
        self.known = threading.Event()
        threading.Thread(target=self.follow, daemon=True).start()

    def open(self, text, typ, **expected):
        try:
            token = jwt.decode_complete(text, self.keys.get_signing_key_from_jwt(text), algorithms=["EdDSA"],
                                        issuer=self.issuer, leeway=5, **expected)
        except jwt.PyJWTError as error:
            raise Refused(str(error)) from None
        if token["header"].get("typ") != typ:
            raise Refused(f"not of the type {typ}")
        return token["payload"]

    def verify(self, text):
        claims = self.open(text, "at+jwt", audience=self.audience,
                           options={"require": ["iss", "sub", "aud", "exp", "iat", "jti"]})
        act = claims.get("act", {})
        names = [(name, claims.get(name)) for name in CLAIMS] + [(name, act.get(member)) for name, member in ACTING]
        for name in names:
            entry = self.revoked.get(name)
            if entry and (entry["before"] is None or claims["iat"] <= entry["before"]):
                raise Refused("revoked")
        if time.time() - self.as_of > LONGEST_SILENCE:
            raise Refused("no news of revocations")
        return claims

    def follow(self):
        while True:
            try:
                self.read()
            except Exception as error:  # whatever it is: try again; silence is noticed above
                print(f"revocations: {error}", file=sys.stderr)
                time.sleep(1)

    def read(self):
        query = "" if self.cursor is None else f"?since={self.cursor}&wait=20"
        with urllib.request.urlopen(self.feed + query, timeout=30) as answer:
            batch = self.open(answer.read().decode(), "revocations+jwt", options={"verify_aud": False})
        if batch["prev"] is not None and batch["prev"] != self.cursor:
            self.cursor = None
            raise Refused("something was missed: from the beginning")
        now = time.time()
        # A new table, put in place in one step: `verify` runs in other threads.
        table = {} if batch["prev"] is None else {k: v for k, v in self.revoked.items() if (v["until"] or now) >= now}
        for name, value, until, *before in batch["entries"]:
            table[name, value] = {"until": until, "before": before[0] if before else None}
        self.revoked, self.cursor = table, batch["cursor"]
        if not batch["more"]:
            self.as_of = max(self.as_of, min(batch["iat"], now))
            self.known.set()


if __name__ == "__main__":
    verifier = Verifier(*sys.argv[1:3])
    verifier.known.wait()
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            claims = verifier.verify(line.strip())
            print("good", claims["sub"], claims.get("scope", ""), flush=True)
        except Refused as refusal:
            print("refused:", refusal, flush=True)
