// Verifies tokens offline and follows what is revoked: node verify.mjs ISSUER AUDIENCE, one token a line.
import { createInterface } from "node:readline";
import { createRemoteJWKSet, jwtVerify } from "jose";

const CLAIMS = ["sid", "key_id", "sub", "client_id", "jti", "tid"];
// Whoever acts for another stops with what lets them.
const ACTING = [["sub", "sub"], ["client_id", "sub"], ["sid", "sid"], ["key_id", "key_id"], ["key_id", "client_key_id"]];
const LONGEST_SILENCE = 60; // seconds without news, after which nothing is accepted
const now = () => Date.now() / 1000;
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

export class Verifier {
  revoked = new Map();
  cursor = null;
  asOf = 0;

  static async for(issuer, audience) {
    const answer = await fetch(`${issuer}/.well-known/oauth-authorization-server`, { signal: AbortSignal.timeout(5000) });
    const metadata = await answer.json();
    if (metadata.issuer !== issuer) throw new Error("the metadata are another issuer's");
    const verifier = new Verifier();
    verifier.issuer = issuer;
    verifier.audience = audience;
    verifier.feed = metadata.revocations_endpoint;
    verifier.keys = createRemoteJWKSet(new URL(metadata.jwks_uri)); // keeps the keys, and asks again when one is not among them
    await new Promise((known) => verifier.follow(known));
    return verifier;
  }

  async verify(text) {
    const { payload } = await jwtVerify(text, this.keys, {
      issuer: this.issuer, audience: this.audience, algorithms: ["EdDSA"], typ: "at+jwt", clockTolerance: 5,
      requiredClaims: ["sub", "exp", "iat", "jti"],
    });
    const names = CLAIMS.map((name) => [name, payload[name]]);
    for (const [name, member] of ACTING) names.push([name, payload.act?.[member]]);
    for (const [name, value] of names) {
      const entry = this.revoked.get(`${name} ${value}`);
      if (entry && (entry.before === undefined || payload.iat <= entry.before)) throw new Error("revoked");
    }
    if (now() - this.asOf > LONGEST_SILENCE) throw new Error("no news of revocations");
    return payload;
  }

  async follow(known) {
    for (;;) {
      try {
        await this.read();
        if (this.asOf > 0) known();
      } catch (error) { // whatever it is: try again; silence is noticed above
        console.error(`revocations: ${error.message}`);
        await sleep(1000);
      }
    }
  }

  async read() {
    const query = this.cursor === null ? "" : `?since=${this.cursor}&wait=20`;
    const answer = await fetch(this.feed + query, { signal: AbortSignal.timeout(30000) });
    if (!answer.ok) throw new Error(`the feed answered ${answer.status}`);
    const { payload: batch } = await jwtVerify(await answer.text(), this.keys, {
      issuer: this.issuer, algorithms: ["EdDSA"], typ: "revocations+jwt", clockTolerance: 5,
    });
    if (batch.prev !== null && batch.prev !== this.cursor) {
      this.cursor = null;
      throw new Error("something was missed: from the beginning");
    }
    if (batch.prev === null) this.revoked = new Map();
    for (const [name, value, until, before] of batch.entries) this.revoked.set(`${name} ${value}`, { until, before });
    for (const [key, { until }] of this.revoked) if (until !== null && until < now()) this.revoked.delete(key);
    this.cursor = batch.cursor;
    if (!batch.more) this.asOf = Math.max(this.asOf, Math.min(batch.iat, now()));
  }
}

const verifier = await Verifier.for(...process.argv.slice(2, 4));
console.log("ready");
for await (const line of createInterface({ input: process.stdin })) {
  try {
    const claims = await verifier.verify(line.trim());
    console.log("good", claims.sub, claims.scope ?? "");
  } catch (refusal) {
    console.log("refused:", refusal.message);
  }
}
process.exit(0);
