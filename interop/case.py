"""What every case in Python stands on: the server that the runner started, and checks that print one line each."""

import os
import sys

BASE = os.environ["BASE"]  # http://127.0.0.1:PORT
TENANT = os.environ["TENANT"]
ISSUER = os.environ["ISSUER"]
METADATA = f"{ISSUER}/.well-known/oauth-authorization-server"
RESOURCE = os.environ["RESOURCE"]
ALGORITHMS = os.environ["ALGORITHMS"].split()  # each of an audience of that name in lower case


def key(name):
    """Id and secret of one of the runner's keys: client, asker, brief, stranger, admin."""
    return os.environ[f"{name.upper()}_ID"], os.environ[f"{name.upper()}_SECRET"]


def check(what, holds, otherwise=""):
    """Prints the line that the runner counts, and ends the case if it does not hold."""
    if not holds:
        print(f"not ok {what}: {otherwise}", flush=True)
        sys.exit(1)
    print(f"ok {what}", flush=True)


def refuses(what, kind, act):
    """Checks that this raises an error of that kind, and returns the error."""
    try:
        came = act()
    except kind as refusal:
        check(what, True)
        return refusal
    check(what, False, f"it was taken: {came!r}")


def tampered(token, part):
    """The token with one bit of a part (0 to 2) flipped, where no padding is."""
    parts = token.split(".")
    text = parts[part]
    at = len(text) // 2
    parts[part] = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
    return ".".join(parts)
