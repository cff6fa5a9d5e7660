"""Two Clavigers behind nginx, with the very configuration that docker-compose.yml mounts: one address, whichever answers.

needs: nginx
needs: openssl
"""

import base64
import concurrent.futures
import json
import os
import signal
import subprocess
import threading
import time

import requests
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from case import adapted, check, claviger, end, free_ports, nginx, until

EXAMPLE = "docs/examples/nginx-replicas.conf"
SCRATCH = os.environ["SCRATCH"]
PASSWORD = base64.b64encode(os.urandom(18)).decode()
LIES = {"X-Forwarded-For": "198.51.100.99", "X-Forwarded-Proto": "https", "Forwarded": "for=198.51.100.99;proto=https"}
urllib3.disable_warnings()

plain, tls, metrics, *ports = free_ports(5)
origin = f"https://127.0.0.1:{tls}"
log = open(f"{SCRATCH}/replicas.log", "w")
environment = {
    **os.environ,
    "CLAVIGER_PUBLIC_URL": origin,
    "CLAVIGER_TRUSTED_PROXIES": "127.0.0.1",
    "CLAVIGER_REQUIRE_HTTPS": "true",
    "CLAVIGER_DRAIN_WAIT": "1",
}


def start(port):
    own = {"CLAVIGER_METRICS_LISTEN": f"127.0.0.1:{metrics}"} if port == ports[0] else {}
    command = [os.environ["BINARY"], "--data-dir", os.environ["DATA"], "serve", "--listen", f"127.0.0.1:{port}"]
    server = subprocess.Popen(command, env={**environment, **own}, stdout=log, stderr=log)
    until("a replica is ready", lambda: requests.get(f"http://127.0.0.1:{port}/readyz", timeout=2).ok)
    return server


claviger("tenant", "create", "replicas")
claviger("user", "add", "--tenant", "replicas", "--username", "alice", "--password-stdin", input=PASSWORD)
claviger("app", "create", "--tenant", "replicas", "--name", "robot")
robot = claviger("key", "create", "--tenant", "replicas", "--app", "robot", "--scope", "events:read")
pair = f"{robot['api_key']}:{robot['api_secret']}"
made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
made += ["-subj", "/CN=127.0.0.1", "-keyout", f"{SCRATCH}/privkey.pem", "-out", f"{SCRATCH}/fullchain.pem"]
subprocess.run(made, check=True, capture_output=True)
configuration = adapted(
    EXAMPLE,
    (
        ("server 10.77.0.11:8080 ", f"server 127.0.0.1:{ports[0]} "),
        ("server 10.77.0.12:8080 ", f"server 127.0.0.1:{ports[1]} "),
        ("listen 80;", f"listen 127.0.0.1:{plain};"),
        ("listen 443 ssl http2;", f"listen 127.0.0.1:{tls} ssl http2;"),
        ("/etc/nginx/certificates/fullchain.pem", f"{SCRATCH}/fullchain.pem"),
        ("/etc/nginx/certificates/privkey.pem", f"{SCRATCH}/privkey.pem"),
    ),
)
servers = [start(port) for port in ports]
front, said = nginx(configuration, log)


def session():
    one = requests.Session()
    one.verify = False
    one.trust_env = False
    return one


def everything():
    here = session()
    until("nginx answers", lambda: here.get(f"{origin}/readyz", timeout=2).ok)
    refused = here.post(f"http://127.0.0.1:{plain}/v1/authentications", headers={"Authorization": pair, **LIES}, timeout=10)
    check("plain http is refused, whatever the client says of itself", refused.status_code == 403, refused.text)
    check("and the way out is told", refused.json()["error"] == "https-required", refused.text)

    issued = here.post(f"{origin}/v1/authentications", headers={"Authorization": pair, **LIES}, timeout=10)
    check("https reaches a replica", issued.status_code == 201, issued.text)
    check("with its header of strict transport", "strict-transport-security" in issued.headers, issued.headers)
    entries = claviger("audit", "list", "--tenant", "replicas", "--action", "key.exchange", "--limit", "1")
    check("the trail has the client's address, not what it said of it", "198.51.100.99" not in json.dumps(entries), entries)
    check("namely that from which nginx was asked", "127.0.0.1" in json.dumps(entries), entries)

    credentials = {"username": "alice", "password": PASSWORD}
    tokens = here.post(f"{origin}/t/replicas/v1/login", json=credentials, timeout=10).json()
    for turn in range(6):
        answer = session().post(f"{origin}/v1/token/refresh", json={"refresh_token": tokens["refresh_token"]}, timeout=10)
        check(f"refresh {turn + 1} by whichever replica", answer.status_code == 200, answer.text)
        tokens = answer.json()
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    ended = session().post(f"{origin}/t/replicas/v1/logout", headers=bearer, timeout=10)
    check("logout by whichever replica", ended.status_code == 204, ended.text)
    again = session().post(f"{origin}/v1/token/refresh", json={"refresh_token": tokens["refresh_token"]}, timeout=10)
    check("after it, nobody refreshes", again.status_code == 401, again.text)
    rolling()
    measured()


def complaints():
    """What nginx wrote last."""
    with open(said) as file:
        return "".join(file.readlines()[-5:])


def rolling():
    """One replica after the other is stopped, or killed, and started again, while both are in use."""
    over, statuses, broken = threading.Event(), {}, []

    def use():
        mine = session()
        while not over.is_set():
            try:
                status = mine.post(f"{origin}/v1/authentications", headers={"Authorization": pair}, timeout=20).status_code
                statuses[status] = statuses.get(status, 0) + 1
            except requests.RequestException as error:
                broken.append(repr(error))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        users = [pool.submit(use) for _ in range(4)]
        try:
            for turn in range(6):
                # Until nginx asks the one before again.
                time.sleep(2)
                which = turn % 2
                if turn < 4:
                    servers[which].send_signal(signal.SIGTERM)
                    began = time.monotonic()
                    check(f"replica {which + 1} ends with 0", servers[which].wait(timeout=30) == 0, servers[which].returncode)
                    check("within 10 seconds", time.monotonic() - began <= 10, time.monotonic() - began)
                else:
                    servers[which].kill()
                    check(f"replica {which + 1} is killed", servers[which].wait(timeout=30) == -signal.SIGKILL)
                time.sleep(0.5)
                servers[which] = start(ports[which])
        finally:
            over.set()
        for user in users:
            user.result()
    check("no connection of a client broke", not broken, broken[:3])
    check(f"every exchange was answered with 201 ({statuses})", set(statuses) == {201} and statuses[201] > 100, complaints())


def measured():
    """What a replica says of itself is read by Prometheus' own parser."""
    said_of_itself = requests.get(f"http://127.0.0.1:{metrics}/metrics", timeout=10).text
    families = {family.name: family for family in text_string_to_metric_families(said_of_itself)}
    check("metrics are in Prometheus' format", len(families) > 20, sorted(families))
    without = [name for name, family in families.items() if family.type == "unknown" or not family.documentation]
    check("each has a kind and a meaning", not without, without)
    done = [one.value for one in families["claviger_exchanges"].samples if one.labels == {"outcome": "done"}]
    check("exchanges are counted", done and done[0] > 0, families["claviger_exchanges"])


try:
    everything()
finally:
    end(front, *servers)
    log.close()
