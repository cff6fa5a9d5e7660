// openid-client finds everything by discovery, and gets, refreshes, asks about and revokes tokens.

import * as client from "openid-client";
import { ISSUER, RESOURCE, check, key, refuses } from "../case.mjs";

const discover = (id, authentication) =>
  client.discovery(new URL(ISSUER), id, undefined, authentication, {
    algorithm: "oauth2",
    execute: [client.allowInsecureRequests],
  });
const { id, secret } = key("client");
const ways = { client_secret_basic: client.ClientSecretBasic, client_secret_post: client.ClientSecretPost };

for (const [name, way] of Object.entries(ways)) {
  const config = await discover(id, way(secret));
  check(`openid-client: discovery for ${name}`, config.serverMetadata().issuer === ISSUER);
  check(`openid-client: ${name} is listed`, config.serverMetadata().token_endpoint_auth_methods_supported.includes(name));
  const first = await client.clientCredentialsGrant(config, { scope: "events:read" });
  const fits = first.token_type === "bearer" && first.scope === "events:read" && first.expires_in > 0;
  check(`openid-client: clientCredentialsGrant by ${name}`, fits, JSON.stringify(first));
  const second = await client.refreshTokenGrant(config, first.refresh_token);
  check(`openid-client: refreshTokenGrant by ${name}`, second.refresh_token !== first.refresh_token);
}

const config = await discover(id, client.ClientSecretBasic(secret));
const tokens = await client.clientCredentialsGrant(config);
const asker = await discover(key("asker").id, client.ClientSecretBasic(key("asker").secret));
const known = await client.tokenIntrospection(asker, tokens.access_token);
check("openid-client: introspection knows the token", known.active && known.client_id && known.iss === ISSUER, JSON.stringify(known));
await client.tokenRevocation(config, tokens.refresh_token);
check("openid-client: revocation", true);
const after = await client.tokenIntrospection(asker, tokens.access_token);
check("openid-client: what was revoked is not active", after.active === false, JSON.stringify(after));

// A public client: the refresh token was given to whoever holds it.
const held = await client.clientCredentialsGrant(config);
const anybody = await discover(id, client.None());
const refreshed = await client.refreshTokenGrant(anybody, held.refresh_token);
check("openid-client: refreshTokenGrant without a secret", refreshed.access_token !== held.access_token);

const gone = await refuses("openid-client: a revoked refresh token is refused", () =>
  client.refreshTokenGrant(config, tokens.refresh_token),
);
check("openid-client: and is invalid_grant", gone.error === "invalid_grant", gone.error);
const stranger = await discover(key("stranger").id, client.ClientSecretBasic(key("stranger").secret));
await refuses("openid-client: another tenant's key is refused", () => client.clientCredentialsGrant(stranger));
const more = await refuses("openid-client: more than the key holds is refused", () =>
  client.clientCredentialsGrant(config, { scope: "users:write" }),
);
check("openid-client: and is invalid_scope", more.error === "invalid_scope", more.error);
check("openid-client: a token for a resource", (await client.clientCredentialsGrant(config, { resource: RESOURCE })).access_token);
