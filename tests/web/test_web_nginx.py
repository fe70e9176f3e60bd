"""The example for nginx in the documentation, run by Debian's nginx in front of a real `icestream serve`."""

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from icestream.web.access import AccessFile
from icestream.web.server import ACCESS_FILE, DATABASE
from toys.session import make_toy_session, toy_steps
from web.browsing import start_server, stop_server
from web.parts import PASSWORD

pytestmark = pytest.mark.services

EXAMPLE = Path(__file__).parents[2] / "docs" / "how-to" / "nginx-icestream.conf"
CLIENT = "127.0.0.2"
"""Where the client is; nginx, which is trusted, asks from 127.0.0.1."""
FORGED = {"x-forwarded-for": "6.6.6.6, 127.0.0.1", "x-forwarded-proto": "http", "x-remote-user": "anna", "x-real-ip": "6.6.6.6"}
SESSION = "/api/v1/sessions/session"


@dataclass
class Front:
    """nginx with icestream behind it."""

    secure: int
    plain: int
    context: ssl.SSLContext
    state: Path
    clients: ExitStack = field(default_factory=ExitStack)

    def client(self, **headers: str) -> httpx2.Client:
        transport = httpx2.HTTPTransport(verify=self.context, local_address=CLIENT)
        host = {"host": f"icestream.lab.org:{self.secure}"}
        base = f"https://127.0.0.1:{self.secure}"
        client = httpx2.Client(transport=transport, base_url=base, headers=host | headers, timeout=60)
        return self.clients.enter_context(client)

    def signed_in(self, **headers: str) -> tuple[httpx2.Client, httpx2.Response]:
        client = self.client(**headers)
        answer = client.post("/api/v1/sign-in", json={"name": "anna", "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        client.headers["x-icestream-csrf"] = answer.json()["csrf"]
        client.headers["cookie"] = answer.headers["set-cookie"].partition(";")[0]
        return client, answer


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate of this machine that signs itself, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "icestream.lab.org")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    (folder / "lab.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "lab.key").write_bytes(key.private_bytes(*form))
    return folder / "lab.pem", folder / "lab.key"


def write_config(folder: Path, ports: dict[str, int]) -> Path:
    """Write what Debian's nginx.conf would say around the example, with other ports and files in it."""
    text = EXAMPLE.read_text(encoding="utf-8")
    certificate, key = write_certificate(folder)
    changes = {
        "127.0.0.1:8765": f"127.0.0.1:{ports['behind']}",
        "listen 80;": f"listen 127.0.0.1:{ports['plain']};",
        "listen 443 ssl": f"listen 127.0.0.1:{ports['secure']} ssl",
        "/etc/ssl/certs/icestream.pem": str(certificate),
        "/etc/ssl/private/icestream.key": str(key),
    }
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "icestream.conf").write_text(text, encoding="utf-8")
    user = "user root;\n" if os.geteuid() == 0 else ""
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    around = f"{user}daemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
    around += f"http {{\naccess_log off;\ngzip on;\n{temporary}include {folder}/icestream.conf;\n}}\n"
    (folder / "nginx.conf").write_text(around, encoding="utf-8")
    return folder / "nginx.conf"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is missing (Debian: nginx)")
    folder = tmp_path_factory.mktemp("nginx")
    make_toy_session(folder, toy_steps(2), numbers=range(2))
    AccessFile(folder / "state" / ACCESS_FILE).add_password("anna", PASSWORD, "administrate")
    options = ("--name", "icestream.lab.org", "--proxy", "127.0.0.1", "--proxy-user-header", "X-Remote-User", "--no-monitor")
    server = start_server(folder / "session", folder / "state", *options)
    plain, secure = free_ports(2)
    config = write_config(folder, {"behind": int(server.address.rpartition(":")[2]), "plain": plain, "secure": secure})
    nginx = subprocess.Popen([program, "-c", str(config), "-p", str(folder), "-e", str(folder / "error.log")])
    try:
        while not answers(secure):
            assert nginx.poll() is None, (folder / "error.log").read_text(encoding="utf-8")
            time.sleep(0.05)
        front = Front(secure, plain, ssl.create_default_context(cafile=str(folder / "lab.pem")), folder / "state")
        with front.clients:
            yield front
    finally:
        nginx.terminate()
        nginx.wait(timeout=30)
        stop_server(server)


def test_the_page_comes_over_tls_alone_and_says_so(front: Front):
    answer = front.client().get("/")
    assert (answer.status_code, "<!doctype html>" in answer.text) == (200, True)
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    plain = httpx2.get(f"http://127.0.0.1:{front.plain}/s/session", headers={"host": "icestream.lab.org"})
    assert (plain.status_code, plain.headers["location"]) == (301, "https://icestream.lab.org/s/session")
    assert front.client(host="evil.example").get("/").status_code == 421


def test_a_sign_in_has_a_secure_cookie_and_the_real_address_whatever_a_client_forges(front: Front):
    client, answer = front.signed_in(**FORGED)
    parts = {part.strip() for part in answer.headers["set-cookie"].split(";")}
    assert {"Secure", "HttpOnly", "SameSite=strict"} <= parts
    row = client.get("/api/v1/audit").json()[0]
    assert (row["who"], row["action"], row["address"], row["status"]) == ("anna", "sign-in", CLIENT, 200)
    assert (front.state / DATABASE).is_file()


def test_a_client_cannot_say_who_has_signed_in(front: Front):
    for name in ("x-remote-user", "X-REMOTE-USER", "x_remote_user", "X-Remote_User"):
        answer = front.client(**{name: "anna"}).get("/api/v1/sessions")
        assert answer.status_code == 401, name


def test_an_event_arrives_while_the_stream_stays_open(front: Front):
    client, _ = front.signed_in()
    with client.stream("GET", f"{SESSION}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        first = next(line for line in lines if line.startswith("data: "))
        origin = {"origin": f"https://icestream.lab.org:{front.secure}"}
        answer = client.post(f"{SESSION}/actions", json={"kind": "pause", "arguments": {}}, headers=origin)
        assert answer.json()["state"] == "done", answer.text
        assert next(line for line in lines if line.startswith("data: ")) != first


def test_what_is_too_large_and_what_is_smuggled_is_refused(front: Front):
    client, _ = front.signed_in()
    assert client.post(f"{SESSION}/actions", json={"kind": "pause", "x": "y" * 100_000}).status_code == 413
    smuggled = (
        b"POST /api/v1/sign-in HTTP/1.1\r\nHost: icestream.lab.org\r\nContent-Type: application/json\r\n"
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /api/v1/sessions HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    plain = socket.create_connection(("127.0.0.1", front.secure), timeout=60)
    with front.context.wrap_socket(plain, server_hostname="127.0.0.1") as client_socket:
        client_socket.sendall(smuggled)
        assert client_socket.recv(100).startswith(b"HTTP/1.1 400")
