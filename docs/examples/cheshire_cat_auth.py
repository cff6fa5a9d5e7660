"""A plugin for Cheshire Cat 1.x: Claviger says who calls, and what they may.

Put it into a plugin's folder, then PUT /auth_handler/settings/ClavigerAuthConfig with {"url", "key", "ask"}. With `ask`, each
credential is judged by what holds now; without, a token is verified here with Claviger's public keys, and is good until it ends.
Whatever cannot be found out is a no.
"""

import asyncio
import base64
import json
import urllib.request
from typing import Type

import jwt
from cat.auth.permissions import AuthPermission, AuthResource, AuthUserInfo
from cat.factory.auth_handler import AuthHandlerConfig
from cat.factory.custom_auth_handler import BaseAuthHandler
from cat.log import log
from cat.mad_hatter.decorators import hook
from pydantic import ConfigDict

PATIENCE = 10  # seconds


class ClavigerAuth(BaseAuthHandler):
    def __init__(self, **config):
        self.url = config["url"].rstrip("/")
        self.basic = base64.b64encode(config["key"].encode()).decode()
        self.ask = config.get("ask", True)
        self.keys = jwt.PyJWKClient(f"{self.url}/.well-known/jwks.json", lifespan=300, timeout=PATIENCE)

    async def authorize_user_from_jwt(self, token, auth_resource, auth_permission):
        """Whose token it is, if they may do that. Whatever `user_id` says: a token says by itself whose it is."""
        if self.ask:
            return await self.asked({"authorization": f"Bearer {token}"}, auth_resource, auth_permission)
        try:
            claims = await asyncio.to_thread(self.verified, token)
        except Exception as error:
            log.warning(f"A token does not verify: {error}")
            return None
        if word(auth_permission) not in claims["permissions"].get(word(auth_resource), []):
            return None
        return user(claims["sub"], claims["username"], claims["permissions"], claims.get("roles", []))

    async def authorize_user_from_key(self, protocol, user_id, api_key, auth_resource, auth_permission):
        """Whom the key acts for, if it may do that; over a WebSocket also whose one-time ticket it is."""
        if protocol == "websocket":
            shown = {"token": api_key, "transport": "ws"}
        else:
            shown = {"authorization": f"Bearer {api_key}", "transport": "http"}
        return await self.asked({**shown, "user_id": user_id}, auth_resource, auth_permission)

    def verified(self, token):
        key = self.keys.get_signing_key_from_jwt(token)
        needed = ["exp", "iat", "sub", "username", "permissions"]
        return jwt.decode(token, key.key, algorithms=["EdDSA"], issuer=self.url, options={"require": needed})

    async def asked(self, question, auth_resource, auth_permission):
        question["require"] = {"permission": f"{word(auth_resource)}:{word(auth_permission)}"}
        try:
            decision = await asyncio.to_thread(self.decided, question)
        except Exception as error:
            log.error(f"Claviger could not be asked: {error}")
            return None
        if not decision["allow"]:
            return None
        name = decision.get("username") or decision["subject"]
        return user(decision["subject"], name, decision["permissions"], decision["roles"])

    def decided(self, question):
        headers = {"Authorization": f"Basic {self.basic}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/v1/verify", json.dumps(question).encode(), headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)


def word(one):
    """A resource or permission as text, whether it is a member of an enum or a word."""
    return getattr(one, "value", one)


def user(subject, name, permissions, roles):
    """What the core knows of permissions; a plugin's own it does not."""
    known = {resource.value for resource in AuthResource}, {permission.value for permission in AuthPermission}
    held = {
        resource: [permission for permission in held if permission in known[1]]
        for resource, held in permissions.items()
        if resource in known[0]
    }
    return AuthUserInfo(id=subject, name=name, permissions=held, extra={"roles": roles})


class ClavigerAuthConfig(AuthHandlerConfig):
    url: str
    key: str
    ask: bool = True
    _pyclass: Type = ClavigerAuth

    model_config = ConfigDict(
        json_schema_extra={
            "humanReadableName": "Claviger",
            "description": "People, tokens and keys are those of a Claviger tenant",
            "link": "",
        }
    )


@hook(priority=0)
def factory_allowed_auth_handlers(allowed, cat):
    return [*allowed, ClavigerAuthConfig]
