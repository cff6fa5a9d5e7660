// jose verifies the tokens of audiences with other algorithms, and refuses what an attacker makes of them.

import { createHmac, generateKeyPairSync, sign } from "node:crypto";
import { createRemoteJWKSet, jwtVerify } from "jose";
import { ALGORITHMS, BASE, ISSUER, check, key, refuses } from "../case.mjs";

const place = `${ISSUER}/.well-known/jwks.json`;
const keys = createRemoteJWKSet(new URL(place));
const set = (await (await fetch(place)).json()).keys;
const audience = (alg) => `https://${alg.toLowerCase()}.example`;
const verify = (token, alg) =>
  jwtVerify(token, keys, {
    algorithms: [alg],
    typ: "at+jwt",
    issuer: ISSUER,
    audience: audience(alg),
    requiredClaims: ["sub", "exp", "iat", "jti"],
  });
const { id, secret } = key("client");
const token = async (alg) => {
  const answer = await fetch(`${BASE}/v1/authentications`, {
    method: "POST",
    headers: { authorization: `${id}:${secret}` },
    body: JSON.stringify({ audience: alg.toLowerCase() }),
  });
  const text = await answer.text();
  check(`a token of ${alg}`, answer.status === 201, text);
  return JSON.parse(text).jwt;
};
const encode = (part) => Buffer.from(typeof part === "string" ? part : JSON.stringify(part)).toString("base64url");
const other = { EdDSA: "ES256", Ed25519: "ES256", ES256: "RS256", RS256: "ES256" };

for (const alg of ALGORITHMS) {
  const good = await token(alg);
  const { payload, protectedHeader } = await verify(good, alg);
  check(`jose: a token of ${alg}`, payload.aud === audience(alg) && protectedHeader.alg === alg, protectedHeader.alg);
  const [head, body, signature] = good.split(".");
  const header = JSON.parse(Buffer.from(head, "base64url"));
  const mine = generateKeyPairSync("ed25519");
  const signed = (changed, by) => {
    const text = `${encode({ ...header, ...changed })}.${body}`;
    return `${text}.${by(Buffer.from(text)).toString("base64url")}`;
  };
  const own = (text) => sign(null, text, mine.privateKey);
  const jwk = set.find((one) => one.kid === header.kid);
  const mac = (shared) => (text) => createHmac("sha256", shared).update(text).digest();
  const claims = JSON.parse(Buffer.from(body, "base64url"));
  const attacks = {
    "J1: none": `${encode({ ...header, alg: "none" })}.${body}.`,
    "J1: None": `${encode({ ...header, alg: "None" })}.${body}.${signature}`,
    "J1: lower case": `${encode({ ...header, alg: alg.toLowerCase() })}.${body}.${signature}`,
    "J2: HS256 with the public key": signed({ alg: "HS256" }, mac(JSON.stringify(jwk))),
    "J2: the algorithm of another key": `${encode({ ...header, alg: other[alg] })}.${body}.${signature}`,
    "J9: brings its own key": signed({ alg: "EdDSA", jwk: mine.publicKey.export({ format: "jwk" }) }, own),
    "J9: names a place with keys": signed({ alg: "EdDSA", jku: "https://attacker.example/jwks" }, own),
    "J10: names no key that there is": signed({ alg: "EdDSA", kid: "../../etc/passwd" }, own),
    "J6: another service's key": `${encode({ ...header, kid: set.find((one) => one.kid !== header.kid).kid })}.${body}.${signature}`,
    "J3: another subject": `${head}.${encode({ ...claims, sub: "root" })}.${signature}`,
    "J8: for another service": await token(ALGORITHMS.find((one) => one !== alg)),
    "J11: another type": `${encode({ ...header, typ: "JWT" })}.${body}.${signature}`,
    "J13: two parts": `${head}.${body}`,
  };
  for (const [what, text] of Object.entries(attacks)) await refuses(`jose, ${alg}: ${what}`, () => verify(text, alg));
}
