"""A tenant of the preset cheshire-cat as its clients, plugins and core use it: docs/examples/replace-cheshire-cat.sh sets it up, a
thousand tokens are checked by PyJWT as a plugin does, docs/examples/cheshire_cat_auth.py answers in a stand-in of the core, and
docs/examples/nginx-cheshire-cat.conf brings both under one address.

needs: nginx
needs: openssl
"""

import asyncio
import enum
import http.server
import json
import os
import subprocess
import sys
import threading
import types

import jwt
import requests

from case import BASE, adapted, check, end, free_ports, nginx, refuses, tampered, until

TOKENS = 1000
TENANT = "wonderland"
URL = f"{BASE}/t/{TENANT}"
INVALID = {"detail": {"error": "Invalid Credentials"}}


# The set-up, as the guide says it.
folder = os.path.join(os.environ["SCRATCH"], "cheshire-cat")
os.makedirs(folder)
with open(os.path.join(folder, "claviger"), "w") as file:
    print(f'#!/bin/sh\nexec "{os.environ["BINARY"]}" --data-dir "{os.environ["DATA"]}" "$@"', file=file)
os.chmod(file.name, 0o755)
path = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
script = ["bash", "docs/examples/replace-cheshire-cat.sh", folder, TENANT, BASE]
done = subprocess.run(script, env=path, capture_output=True, text=True, check=False)
check("the script of the guide does what it says", done.returncode == 0, done.stderr)


def written(name):
    with open(os.path.join(folder, name)) as file:
        return file.read().strip()


def settings(name):
    return dict(line.split("=", 1) for line in written(name).splitlines())


password, clients, core = written("admin.password"), settings("clients.env"), settings("cat.env")
check("its core is locked with what nobody knows", len({*core.values()}) == 3 and all(len(one) == 64 for one in core.values()))
for name in ["clients.env", "cat.env", "auth_handler.json", "admin.password"]:
    check(f"{name} is for its owner alone", os.stat(os.path.join(folder, name)).st_mode & 0o077 == 0)


# Clients.
def log_in(username, password):
    return requests.post(f"{URL}/auth/token", json={"username": username, "password": password}, timeout=10)


def people(authorization, method="GET", path="", **more):
    return requests.request(method, f"{URL}/users{path}", headers={"Authorization": authorization}, timeout=10, **more)


answer = log_in("admin", password)
check("the admin logs in", answer.status_code == 200 and answer.json()["token_type"] == "bearer", answer.text)
admin = answer.json()["access_token"]
wrong = log_in("admin", "wrong")
check("a wrong password is 403 after a second", (wrong.status_code, wrong.json()) == (403, INVALID), wrong.text)
check("no sooner", wrong.elapsed.total_seconds() >= 1, wrong.elapsed)
made = people(f"Bearer {admin}", "POST", json={"username": "Alice", "password": "Alice-in-w"})
check("an admin adds somebody", made.status_code == 200 and "CONVERSATION" in made.json()["permissions"], made.text)
alice = made.json()
for key in ["HTTP_KEY", "WS_KEY"]:
    answer = people(f"Bearer {clients[key]}")
    check(f"{key} at a door for http", answer.status_code == (200 if key == "HTTP_KEY" else 403), answer.text)


# A plugin that verifies by itself: no audience is passed, and no leeway given.
jwks = jwt.PyJWKClient(f"{URL}/.well-known/jwks.json")
wrong = 0
for _ in range(TOKENS):
    token = log_in("Alice", "Alice-in-w").json()["access_token"]
    claims = jwt.decode(token, jwks.get_signing_key_from_jwt(token).key, algorithms=["EdDSA"], issuer=URL)
    wrong += claims["sub"] != alice["id"] or claims["username"] != "Alice" or claims["permissions"] != alice["permissions"]
check(f"{TOKENS} tokens in a row hold in PyJWT, and none is of the future", wrong == 0, wrong)
key = jwks.get_signing_key_from_jwt(token).key
refuses("a tampered payload", jwt.InvalidSignatureError, lambda: jwt.decode(tampered(token, 1), key, algorithms=["EdDSA"]))
refuses("the algorithm of before", jwt.InvalidAlgorithmError, lambda: jwt.decode(token, "secret", algorithms=["HS256"]))


