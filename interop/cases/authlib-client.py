"""Authlib gets, refreshes, asks about and revokes tokens, knowing nothing but the issuer and a key."""

import requests
from authlib.integrations.requests_client import OAuth2Session, OAuthError

from case import ISSUER, METADATA, RESOURCE, check, key, refuses

metadata = requests.get(METADATA, timeout=10).json()
check("authlib: the metadata are the issuer's", metadata["issuer"] == ISSUER, metadata)
endpoint = metadata["token_endpoint"]
client_id, client_secret = key("client")


def session(method="client_secret_basic", secret=client_secret, **more):
    return OAuth2Session(client_id, secret, token_endpoint_auth_method=method, **more)


def fetch(client, **more):
    return client.fetch_token(endpoint, grant_type="client_credentials", **more)


for method in ("client_secret_basic", "client_secret_post"):
    check(f"authlib: {method} is in the metadata", method in metadata["token_endpoint_auth_methods_supported"], metadata)
    token = fetch(session(method, scope="events:read"))
    fits = token["token_type"] == "Bearer" and token["expires_in"] > 0 and token["scope"] == "events:read"
    check(f"authlib: client_credentials by {method}", fits, token)
    before = token["refresh_token"]
    token = session(method).refresh_token(endpoint, refresh_token=before)
    check(f"authlib: refresh_token by {method}", token["access_token"] and token["refresh_token"] != before, token)

client = session()
token = fetch(client)
me = client.get(f"{ISSUER}/v1/me", timeout=10)
check("authlib: the session sends its token", me.status_code == 200 and me.json()["key_id"] == client_id, me.text)

asker = OAuth2Session(*key("asker"), token_endpoint_auth_method="client_secret_basic")
known = asker.introspect_token(metadata["introspection_endpoint"], token["access_token"]).json()
check("authlib: introspection knows the token", known["active"] and known["token_type"] == "Bearer", known)
revoked = client.revoke_token(metadata["revocation_endpoint"], token["refresh_token"])
check("authlib: revocation", revoked.status_code == 200, revoked.text)
known = asker.introspect_token(metadata["introspection_endpoint"], token["access_token"]).json()
check("authlib: what was revoked is not active", known == {"active": False}, known)


def refused(what, error, act):
    refusal = refuses(f"authlib: {what} is refused", OAuthError, act)
    check(f"authlib: {what} is {error}", refusal.error == error, refusal.error)


refused("a wrong secret", "invalid_client", lambda: fetch(session(secret="wrong")))
refused("another's scope", "invalid_scope", lambda: fetch(session(scope="users:write")))
refused("a revoked refresh token", "invalid_grant", lambda: session().refresh_token(endpoint, refresh_token=token["refresh_token"]))
refused("another resource", "invalid_target", lambda: fetch(session(), resource="https://unknown.example"))
refused("another grant", "unsupported_grant_type", lambda: session().fetch_token(endpoint, grant_type="password", username="a", password="b"))
check("authlib: a token for a resource", fetch(session(), resource=RESOURCE)["access_token"], "none")
