"""Asking a provider of OpenID Connect: where its addresses are, who somebody is, and whether what it says is true.

Authorisation code flow with PKCE: OpenID Connect Core 1.0 section 3.1, Discovery 1.0 section 4, RFC 7636, RFC 9207. Signatures
and claims are checked by joserfc.
"""

import base64
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from pydantic import BaseModel, ConfigDict, ValidationError

from icestream.web.oidc import MOST_GROUPS, Oidc

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Signatures of which only the provider has the key: a token that is not signed, or by a shared secret, is none."""
_KINDS = frozenset({"RSA", "EC"})
LEEWAY_S = 60
ANSWERS_WITHIN_S = 10.0
LARGEST_BYTES = 1_000_000
KNOWN_FOR_S = 3600.0
KEYS_AGAIN_S = 60.0
"""A key that is not known makes the keys be read again, at most so often."""


class OidcError(Exception):
    """Somebody cannot be let in; the text has nothing secret in it."""


class _Discovered(BaseModel):
    model_config = ConfigDict(frozen=True)

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class OidcUnavailable(OidcError):
    """The provider cannot be asked: it does not answer, has trouble of its own, or describes itself wrongly."""


@dataclass(frozen=True)
class SignedInThere:
    """Who has signed in at the provider; ``id_token`` tells it who signs out."""

    subject: str
    name: str
    groups: frozenset[str]
    id_token: str = field(repr=False)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none: what is sent has secrets in it."""