# One address for both: nginx with the configuration of the guide, before a Claviger that knows the host, and something that stands
# for the core.
class Core(http.server.BaseHTTPRequestHandler):
    """Says what it heard."""

    def answer(self):
        said = json.dumps({"core": self.path, "user_id": self.headers["user_id"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


behind = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Core)
threading.Thread(target=behind.serve_forever, daemon=True).start()
proxy, port = free_ports(2)
HOST = "cat.example.org"
with open(os.path.join(folder, "claviger.toml"), "w") as file:
    print(f'trusted_proxies = ["127.0.0.1"]\n[hosts]\n"{HOST}" = "{TENANT}"', file=file)
serve = [os.environ["BINARY"], "--config", file.name, "--data-dir", os.environ["DATA"], "serve", "--listen", f"127.0.0.1:{port}"]
log = open(os.path.join(folder, "server.log"), "w")
server = subprocess.Popen(serve, env={**os.environ, "CLAVIGER_PUBLIC_URL": BASE}, stdout=log, stderr=log)
configuration = adapted(
    "docs/examples/nginx-cheshire-cat.conf",
    (
        ("server 127.0.0.1:8080;", f"server 127.0.0.1:{port};"),
        ("server 127.0.0.1:1865;", f"server 127.0.0.1:{behind.server_port};"),
        ("listen 80;", f"listen 127.0.0.1:{proxy};"),
        ("/var/log/nginx/cat.log", os.path.join(folder, "cat.log")),
    ),
)
front, _ = nginx(configuration, log)


def at_host(method, path, **more):
    headers = {"Host": HOST, **more.pop("headers", {})}
    return requests.request(method, f"http://127.0.0.1:{proxy}{path}", headers=headers, allow_redirects=False, timeout=10, **more)


try:
    until("nginx and its Claviger answer", lambda: at_host("GET", "/auth/login").ok)
    token = at_host("POST", "/auth/token", json={"username": "Alice", "password": "Alice-in-w"}).json()["access_token"]
    check("a token from the cat's own address is the tenant's", jwt.decode(token, key, algorithms=["EdDSA"])["iss"] == URL)
    answer = at_host("GET", "/users", headers={"Authorization": f"Bearer {clients['HTTP_KEY']}"})
    check("people are there too", [one["username"] for one in answer.json()] == ["admin", "Alice"], answer.text)
    answer = at_host("GET", f"/users/{alice['id']}", headers={"Authorization": f"Bearer {token}"})
    check("but not for everybody", (answer.status_code, answer.json()) == (403, INVALID), answer.text)
    for path in ["/", "/admin/", "/auth_handler/settings", "/users-of-a-plugin", "/custom/auth/token"]:
        answer = at_host("GET", f"{path}?x=1", headers={"user_id": "Caterpillar"})
        check(f"the core answers at {path}", answer.json() == {"core": f"{path}?x=1", "user_id": "Caterpillar"}, answer.text)
    page = at_host("GET", "/auth/login?referer=/admin/")
    style = page.text.split('rel="stylesheet" href="')[1].split('"')[0]
    check("the login page has its style", page.ok and at_host("GET", style).headers["content-type"].startswith("text/css"))
    form = {"username": "Alice", "password": "Alice-in-w", "referer": "/admin/"}
    answer = at_host("POST", "/auth/login", data=form, headers={"Origin": f"http://{HOST}"})
    check("its form leads to the panel", (answer.status_code, answer.headers["location"]) == (303, "/admin/"), answer.text)
    panel, _, attributes = answer.headers["set-cookie"].split("ccat_user_token=")[1].split(",")[0].partition(";")
    shown = jwt.decode(panel, options={"verify_signature": False})
    check("with the token that it reads", shown["username"] == "Alice" and shown["permissions"] == alice["permissions"])
    check("on the whole host", "Path=/;" in attributes and "HttpOnly" not in attributes, attributes)
    answer = at_host("POST", "/auth/login", data=form, headers={"Origin": "https://evil.test"})
    check("a form from elsewhere signs nobody in", answer.status_code == 403 and "set-cookie" not in answer.headers, answer.text)
    one_more = at_host("POST", "/v1/ws-tickets", headers={"Authorization": f"Bearer {token}"})
    check("tickets are had there", one_more.status_code == 201, one_more.text)
    at_host("GET", f"/ws?token={one_more.json()['ticket']}")
    # It writes a line when it has answered.
    until("nginx writes down that a WebSocket was asked for", lambda: '"GET /ws"' in written("cat.log"))
    check("but no query", "token=" not in written("cat.log"), written("cat.log"))
finally:
    end(front, server)


# What the core has that a plugin stands on.
class Text(str, enum.Enum):
    def _generate_next_value_(name, *_):
        return name


RESOURCES = "STATUS MEMORY CONVERSATION SETTINGS LLM EMBEDDER AUTH_HANDLER USERS UPLOAD PLUGINS STATIC"
AuthResource = Text("AuthResource", RESOURCES)
AuthPermission = Text("AuthPermission", "WRITE EDIT LIST READ DELETE")


class AuthUserInfo:
    """Takes what the core's model takes: texts, and permissions that are members of its enums."""

    def __init__(self, id, name, permissions, extra):
        assert isinstance(id, str) and isinstance(name, str)
        self.id, self.name, self.extra = id, name, extra
        self.permissions = {AuthResource(res): [AuthPermission(one) for one in held] for res, held in permissions.items()}


class BaseAuthHandler:
    """Hands a credential to the one method or the other, as the core does."""

    async def authorize_user_from_credential(self, protocol, credential, auth_resource, auth_permission, user_id="user"):
        if not credential:
            return None
        try:
            jwt.decode(credential, options={"verify_signature": False})
        except jwt.InvalidTokenError:
            return await self.authorize_user_from_key(protocol, user_id, credential, auth_resource, auth_permission)
        return await self.authorize_user_from_jwt(credential, auth_resource, auth_permission)


def module(name, **members):
    """So that an import of that name finds these."""
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(members)


said = []
for package in ["cat", "cat.auth", "cat.factory", "cat.mad_hatter"]:
    module(package, __path__=[])
module("cat.auth.permissions", AuthResource=AuthResource, AuthPermission=AuthPermission, AuthUserInfo=AuthUserInfo)
module("cat.factory.auth_handler", AuthHandlerConfig=object)
module("cat.factory.custom_auth_handler", BaseAuthHandler=BaseAuthHandler)
module("cat.log", log=types.SimpleNamespace(warning=said.append, error=said.append))
module("cat.mad_hatter.decorators", hook=lambda **_: lambda function: function)
module("pydantic", ConfigDict=dict)
sys.path.insert(0, "docs/examples")
import cheshire_cat_auth as plugin  # noqa: E402

offered = plugin.factory_allowed_auth_handlers([], None)
check("the plugin offers its handler", offered == [plugin.ClavigerAuthConfig] and offered[0]._pyclass is plugin.ClavigerAuth)
given = json.loads(written("auth_handler.json"))


def handled(credential, permission, protocol="http", user_id="user", **differs):
    handler = plugin.ClavigerAuth(**{**given, **differs})
    resource, action = permission.split(":")
    asked = handler.authorize_user_from_credential(
        protocol, credential, AuthResource(resource), AuthPermission(action), user_id=user_id
    )
    return asyncio.run(asked)


def is_let_in(what, user, id, name, permissions):
    told = user and (user.id, user.name, {res.value: sorted(one.value for one in held) for res, held in user.permissions.items()})
    check(what, told == (id, name, permissions), told)


def is_refused(what, user):
    check(what, user is None, vars(user) if user else "")


every = {resource: ["DELETE", "EDIT", "LIST", "READ", "WRITE"] for resource in RESOURCES.split()}
http, ws = clients["HTTP_KEY"], clients["WS_KEY"]
is_let_in("the key for http acts for whom it says", handled(http, "STATUS:READ", user_id="Caterpillar"),
          "Caterpillar", "Caterpillar", every)
is_let_in("the key for WebSockets does, with what everybody may",
          handled(ws, "CONVERSATION:WRITE", "websocket", "Caterpillar"), "Caterpillar", "Caterpillar", alice["permissions"])
is_let_in("nobody is named", handled(ws, "CONVERSATION:WRITE", "websocket"), "user", "user", alice["permissions"])
is_refused("the key for WebSockets at a plugin's list", handled(ws, "PLUGINS:LIST", "websocket"))
is_refused("the key for http at a WebSocket", handled(http, "CONVERSATION:WRITE", "websocket"))
is_refused("the key for WebSockets at http", handled(ws, "CONVERSATION:WRITE"))
for credential in [None, "", "meow", "not_a_jwt.not_a_jwt.not_a_jwt", core["CCAT_API_KEY"], http + "x", tampered(token, 2)]:
    for protocol in ["http", "websocket"]:
        is_refused("no credential that holds", handled(credential, "STATUS:READ", protocol))
forged = jwt.encode({"sub": alice["id"], "username": "admin", "permissions": every, "iss": URL}, "secret" * 6, algorithm="HS256")
for ask in [True, False]:
    how = "asked" if ask else "verified by the plugin"
    is_let_in(f"a token, {how}, says by itself whose it is", handled(token, "MEMORY:READ", user_id="admin", ask=ask),
              alice["id"], "Alice", alice["permissions"])
    is_refused(f"a token, {how}, for more than its person may", handled(token, "USERS:LIST", ask=ask))
    is_refused(f"a token under the secret of before, {how}", handled(forged, "STATUS:READ", ask=ask))
    is_refused(f"a token of another tenant, {how}",
               handled(token, "STATUS:READ", ask=ask, url=f"{BASE}/t/{os.environ['TENANT']}"))
is_refused("nobody can be asked", handled(token, "STATUS:READ", url="http://127.0.0.1:1/t/x"))
ticket = requests.post(f"{URL}/v1/ws-tickets", headers={"Authorization": f"Bearer {token}"}, timeout=10).json()["ticket"]
is_let_in("a ticket opens a WebSocket", handled(ticket, "CONVERSATION:WRITE", "websocket"),
          alice["id"], "Alice", alice["permissions"])
is_refused("and only one", handled(ticket, "CONVERSATION:WRITE", "websocket"))

# What an admin gives and takes counts for the token that is out, where Claviger is asked.
permissions = {**alice["permissions"], "USERS": ["LIST"]}
changed = people(f"Bearer {admin}", "PUT", f"/{alice['id']}", json={"permissions": permissions})
check("an admin gives somebody a permission", changed.status_code == 200, changed.text)
is_let_in("it counts for the same token", handled(token, "USERS:LIST"), alice["id"], "Alice", permissions)
gone = people(f"Bearer {admin}", "DELETE", f"/{alice['id']}")
check("an admin removes somebody", gone.status_code == 200 and gone.json()["id"] == alice["id"], gone.text)
is_refused("the token is worth nothing", handled(token, "STATUS:READ"))
is_let_in("but to who verifies by itself, until it ends", handled(token, "STATUS:READ", ask=False),
          alice["id"], "Alice", alice["permissions"])

# What is written down of all this.
secrets = [token, panel, admin, ticket, password, "Alice-in-w", *(one.split(":")[1] for one in [http, ws, given["key"]])]
trail = [os.environ["BINARY"], "--data-dir", os.environ["DATA"], "audit", "export", "--tenant", TENANT]
kept = {"the plugin's log": "\n".join(said)}
kept["the audit trail"] = subprocess.run(trail, capture_output=True, text=True, check=True).stdout
for name in ["server.log", "cheshire-cat/server.log"]:
    with open(os.path.join(os.environ["SCRATCH"], name)) as file:
        kept[name] = file.read()
for name, text in kept.items():
    told = [one for one in secrets if one in text]
    check(f"{name} holds no secret", bool(text) and not told, told or "nothing is there")
