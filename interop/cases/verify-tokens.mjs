// jose verifies tokens with nothing but the JWK set, and refuses what it should.

import { setTimeout } from "node:timers/promises";
import { createRemoteJWKSet, jwtVerify } from "jose";
import { BASE, ISSUER, RESOURCE, check, key, refuses, tampered } from "../case.mjs";

const keys = createRemoteJWKSet(new URL(`${ISSUER}/.well-known/jwks.json`));
const verify = (token, audience = ISSUER) =>
  jwtVerify(token, keys, {
    algorithms: ["EdDSA", "Ed25519"],
    typ: "at+jwt",
    issuer: ISSUER,
    audience,
    requiredClaims: ["sub", "exp", "iat", "jti", "client_id"],
  });
// At the root: the key names its tenant.
const token = async (name, more = {}) => {
  const { id: client_id, secret: client_secret } = key(name);
  const body = new URLSearchParams({ grant_type: "client_credentials", client_id, client_secret, ...more });
  const answer = await (await fetch(`${BASE}/v1/token`, { method: "POST", body })).json();
  check(`a token for ${name}`, answer.access_token, JSON.stringify(answer));
  return answer.access_token;
};

const brief = await token("brief");
const over = setTimeout(7000);
const good = await token("client");
const elsewhere = await token("client", { resource: RESOURCE });
check("jose: a good token", (await verify(good)).payload.scope === "events:read events:write");
check("jose: a token for a resource, there", (await verify(elsewhere, RESOURCE)).payload.aud === RESOURCE);
const refused = {
  "a token for a resource, elsewhere": [elsewhere, ISSUER, "ERR_JWT_CLAIM_VALIDATION_FAILED"],
  "a good token, at the resource": [good, RESOURCE, "ERR_JWT_CLAIM_VALIDATION_FAILED"],
  "another tenant's token": [await token("stranger"), ISSUER, "ERR_JWKS_NO_MATCHING_KEY"],
  "a tampered payload": [tampered(good, 1), ISSUER, "ERR_JWS_SIGNATURE_VERIFICATION_FAILED"],
  "a tampered signature": [tampered(good, 2), ISSUER, "ERR_JWS_SIGNATURE_VERIFICATION_FAILED"],
};
await over;
refused["an expired token"] = [brief, ISSUER, "ERR_JWT_EXPIRED"];
for (const [what, [text, audience, code]] of Object.entries(refused)) {
  const refusal = await refuses(`jose: ${what} is refused`, () => verify(text, audience));
  check(`jose: ${what} is ${code}`, refusal.code === code, refusal.code);
}