@dataclass
class Provider:
    """One provider; what it says of itself is kept for an hour."""

    oidc: Oidc
    clock: Callable[[], float] = time.time
    _known: tuple[float, _Discovered] | None = None
    _keys: tuple[float, KeySet] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def redirect_uri(self) -> str:
        """Where the provider sends a browser back to; never what a request says."""
        return f"{self.oidc.document.address}/api/v1/oidc/callback"

    def authorization_address(self, *, state: str, nonce: str, verifier: str) -> str:
        """Return where a browser is sent to sign in."""
        asked = {
            "response_type": "code",
            "client_id": self.oidc.document.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": " ".join(dict.fromkeys(("openid", *self.oidc.document.scopes))),
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return _with_query(self._discover().authorization_endpoint, asked)

    def end_address(self, id_token: str) -> str | None:
        """Return where a browser is sent to sign out there as well, if the provider has such an address."""
        address = self._discover().end_session_endpoint
        document = self.oidc.document
        asked = {"id_token_hint": id_token, "client_id": document.client_id, "post_logout_redirect_uri": f"{document.address}/"}
        return None if address is None else _with_query(address, asked)

    def check_issuer(self, issuer: str | None) -> None:
        """Check who says to have sent a browser back.

        Raises
        ------
        OidcError
            It is another provider.
        """
        if issuer is not None and issuer != self.oidc.document.issuer:
            raise OidcError("another provider has sent this answer")

    def redeem(self, code: str, *, verifier: str, nonce: str) -> SignedInThere:
        """Return who has signed in, for the code that a browser came back with.

        Raises
        ------
        OidcError
            The provider does not answer or refuses, or what it says is not signed by it, not for us, too old or of another
            sign-in.
        """
        found, document = self._discover(), self.oidc.document
        sent = {"grant_type": "authorization_code", "code": code, "redirect_uri": self.redirect_uri, "code_verifier": verifier}
        sent["client_id"] = document.client_id
        headers = {}
        if self.oidc.secret is not None:
            secret = self.oidc.secret.get_secret_value()
            if "client_secret_basic" in found.token_endpoint_auth_methods_supported:
                pair = f"{quote(document.client_id, safe='')}:{quote(secret, safe='')}".encode()
                headers["authorization"] = f"Basic {base64.b64encode(pair).decode()}"
            else:
                sent["client_secret"] = secret
        answer = _ask(found.token_endpoint, form=sent, headers=headers)
        id_token = answer.get("id_token")
        if not isinstance(id_token, str):
            raise OidcError("the provider has sent no ID token")
        claims = self.check_token(id_token, nonce=nonce)
        claims = self._with_userinfo(found, claims, answer.get("access_token"))
        groups = claims.get(document.groups_claim, [])
        listed = [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else []
        named = claims.get(document.name_claim)
        name = named if isinstance(named, str) and named.strip() else str(claims["sub"])
        printable = "".join(one for one in name.strip() if one.isprintable())[:80]
        return SignedInThere(
            str(claims["sub"]), printable, frozenset(one for one in listed[:MOST_GROUPS] if isinstance(one, str)), id_token
        )

    def check_token(self, id_token: str, *, nonce: str) -> dict[str, Any]:
        """Return what an ID token says, if all of it is as it must be.

        Raises
        ------
        OidcError
            The signature, the issuer, the audience, a time or the nonce is wrong.
        """
        document = self.oidc.document
        registry = jwt.JWTClaimsRegistry(
            now=lambda: int(self.clock()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": document.issuer},
            sub={"essential": True},
            aud={"essential": True, "value": document.client_id},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            claims = self._decode(id_token)
            registry.validate(claims)
        except (JoseError, ValueError) as error:
            raise OidcError(f"the ID token is not to be trusted: {type(error).__name__}") from None
        audience = claims["aud"]
        if (isinstance(audience, list) and len(audience) > 1 and "azp" not in claims) or (
            claims.get("azp", document.client_id) != document.client_id
        ):
            raise OidcError("the ID token was made for another server")
        return claims

    def _decode(self, id_token: str) -> dict[str, Any]:
        try:
            return jwt.decode(id_token, self._read_keys(), algorithms=ALGORITHMS).claims
        except InvalidKeyIdError:  # the provider may have new keys
            return jwt.decode(id_token, self._read_keys(again=True), algorithms=ALGORITHMS).claims

    def _with_userinfo(self, found: _Discovered, claims: dict[str, Any], access_token: object) -> dict[str, Any]:
        """Add what the provider says of a person elsewhere, where the groups are not in the token."""
        document = self.oidc.document
        wanted = {document.groups_claim, document.name_claim}
        if wanted <= set(claims) or found.userinfo_endpoint is None or not isinstance(access_token, str):
            return claims
        said = _ask(found.userinfo_endpoint, headers={"authorization": f"Bearer {access_token}"})
        if said.get("sub") != claims["sub"]:
            raise OidcError("the provider has told about somebody else")
        return {**{name: said[name] for name in wanted & set(said)}, **claims}

    def _discover(self) -> _Discovered:
        issuer = self.oidc.document.issuer
        with self._lock:
            if self._known is not None and self.clock() - self._known[0] < KNOWN_FOR_S:
                return self._known[1]
            try:
                found = _Discovered.model_validate(_ask(f"{issuer.rstrip('/')}/.well-known/openid-configuration"))
            except ValidationError as error:
                wrong = ", ".join(".".join(map(str, one["loc"])) for one in error.errors(include_input=False))
                raise OidcUnavailable(f"the provider describes itself without what is needed: {wrong}") from None
            if found.issuer != issuer:
                raise OidcUnavailable("the provider calls itself otherwise than the facility's file does (`issuer`)")
            addresses = (found.authorization_endpoint, found.token_endpoint, found.jwks_uri, found.userinfo_endpoint)
            allowed = {"https", urlsplit(issuer).scheme}
            if any(address is not None and urlsplit(address).scheme not in allowed for address in addresses):
                raise OidcUnavailable("the provider has an address that does not begin with https://")
            self._known = (self.clock(), found)
            return found

    def _read_keys(self, *, again: bool = False) -> KeySet:
        address = self._discover().jwks_uri
        with self._lock:
            age_s = KNOWN_FOR_S if self._keys is None else self.clock() - self._keys[0]
            if self._keys is not None and age_s < (KEYS_AGAIN_S if again else KNOWN_FOR_S):
                return self._keys[1]
            said = _ask(address).get("keys")
            usable = [one for one in said if isinstance(one, dict) and one.get("kty") in _KINDS] if isinstance(said, list) else []
            keys = KeySet.import_key_set({"keys": [one for one in usable if one.get("use", "sig") == "sig"]})
            self._keys = (self.clock(), keys)
            return keys


def _with_query(address: str, asked: dict[str, str]) -> str:
    return f"{address}{'&' if urlsplit(address).query else '?'}{urlencode(asked)}"


def _ask(address: str, *, form: dict[str, str] | None = None, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the JSON that an address of the provider answers; what is sent, and what it says of an error, is told to nobody."""
    data = None if form is None else urlencode(form).encode()
    request = urllib.request.Request(address, data=data, headers={"accept": "application/json", **(headers or {})})  # noqa: S310
    try:
        with urllib.request.build_opener(_NoRedirects()).open(request, timeout=ANSWERS_WITHIN_S) as answer:
            content = answer.read(LARGEST_BYTES + 1)
    except urllib.error.HTTPError as error:
        error.close()
        kind = OidcUnavailable if error.code >= 500 else OidcError
        raise kind(f"the provider answers with status {error.code}") from None
    except (OSError, ValueError) as error:
        raise OidcUnavailable(f"the provider does not answer: {type(error).__name__}") from None
    try:
        said = json.loads(content) if len(content) <= LARGEST_BYTES else None
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise OidcUnavailable("the provider answers with something that is not JSON")
    return said
