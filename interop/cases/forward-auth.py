"""nginx, with the very configuration that docs/verify.md hands out, asks Claviger before an application hears anything.

needs: nginx
"""

import base64
import http.server
import json
import os
import signal
import socket
import subprocess
import threading

import requests

from case import adapted, check, claviger, end, free_ports, nginx, until

EXAMPLE = "docs/examples/nginx-forward-auth.conf"
ELSEWHERE = "https://elsewhere.example"
PASSWORD = base64.b64encode(os.urandom(18)).decode()
SCRATCH = os.environ["SCRATCH"]
IDENTITY = ["remote-user"] + [f"x-claviger-{name}" for name in "subject username roles scope tenant actor key-id".split()]
heard = []


class Application(http.server.BaseHTTPRequestHandler):
    """Keeps what it hears."""

    def answer(self):
        heard.append((self.command, self.path, [(name.lower(), value) for name, value in self.headers.items()]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *_):
        pass


application = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application)
threading.Thread(target=application.serve_forever, daemon=True).start()
proxy, port = free_ports(2)

policy = {"staff": {"any_of": [{"roles": {"any": ["staff"]}}, {"scopes": {"all": ["reports:read"]}}]}}
claviger("tenant", "create", "acme", "--settings", json.dumps({"policies": policy, "resources": ["https://app.example.com", ELSEWHERE]}))
for name, role in (("alice", "staff"), ("bob", "guest")):
    claviger("user", "add", "--tenant", "acme", "--username", name, "--role", role, "--password-stdin", input=PASSWORD)
claviger("app", "create", "--tenant", "acme", "--name", "robot")
robot = claviger("key", "create", "--tenant", "acme", "--app", "robot", "--scope", "reports:read")
brief = claviger("key", "create", "--tenant", "acme", "--app", "robot", "--scope", "events:read")

# A Claviger of its own, which can be stopped.
environment = {**os.environ, "CLAVIGER_THROTTLE__FAILURES": "1000"}
log = open(f"{SCRATCH}/forward-auth.log", "w")
serve = [os.environ["BINARY"], "--data-dir", os.environ["DATA"], "serve", "--listen", f"127.0.0.1:{port}"]
server = subprocess.Popen(serve, env=environment, stdout=log, stderr=log)
origin = f"http://127.0.0.1:{port}/t/acme"

configuration = adapted(
    EXAMPLE,
    (
        ("server 127.0.0.1:8080;", f"server 127.0.0.1:{port};"),
        ("server 127.0.0.1:3000;", f"server 127.0.0.1:{application.server_port};"),
        ("listen 80;", f"listen 127.0.0.1:{proxy};"),
    ),
)
front, _ = nginx(configuration, log)


def send(target, *headers, method="GET", host="app.example.com", body=b""):
    """The status of a request that says exactly this, and what the application heard of it."""
    before = len(heard)
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", f"Content-Length: {len(body)}", *headers]
    with socket.create_connection(("127.0.0.1", proxy), timeout=20) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head = answer.split(b"\r\n\r\n")[0].decode("latin-1")
    return int(head.split(" ")[1]), head, heard[before:]


def passes(what, *headers, **more):
    """Checks that the application hears it, and returns what it hears."""
    status, head, forwarded = send(more.pop("target", "/reports?x=1"), *headers, **more)
    check(f"nginx: {what} passes", status == 200 and len(forwarded) == 1, head)
    return forwarded[0]


def stopped(what, statuses, target, *headers, **more):
    """Checks that the application hears nothing, and returns the head of nginx's answer."""
    status, head, forwarded = send(target, *headers, **more)
    check(f"nginx: {what} is {status}", status in statuses and not forwarded, f"{head} {forwarded}")
    return head


def identity(forwarded):
    return {name: value for name, value in forwarded[2] if name.replace("_", "-").replace(".", "-") in IDENTITY}


def bearer(token):
    return f"Authorization: Bearer {token}"


def log_in(name):
    login = requests.post(f"{origin}/v1/login", json={"username": name, "password": PASSWORD}, timeout=10)
    return bearer(login.json()["access_token"])


def token_for(resource):
    form = {"grant_type": "client_credentials", "resource": resource}
    pair = (robot["api_key"], robot["api_secret"])
    return bearer(requests.post(f"{origin}/v1/token", data=form, auth=pair, timeout=10).json()["access_token"])


def everything():
    until("claviger is ready", lambda: requests.get(f"http://127.0.0.1:{port}/readyz", timeout=2).ok)
    until("nginx is ready", lambda: socket.create_connection(("127.0.0.1", proxy), timeout=2).close() is None)
    alice, bob = log_in("alice"), log_in("bob")
    who = who_passes(alice)
    who_does_not(bob)
    odd_requests(alice, who)
    without_claviger(alice)


