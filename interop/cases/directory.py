"""slapd is a tenant's directory: people log in with the password that it knows, by name or by search.

needs: slapd
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import requests

from case import BASE, check, decoded

SCRATCH = pathlib.Path(os.environ["SCRATCH"])
# One of our own: names that nobody can have count as one, and many are tried.
TENANT = "directory"
LOGIN = f"{BASE}/t/{TENANT}/v1/login"
SUFFIX = "dc=example,dc=com"
PASSWORD, READER = "a password that slapd knows", "the reader's password"
PEOPLE = {"dora": "Dora D.", "emil": "Emil E.", "o,ou=x": "Odd One"}


def claviger(*arguments, succeeds=True, trusting=None):
    command = [os.environ["BINARY"], "--data-dir", os.environ["DATA"], "--output", "json", *arguments]
    environment = os.environ | ({"SSL_CERT_FILE": str(trusting)} if trusting else {})
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    check(f"directory: claviger {arguments[0]} {arguments[1]}", (done.returncode == 0) == succeeds, done.stderr)
    return json.loads(done.stdout) if succeeds else done.stderr


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def entries():
    yield f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example\n"
    for unit in ("people", "groups"):
        yield f"dn: ou={unit},{SUFFIX}\nobjectClass: organizationalUnit\nou: {unit}\n"
    yield (
        f"dn: cn=reader,{SUFFIX}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\n"
        f"cn: reader\nuserPassword: {READER}\n"
    )
    for uid, name in PEOPLE.items():
        escaped = uid.replace(",", "\\2c").replace("=", "\\3d")
        yield (
            f"dn: uid={escaped},ou=people,{SUFFIX}\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: {name}\nsn: {name[-2]}\n"
            f"mail: {uid[0]}@example.com\nuserPassword: {PASSWORD}\n"
        )
    yield f"dn: cn=staff,ou=groups,{SUFFIX}\nobjectClass: groupOfNames\ncn: staff\nmember: uid=dora,ou=people,{SUFFIX}\n"


class Directory:
    """A slapd of our own, in a folder of its own."""

    def __init__(self):
        self.folder = SCRATCH / "slapd"
        (self.folder / "db").mkdir(parents=True)
        self.port, self.tls_port = free_port(), free_port()
        self.certificate = self.folder / "certificate.pem"
        # Without what the system's own configuration adds: this is no authority's certificate.
        (self.folder / "openssl.cnf").write_text("[req]\ndistinguished_name = name\n[name]\n")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=slapd"]
            + ["-config", self.folder / "openssl.cnf", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", self.folder / "key.pem", "-out", self.certificate],
            check=True, capture_output=True,
        )
        modules = next((p for p in ("/usr/lib/ldap", "/usr/lib64/openldap") if os.path.isdir(p)), None)
        lines = [f"include /etc/ldap/schema/{name}.schema" for name in ("core", "cosine", "inetorgperson")]
        lines += [f"modulepath {modules}", "moduleload back_mdb"] if modules else []
        lines += [
            f"pidfile {self.folder}/pid",
            # Taken as a yes to anybody, if one asks so.
            "allow bind_anon_cred bind_anon_dn",
            f"TLSCertificateFile {self.certificate}",
            f"TLSCertificateKeyFile {self.folder}/key.pem",
            "database mdb",
            f"suffix {SUFFIX}",
            f"directory {self.folder}/db",
            "access to attrs=userPassword by anonymous auth by * none",
            f"access to * by dn.exact=cn=reader,{SUFFIX} read by self read by * none",
        ]
        (self.folder / "conf").write_text("\n".join(lines) + "\n")
        (self.folder / "entries").write_text("\n".join(entries()))
        slapadd = shutil.which("slapadd", path=os.environ["PATH"] + ":/usr/sbin")
        subprocess.run([slapadd, "-f", self.folder / "conf", "-l", self.folder / "entries"], check=True)
        self.program = shutil.which("slapd", path=os.environ["PATH"] + ":/usr/sbin")
        self.process = None
        self.start()

    def start(self):
        url = f"ldap://127.0.0.1:{self.port} ldaps://127.0.0.1:{self.tls_port}"
        self.process = subprocess.Popen(
            [self.program, "-f", self.folder / "conf", "-h", url, "-d", "0"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        check("directory: slapd starts", False, "not within 10 seconds")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


def log_in(username, password):
    return requests.post(LOGIN, json={"username": username, "password": password}, timeout=20)


def refused(what, username, password, status, error):
    answer = log_in(username, password)
    check(f"directory: {what}", (answer.status_code, answer.json().get("error")) == (status, error), answer.text)


def claims(tokens):
    return json.loads(decoded(tokens["access_token"].split(".")[1]))


claviger("tenant", "create", TENANT, "--settings", '{"login_throttle":{"failures":100}}')
directory = Directory()
try:
    url = f"ldap://127.0.0.1:{directory.port}"
    by_name = {
        "ldap": {
            "url": url,
            "user_dn": f"uid={{username}},ou=people,{SUFFIX}",
        },
        "mapping": {"trust_email": True, "default_roles": ["user"]},
        "auto_create": True,
    }
    claviger("connection", "create", "--tenant", TENANT, "--settings", json.dumps(by_name), "ldap")
    shown = claviger("connection", "show", "--tenant", TENANT, "ldap")
    check("directory: connection list", claviger("connection", "list", "--tenant", TENANT) == [shown], json.dumps(shown))
    found = claviger("connection", "test", "--tenant", TENANT, "ldap")
    check("directory: connection test", found["found"] == [f"{url} answers"], json.dumps(found))

    dora = log_in("dora", PASSWORD)
    check("directory: somebody logs in with the password that it knows", dora.status_code == 200, dora.text)
    dora = dora.json()
    check("directory: with the connection's roles", claims(dora)["roles"] == ["user"], json.dumps(claims(dora)))
    again = claims(log_in("DORA", PASSWORD).json())
    check("directory: and is the same person next time", again["sub"] == claims(dora)["sub"], json.dumps(again))
    refused("a wrong password is refused", "dora", "not hers", 401, "invalid_credentials")
    # slapd takes these as nobody's bind, which is no proof of anything.
    refused("an empty password is refused", "dora", "", 401, "invalid_credentials")
    refused("an unknown name is refused", "nobody", PASSWORD, 401, "invalid_credentials")
    for name in ("*", "do*", "dora)(uid=*", "dora,ou=people", f"dora,ou=people,{SUFFIX}", "\\2a", "dora\x00"):
        refused(f"{name!r} is nobody", name, PASSWORD, 401, "invalid_credentials")
    # An entry of that very name; it is found, and no account can be called so.
    refused("a name that no account can have is refused", "o,ou=x", PASSWORD, 403, "no_username")

    # A name that is taken here is not hers because it is hers there.
    subprocess.run(
        [os.environ["BINARY"], "--data-dir", os.environ["DATA"], "user", "add", "--tenant", TENANT, "--username", "emil", "--password-stdin"],
        input="the password that we know", text=True, check=True, stdout=subprocess.DEVNULL,
    )
    check("directory: our own password is asked first", log_in("emil", "the password that we know").status_code == 200)
    refused("and the directory's is not", "emil", PASSWORD, 401, "invalid_credentials")
    refresh = requests.post(f"{BASE}/t/{TENANT}/v1/token/refresh", json={"refresh_token": dora["refresh_token"]}, timeout=20)
    check("directory: its logins are refreshed", refresh.status_code == 200, refresh.text)
    dora = refresh.json()

    # Under TLS, both ways: with a certificate that is trusted for this very address, and no other.
    tls = {"under-tls": {"url": f"ldaps://127.0.0.1:{directory.tls_port}"}, "start-tls": {"url": url, "starttls": True}}
    for name, way in tls.items():
        ldap = way | {"base": SUFFIX, "filter": "(uid={username})", "bind_dn": f"cn=reader,{SUFFIX}"}
        settings = json.dumps({"ldap": ldap, "secret": READER})
        claviger("connection", "create", "--tenant", TENANT, "--settings", settings, name)
        claviger("connection", "test", "--tenant", TENANT, name, trusting=directory.certificate)
        untrusted = claviger("connection", "test", "--tenant", TENANT, name, succeeds=False)
        check("directory: a certificate that nobody vouches for is refused", "ertificate" in untrusted, untrusted)
        claviger("connection", "delete", "--tenant", TENANT, name)

    # Searched for, with groups.
    claviger("connection", "set", "--tenant", TENANT, "--settings", '{"enabled":false}', "ldap")
    ended = requests.get(f"{BASE}/t/{TENANT}/v1/me", headers={"Authorization": f"Bearer {dora['access_token']}"}, timeout=20)
    check("directory: disabled, its logins end", ended.status_code == 401, ended.text)
    refused("and nobody logs in", "dora", PASSWORD, 401, "invalid_credentials")
    by_search = {
        "ldap": {
            "url": url,
            "base": f"ou=people,{SUFFIX}",
            "filter": "(&(objectClass=inetOrgPerson)(uid={username}))",
            "bind_dn": f"cn=reader,{SUFFIX}",
            "group_base": f"ou=groups,{SUFFIX}",
            "group_filter": "(member={dn})",
        },
        "mapping": {
            "username": ["mail"], "username_pattern": "(.*)@example\\.com", "username_format": "x-$1",
            "trust_email": True, "role_map": {"staff": ["staff"]}, "required_groups": ["staff"],
        },
        "auto_create": True, "secret": READER,
    }
    claviger("connection", "create", "--tenant", TENANT, "--settings", json.dumps(by_search), "search")
    claviger("connection", "test", "--tenant", TENANT, "search")
    found = claims(log_in("dora", PASSWORD).json())
    check("directory: found by search, with the groups' roles", found["roles"] == ["staff"], json.dumps(found))
    refused("a wrong password is refused after a search too", "dora", "not hers", 401, "invalid_credentials")
    for name in ("*", "d*", "dora)(objectClass=*", "*)(|(uid=*"):
        refused(f"{name!r} is found to be nobody", name, PASSWORD, 401, "invalid_credentials")
    claviger("connection", "set", "--tenant", TENANT, "--settings", '{"secret":"not the reader\'s"}', "search")
    refused("when the reader is refused, nobody can say", "dora", PASSWORD, 503, "upstream_unavailable")
    claviger("connection", "test", "--tenant", TENANT, "search", succeeds=False)
    claviger("connection", "set", "--tenant", TENANT, "--settings", json.dumps({"secret": READER}), "search")

    directory.stop()
    refused("away, nobody can say", "dora", PASSWORD, 503, "upstream_unavailable")
    refused("not even of a wrong password", "dora", "not hers", 503, "upstream_unavailable")
    check("directory: and our own people log in", log_in("emil", "the password that we know").status_code == 200)
    directory.start()
    check("directory: back again", log_in("dora", PASSWORD).status_code == 200)

    # Guessing is counted as with any password.
    claviger("tenant", "set", TENANT, "--settings", '{"login_throttle":{"failures":3}}')
    guesses = 0
    while log_in("dora", "a guess").status_code == 401 and guesses < 50:
        guesses += 1
    check("directory: a few guesses are looked at", 3 <= guesses < 50, guesses)
    refused("and then nobody is, from there", "dora", PASSWORD, 429, "too_many_requests")
finally:
    directory.stop()
