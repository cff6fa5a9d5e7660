"""What every case in Python stands on: the server that the runner started, and checks that print one line each."""

import base64
import json
import os
import socket
import subprocess
import sys
import time

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


def claviger(*arguments, **more):
    """What a command of the program prints, on the data of the server that the runner started."""
    command = [os.environ["BINARY"], "--data-dir", os.environ["DATA"], "--output", "json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    check(f"claviger {arguments[0]} {arguments[1]}", done.returncode == 0, done.stderr)
    return json.loads(done.stdout)


def decoded(part):
    """The bytes of a part of a token: base64url without padding."""
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def free_ports(count):
    """Ports that nobody listens on, all different."""
    listeners = [socket.socket() for _ in range(count)]
    for listener in listeners:
        listener.bind(("127.0.0.1", 0))
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def until(what, holds):
    """Waits until it holds, for half a minute."""
    for _ in range(300):
        try:
            if holds():
                return
        except OSError:
            pass
        time.sleep(0.1)
    check(what, False, "not within 30 seconds")


def adapted(example, changes):
    """A configuration that the documentation hands out, with what differs here."""
    with open(example) as file:
        configuration = file.read()
    for documented, here in changes:
        check(f"{example} says once: {documented}", configuration.count(documented) == 1, configuration)
        configuration = configuration.replace(documented, here)
    return configuration


def nginx(configuration, log):
    """Starts nginx with that within `http`, in the case's folder."""
    scratch = os.environ["SCRATCH"]
    name = f"{scratch}/nginx-{os.getpid()}"
    temporary = "".join(f"{kind}_temp_path {name}-{kind};\n" for kind in "client_body proxy fastcgi uwsgi scgi".split())
    with open(f"{name}.conf", "w") as file:
        print(f"daemon off; pid {name}.pid; events {{}} http {{ access_log off;\n{temporary}{configuration}}}", file=file)
    command = ["nginx", "-c", f"{name}.conf", "-e", f"{name}.log"]
    path = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    tested = subprocess.run([*command, "-t"], env=path, capture_output=True, text=True, check=False)
    check("nginx takes the configuration", tested.returncode == 0, tested.stderr)
    return subprocess.Popen(command, env=path, stdout=log, stderr=log), f"{name}.log"


def end(*processes):
    """Ends those that still run."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


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