def who_passes(alice):
    method, target, headers = passes("a person's token", alice)
    check("nginx: the address arrives as it was sent", (method, target) == ("GET", "/reports?x=1"), target)
    who = identity((method, target, headers))
    said = {name: who.get(name) for name in ("remote-user", "x-claviger-username", "x-claviger-roles", "x-claviger-tenant")}
    expected = {"remote-user": "alice", "x-claviger-username": "alice", "x-claviger-roles": "staff", "x-claviger-tenant": "acme"}
    check("nginx: the application hears who it is", said == expected and len(who["x-claviger-subject"]) == 36, who)
    check("nginx: the application does not hear the credential", "authorization" not in dict(headers), headers)
    check("nginx: a POST with a body", passes("a POST", alice, method="POST", body=b"{}")[0] == "POST")
    basic = base64.b64encode(f"{robot['api_key']}:{robot['api_secret']}".encode()).decode()
    for what, header in (("Basic with a key", f"Authorization: Basic {basic}"), ("a token for this host", token_for("https://app.example.com"))):
        key = identity(passes(what, header))
        check(f"nginx: {what}: the application hears which", key["x-claviger-key-id"] == robot["api_key"], key)
        check(f"nginx: {what}: nobody's name", "x-claviger-username" not in key, key)
    return who


def who_does_not(bob):
    head = stopped("nobody", [401], "/reports")
    check("nginx: nobody hears how to authenticate", "www-authenticate: bearer" in head.lower(), head)
    stopped("a token that is none", [401], "/", bearer("abcd.efgh.ijkl"))
    stopped("a token for elsewhere", [401], "/", token_for(ELSEWHERE))
    stopped("a token for elsewhere, with its host", [401], "/", token_for(ELSEWHERE), host="elsewhere.example")
    stopped("somebody without the role", [403], "/", bob)
    basic = base64.b64encode(f"{brief['api_key']}:{brief['api_secret']}".encode()).decode()
    stopped("a key without the scope", [403], "/", f"Authorization: Basic {basic}")
    for header in (
        "X-Forwarded-Uri: /public",
        "X-Original-URL: https://app.example.com/public",
        "X-Original-Method: OPTIONS",
        "User-Agent: kube-probe/1.29",
        "Remote-User: alice",
        "X-Claviger-Subject: alice",
    ):
        stopped(f"nobody with {header}", [401], "/", header)
    stopped("nobody at the place where nginx asks", [404], "/_claviger")


def odd_requests(alice, who):
    for name in [*IDENTITY, "Remote_User", "remote.user", "X_Claviger_Subject", "x-claviger_roles", "REMOTE-USER"]:
        for value in ("admin", ""):
            seen = identity(passes(f"{name}: {value}", alice, f"{name}: {value}"))
            check(f"nginx: {name}: {value}: is not what the application hears", seen == who, seen)
    names = ", ".join([*IDENTITY, "Authorization", "X-Original-URL"])
    seen = identity(passes("a Connection that drops headers", alice, f"Connection: {names}"))
    check("nginx: it drops none", seen == who, seen)
    seen = dict(passes("a host in capitals", alice, host="APP.Example.Com")[2])
    check("nginx: it arrives in its plain form", seen["host"] == "app.example.com", seen)
    stopped("a good token beside a bad one", [400, 401, 403, 500], "/", alice, bearer("abcd.efgh.ijkl"))
    stopped("a bad token beside a good one", [400, 401, 403, 500], "/", bearer("abcd.efgh.ijkl"), alice)
    for target in (
        "/a/../b",
        "/a/./b",
        "/..",
        "/a%2Fb",
        "/a%2e%2e/b",
        "/%2e",
        "/a%252e/b",
        "/a%5cb",
        "/a\\b",
        "//a",
        "/a//b",
        "/a;b",
        "/a%zz",
        "/a%",
        "/a%00b",
        "/a%0d%0ab",
        "/a%0ab",
        "/\u00e4",
        "/a?x=<y>",
        "/a?x=%4",
        '/a?x="',
        "/a#b",
        "http://app.example.com/a/../b",
        "http://elsewhere.example//b",
        "http://user@app.example.com//b",
        "*",
        "a",
    ):
        stopped(target, [400, 403], target, alice)
    # nginx has no opinion of the first.
    for method in ("PROPFIND", "TRACE"):
        stopped(method, [403, 405], "/", alice, method=method)


def without_claviger(alice):
    server.send_signal(signal.SIGSTOP)
    stopped("a Claviger that does not answer", [500, 502, 503, 504], "/reports", alice)
    server.send_signal(signal.SIGCONT)
    until("claviger is ready again", lambda: requests.get(f"http://127.0.0.1:{port}/readyz", timeout=2).ok)
    passes("a Claviger that answers again", alice)
    server.send_signal(signal.SIGTERM)
    check("claviger ended cleanly", server.wait(timeout=30) == 0, server.returncode)
    for attempt in ("first", "second"):
        stopped(f"a Claviger that is gone: the {attempt} time", [500, 502, 503, 504], "/reports", alice)


try:
    everything()
finally:
    end(front, server)
    log.close()
