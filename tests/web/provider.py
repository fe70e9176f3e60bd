"""A small provider of OpenID Connect, as a process of its own: python -m web.provider ISSUER_PORT_FILE.

It does what OpenID Connect Core 1.0 says of the authorisation code flow, for one client and people who sign in by typing a name.
A person whose name begins with a fault (``wrong-nonce anna``) gets a token with that fault.
"""

import base64
import hmac
import json
import secrets
import sys
import time
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

CLIENT, SECRET = "icestream", "a secret / of the client"
GROUPS = {"anna": ["cryoem-staff"], "berta": ["ribosome-users", "other"], "carl": ["other"], "dora": "cryoem-staff"}
_RSA = RSAKey.generate_key(2048, {"kid": "first", "use": "sig"})
_EC = ECKey.generate_key("P-256", {"kid": "second"})
_STRANGE = RSAKey.generate_key(2048, {"kid": "first"})


def make_token(issuer: str, name: str, nonce: str, fault: str) -> str:
    """Return an ID token, with a fault if that is wanted."""
    now = int(time.time())
    claims: dict[str, Any] = {"iss": issuer, "sub": f"id of {name}", "aud": CLIENT, "exp": now + 300, "iat": now, "nonce": nonce}
    if name != "dora":  # of whom the groups are told elsewhere
        claims |= {"preferred_username": name, "groups": GROUPS.get(name, [])}
    changed: dict[str, dict[str, Any]] = {
        "wrong-nonce": {"nonce": "another"},
        "no-nonce": {"nonce": None},
        "wrong-issuer": {"iss": f"{issuer}.evil.example"},
        "wrong-audience": {"aud": "another server"},
        "many-audiences": {"aud": [CLIENT, "another server"]},
        "other-party": {"aud": [CLIENT, "another server"], "azp": "another server"},
        "expired": {"exp": now - 3600, "iat": now - 7200},
        "endless": {"exp": None},
        "from-the-future": {"iat": now + 7200, "exp": now + 9000},
    }
    claims = {key: value for key, value in (claims | changed.get(fault, {})).items() if value is not None}
    if fault == "alg-none":
        return ".".join(_encoded(json.dumps(part).encode()) for part in ({"alg": "none", "kid": "first"}, claims)) + "."
    if fault == "shared-secret":  # the public key, taken for a secret
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "kid": "first"}, claims))
        return f"{signed}.{_encoded(hmac.digest(_RSA.as_pem(private=False), signed.encode(), 'sha256'))}"
    if fault == "strange-key":
        return jwt.encode({"alg": "RS256", "kid": "first"}, claims, _STRANGE)
    if fault == "unknown-key":
        return jwt.encode({"alg": "RS256", "kid": "third"}, claims, _STRANGE)
    algorithm, kid = ("ES256", "second") if name == "berta" else ("RS256", "first")
    token = jwt.encode({"alg": algorithm, "kid": kid}, claims, _EC if name == "berta" else _RSA)
    if fault == "changed":
        head, _, signature = token.split(".")
        body = _encoded(json.dumps(claims | {"preferred_username": "root"}).encode())
        return f"{head}.{body}.{signature}"
    return token


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class Handler(BaseHTTPRequestHandler):
    """Answers as a provider does."""

    codes: ClassVar[dict[str, dict[str, str]]] = {}
    access: ClassVar[dict[str, str]] = {}
    protocol_version = "HTTP/1.1"

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def do_GET(self) -> None:
        path, asked = urlsplit(self.path).path, dict(parse_qsl(urlsplit(self.path).query))
        if path == "/.well-known/openid-configuration":
            self._answer(self._describe())
        elif path == "/keys":
            self._answer({"keys": [key.as_dict(private=False) for key in (_RSA, _EC)]})
        elif path == "/userinfo":
            name = self.access.get(self.headers.get("authorization", "").removeprefix("Bearer "), "")
            told = {"sub": f"id of {name}", "preferred_username": name, "groups": GROUPS.get(name, [])}
            self._answer(told if name else {"error": "invalid_token"}, 200 if name else 401)
        elif path == "/authorize" and "as" in asked:
            self._authorize(asked)
        elif path in ("/authorize", "/end"):
            fields = "".join(f'<input type="hidden" name="{quote(key)}" value="{quote(value)}">' for key, value in asked.items())
            self._page(f'<form action="/form">{fields}<label>Account <input name="as"></label><button>Go on</button></form>')
        elif path == "/form":
            self._authorize({key: unquote(value) for key, value in asked.items()})
        else:
            self._answer({"error": "not_found"}, 404)

    def do_POST(self) -> None:
        form = dict(parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
        given = base64.b64decode(self.headers.get("authorization", "").removeprefix("Basic ")).decode()
        right = given == f"{quote(CLIENT, safe='')}:{quote(SECRET, safe='')}"
        begun = self.codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=").decode()
        if not right or form.get("grant_type") != "authorization_code":
            self._answer({"error": "invalid_client"}, 401)
        elif begun is None or begun["redirect_uri"] != form.get("redirect_uri") or begun["code_challenge"] != challenge:
            self._answer({"error": "invalid_grant"}, 400)
        else:
            fault, _, name = begun["as"].rpartition(" ")
            access = secrets.token_urlsafe(16)
            self.access[access] = "somebody else" if fault == "other-person" else name
            token = make_token(self.issuer, name, begun["nonce"], fault)
            said = {"access_token": access, "token_type": "Bearer", "expires_in": 300}
            self._answer(said if fault == "no-token" else {**said, "id_token": token})

    def _authorize(self, asked: dict[str, str]) -> None:
        wanted = {"response_type": "code", "client_id": CLIENT, "code_challenge_method": "S256"}
        if any(asked.get(key) != value for key, value in wanted.items()) or "openid" not in asked.get("scope", ""):
            self._answer({"error": "invalid_request"}, 400)
            return
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        said = {"code": code, "state": asked["state"], "iss": self.issuer}
        if asked["as"] == "nobody":
            said = {"error": "access_denied", "state": asked["state"]}
        self.send_response(302)
        self.send_header("location", f"{asked['redirect_uri']}?{urlencode(said)}")
        self.send_header("content-length", "0")
        self.end_headers()

    def _describe(self) -> dict[str, Any]:
        places = {"authorization": "authorize", "token": "token", "userinfo": "userinfo", "end_session": "end"}
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/keys",
            **{f"{name}_endpoint": f"{self.issuer}/{path}" for name, path in places.items()},
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256"],
        }

    def _answer(self, said: dict[str, Any], status: int = 200) -> None:
        self._send(json.dumps(said).encode(), "application/json", status)

    def _page(self, text: str) -> None:
        self._send(f"<!doctype html><title>Accounts</title><main>{text}</main>".encode(), "text/html; charset=utf-8", 200)

    def _send(self, content: bytes, kind: str, status: int) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Path(sys.argv[1]).write_text(str(server.server_address[1]), encoding="utf-8")
    server.serve_forever()
