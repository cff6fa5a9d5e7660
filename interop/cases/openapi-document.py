"""schemathesis makes up requests for every operation of the committed OpenAPI document and judges the answers by it.

Three times: with an admin's key, without any credential, and what only persons have with a person's token. What is left out,
and why:

- the `stateful` phase: it feeds ids from answers into DELETE, and would revoke the key that it runs with;
- `negative_data_rejection`, `positive_data_acceptance`, `missing_required_header`: JSON Schema cannot say all that is wrong
  with a request (ids of what is not there, two fields of which one must be absent), and OAuth wants unknown parameters
  ignored. `crates/api/tests` judges what is asked;
- `ignored_auth` of POST /v1/authentications: it answers an invalid pair with 404, as documented, and not with 401;
- what ends the admin's key, in the run as that admin;
- what ends a person's login, in the run as that person.
"""

import base64
import json
import os
import subprocess
import sys

import requests

from case import BASE, check, key

DOCUMENT = os.path.abspath("openapi/openapi.json")
LEFT_OUT = ["negative_data_rejection", "positive_data_acceptance", "missing_required_header"]
NOWHERE = "00000000-0000-4000-8000-000000000000"
PASSWORD = base64.b64encode(os.urandom(18)).decode()
SCRATCH = os.environ["SCRATCH"]
admin = requests.Session()
admin.auth = key("admin")
# Nobody asks it anything.
PROVIDER = {"issuer": "https://provider.invalid", "client_id": "claviger"}


def make(path, field, **body):
    answer = admin.post(BASE + path, json=body, timeout=10)
    check(f"openapi: POST {path} makes what is asked about", answer.status_code == 201, answer.text)
    return answer.json()[field]


def made(what):
    """By the parts of paths that name them, things to be asked about."""
    application = make("/v1/applications", "id", name=what)
    return {
        "/v1/applications/{id}": {"id": application},
        "/v1/users/{id}": {"id": make("/v1/users", "id", username=what), "login": NOWHERE, "connection": NOWHERE},
        "/v1/connections/{id}": {"id": make("/v1/connections", "id", name=what, oidc=PROVIDER)},
        "/v1/keys/{id}": {"id": make("/v1/keys", "api_key", application_id=application, name=what, scopes=[])},
        "/v1/tenants/{slug}": {"slug": make("/v1/tenants", "slug", slug=what)},
        "/oauth-authorization-server/t/{slug}": {"slug": what},
        "/v1/me/sessions/{id}": {"id": NOWHERE},
    }


def configure(operations):
    """Ids that lead somewhere: what is deleted, and what is shown and changed. Left alone, the key that asks would be both."""
    yield '[parameters]\n"path.tenant" = "default"\n[checks]'
    yield from (f"{check}.enabled = false" for check in LEFT_OUT)
    yield '[[operations]]\ninclude-path-regex = "/v1/authentications$"\nchecks.ignored_auth.enabled = false'
    # 501 is what the draft of status lists wants for `time`.
    yield '[[operations]]\ninclude-path-regex = "/v1/status-lists/"\nchecks.not_a_server_error.enabled = false'
    # Whoever waits for news would be waited for.
    yield '[[operations]]\ninclude-path-regex = "/v1/revocations$"\nparameters = { "query.wait" = 0 }'
    living, dying = made("to-be-asked-about"), made("to-be-deleted")
    for path, method in operations:
        for part, parameters in (dying if method == "delete" and path.endswith("}") else living).items():
            if part in path:
                values = ", ".join(f'"path.{name}" = "{value}"' for name, value in parameters.items() if f"{{{name}}}" in path)
                yield f'[[operations]]\ninclude-name = "{method.upper()} {path}"\nparameters = {{ {values} }}'


with open(DOCUMENT) as file:
    document = json.load(file)
everything = [(path, method) for path, methods in document["paths"].items() for method in methods]
configuration = f"{SCRATCH}/schemathesis.toml"
with open(configuration, "w") as file:
    print("\n".join(configure(everything)), file=file)


def run(who, expected, *options):
    report = f"{SCRATCH}/schemathesis.json"
    command = ["schemathesis", "--config-file", configuration, "run", DOCUMENT, "--url", BASE, *options]
    command += ["--phases", "examples,coverage,fuzzing"]
    # More than one worker stumbles over Python's own parser.
    command += ["--max-examples", "25", "--seed", "1", "--workers", "1", "--generation-database", "none"]
    command += ["--continue-on-failure", "--no-color", "--warnings", "off", "--report", "json", "--report-json-path", report]
    # What it keeps for itself goes where everything else of this run goes.
    done = subprocess.run(command, cwd=SCRATCH, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
    check(f"openapi: {who}: every answer is as the document says", done.returncode == 0, "see above")
    with open(report) as file:
        said = json.load(file)
    tested = said["operations"]["tested"]
    check(f"openapi: {who}: {expected} operations were asked", tested == expected, said["operations"])
    # An operation that never did what it is for was not looked at closely.
    done = sum(any(phase["accepted"] for phase in phases.values()) for phases in said["valid_rates"].values())
    print(f"{said['test_cases']['generated']} requests; {done} of {tested} operations did what was asked at least once")


basic = base64.b64encode(":".join(key("admin")).encode()).decode()
# A key that revokes itself would be gone for all that follows; nobody's run asks that too.
own_end = [part for path, method in everything if path.endswith("/v1/keys/self-revoke")
           for part in ("--exclude-name", f"{method.upper()} {path}")]
run("an admin", len(everything) - len(own_end) // 2, "--header", f"Authorization: Basic {basic}", *own_end)
me = admin.get(f"{BASE}/v1/me", timeout=10)
check("openapi: an admin: the key lived to the end", me.status_code == 200, me.text)
run("nobody", len(everything))

make("/v1/users", "id", username="person", password=PASSWORD)
login = requests.post(f"{BASE}/t/default/v1/login", json={"username": "person", "password": PASSWORD}, timeout=10)
bearer = {"Authorization": f"Bearer {login.json()['access_token']}"}
ends = [("/v1/me/sessions", "delete"), ("/v1/logout", "post")]
persons = [(path, method) for path, method in everything if path.endswith("/v1/logout") or "/v1/me" in path]
persons = [(path, method) for path, method in persons if (path.removeprefix("/t/{tenant}"), method) not in ends]
names = [part for path, method in persons for part in ("--include-name", f"{method.upper()} {path}")]
run("a person", len(persons), "--header", f"Authorization: {bearer['Authorization']}", *names)
me = requests.get(f"{BASE}/v1/me", headers=bearer, timeout=10)
check("openapi: a person: the login lived to the end", me.status_code == 200, me.text)
