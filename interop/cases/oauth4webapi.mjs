// oauth4webapi, which checks each answer against the standards, goes through every endpoint that the metadata name.

import * as oauth from "oauth4webapi";
import { ISSUER, check, key, refuses } from "../case.mjs";

const options = { [oauth.allowInsecureRequests]: true };
const issuer = new URL(ISSUER);
const discovered = await oauth.discoveryRequest(issuer, { algorithm: "oauth2", ...options });
const server = await oauth.processDiscoveryResponse(issuer, discovered);
check("oauth4webapi: discovery", server.issuer === ISSUER);
for (const endpoint of ["token_endpoint", "introspection_endpoint", "revocation_endpoint", "jwks_uri"]) {
  check(`oauth4webapi: ${endpoint} is below the issuer`, server[endpoint]?.startsWith(`${ISSUER}/`), server[endpoint]);
}

const { id, secret } = key("client");
const client = { client_id: id };
const ways = { client_secret_basic: oauth.ClientSecretBasic(secret), client_secret_post: oauth.ClientSecretPost(secret) };
let tokens;
for (const [name, way] of Object.entries(ways)) {
  const parameters = new URLSearchParams({ scope: "events:read events:write" });
  const answer = await oauth.clientCredentialsGrantRequest(server, client, way, parameters, options);
  check(`oauth4webapi: ${name} is answered no-store`, answer.headers.get("cache-control") === "no-store");
  tokens = await oauth.processClientCredentialsResponse(server, client, answer);
  check(`oauth4webapi: client_credentials by ${name}`, tokens.scope === "events:read events:write", JSON.stringify(tokens));
  const refreshed = await oauth.refreshTokenGrantRequest(server, client, way, tokens.refresh_token, options);
  tokens = await oauth.processRefreshTokenResponse(server, client, refreshed);
  check(`oauth4webapi: refresh_token by ${name}`, tokens.token_type === "bearer" && tokens.expires_in > 0);
}

const request = new Request(`${ISSUER}/v1/me`, { headers: { authorization: `Bearer ${tokens.access_token}` } });
const claims = await oauth.validateJwtAccessToken(server, request, ISSUER, options);
check("oauth4webapi: the token is an RFC 9068 access token", claims.iss === ISSUER && claims.client_id, JSON.stringify(claims));

const asker = { client_id: key("asker").id };
const basic = oauth.ClientSecretBasic(key("asker").secret);
const ask = async (token) =>
  oauth.processIntrospectionResponse(server, asker, await oauth.introspectionRequest(server, asker, basic, token, options));
const known = await ask(tokens.access_token);
check("oauth4webapi: introspection knows the token", known.active && known.jti === claims.jti, JSON.stringify(known));
const revoke = () => oauth.revocationRequest(server, client, ways.client_secret_basic, tokens.refresh_token, options);
await oauth.processRevocationResponse(await revoke());
check("oauth4webapi: revocation", true);
await oauth.processRevocationResponse(await revoke());
check("oauth4webapi: revocation of what is revoked already", true);
check("oauth4webapi: what was revoked is not active", (await ask(tokens.access_token)).active === false);

const wrong = oauth.ClientSecretBasic("wrong");
const refused = await refuses("oauth4webapi: a wrong secret is refused", async () =>
  oauth.processClientCredentialsResponse(
    server,
    client,
    await oauth.clientCredentialsGrantRequest(server, client, wrong, new URLSearchParams(), options),
  ),
);
check("oauth4webapi: with a challenge", refused.cause?.[0]?.scheme === "basic", String(refused));
