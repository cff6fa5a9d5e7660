"""In Howler's API, in the place of its own look at `Authorization` and `X-Impersonating`: one question to Claviger.

    person = authenticate(request.headers, privileges=["W"], types=["admin"], address=request.remote_addr)

`person` is Claviger's answer: `username`, `roles`, `priv`, and `actor` where somebody acts for them. A refusal is raised, with the
status and the words that Howler answers with. `CLAVIGER_URL` is the tenant's (https://id.example.org/t/howler); `CLAVIGER_KEY` and
`CLAVIGER_SECRET` are those of a key with the scope `verify`.
"""

import base64
import binascii
import logging
import os

import requests

LOG = logging.getLogger("howler.api.security")
SESSION = requests.Session()
NO_ACCESS = "You do not have access to this API."
LOCKED = "Maximum password retry of 5 was reached. This account is locked for the next {} seconds..."


class Refused(Exception):
    """What Howler answers with."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status, self.message = status, message


def is_basic(header):
    scheme, _, rest = header.partition(" ")
    try:
        return scheme.lower() == "basic" and bool(base64.b64decode(rest.strip(), validate=True))
    except binascii.Error:
        return False


def is_bearer(header):
    scheme, _, rest = header.partition(" ")
    return scheme.lower() == "bearer" and bool(rest.strip())


def authenticate(headers, privileges=("E",), types=(), address=None, transport="http"):
    """Who calls, who has one of these privileges and, if any are named, one of these types."""
    authorization, impersonating = headers.get("Authorization"), headers.get("X-Impersonating")
    if authorization is None:
        raise Refused(401, "No Authorization header present")
    if not is_basic(authorization) and not is_bearer(authorization):
        raise Refused(400, "The Authorization header is neither Basic nor Bearer.")
    # Tokens for another audience of the tenant are not for Howler. A password, a key or an app token has none.
    question = {"authorization": authorization, "transport": transport, "ip": address, "audience": "howler"}
    question["require"] = {"priv": list(privileges), "roles": {"any": list(types)}}
    if impersonating is not None:
        question["x_impersonating"] = impersonating
    try:
        answer = SESSION.post(
            f"{os.environ['CLAVIGER_URL']}/v1/verify",
            json={name: value for name, value in question.items() if value is not None},
            auth=(os.environ["CLAVIGER_KEY"], os.environ["CLAVIGER_SECRET"]),
            timeout=5,
        )
        answer.raise_for_status()
        decision = answer.json()
    except (requests.RequestException, ValueError) as error:
        # Not knowing is never a yes.
        raise Refused(503, "Authentication is not available, try again.") from error
    if decision.get("allow") is not True:
        raise refusal(decision, authorization)
    if "actor" in decision:
        LOG.warning("%s is impersonating %s", decision["actor"]["name"], decision["username"])
    return decision


def refusal(decision, authorization):
    """Howler's words for a "no" of Claviger's."""
    match decision["reason"]:
        case "too_many_requests":
            return Refused(401, LOCKED.format(decision["retry_after"]))
        case "invalid_credentials":
            return Refused(401, "Invalid login information" if is_basic(authorization) else "Invalid token")
        case "invalid_token":
            return Refused(401, "Invalid token")
        case "insufficient_scope" | "insufficient_role" | "ip_not_allowed" | "transport_not_allowed":
            return Refused(403, NO_ACCESS)
        case _:
            return Refused(decision["status"], decision["error"])
