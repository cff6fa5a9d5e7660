// A small OpenID Connect provider: whoever comes is asked who they are, and believed.

import { createHash, generateKeyPairSync, randomUUID, sign } from "node:crypto";
import { createServer } from "node:http";

const encoded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

export class Provider {
  #server;
  #codes = new Map();
  #keys = generateKeyPairSync("ec", { namedCurve: "P-256" });

  static async start(issuer, people) {
    const provider = new Provider();
    provider.issuer = issuer;
    provider.people = people;
    provider.#server = createServer((request, response) => {
      provider.#answer(request, response).catch(() => response.writeHead(500).end());
    });
    const { hostname, port } = new URL(issuer);
    await new Promise((ready) => provider.#server.listen(Number(port), hostname, ready));
    return provider;
  }

  async stop() {
    this.#server.closeAllConnections();
    await new Promise((done) => this.#server.close(done));
  }

  async #answer(request, response) {
    const { issuer } = this;
    const url = new URL(request.url, issuer);
    const json = (status, body) => response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    switch (url.pathname) {
      case "/.well-known/openid-configuration":
        return json(200, {
          issuer,
          authorization_endpoint: `${issuer}/authorize`,
          token_endpoint: `${issuer}/token`,
          jwks_uri: `${issuer}/jwks`,
          id_token_signing_alg_values_supported: ["ES256"],
        });
      case "/jwks":
        return json(200, { keys: [{ ...this.#keys.publicKey.export({ format: "jwk" }), kid: "1", alg: "ES256", use: "sig" }] });
      case "/authorize": {
        const links = this.people.map((name) => {
          const code = randomUUID();
          this.#codes.set(code, { name, asked: url.searchParams });
          const back = new URL(url.searchParams.get("redirect_uri"));
          back.search = new URLSearchParams({ code, state: url.searchParams.get("state") });
          return `<p><a href="${back.href.replaceAll("&", "&amp;")}">I am ${name}</a></p>`;
        });
        const page = `<!doctype html><html lang="en"><title>Provider</title><link rel="icon" href="data:,">${links.join("")}</html>`;
        return response.writeHead(200, { "content-type": "text/html" }).end(page);
      }
      case "/token": {
        let text = "";
        for await (const chunk of request) text += chunk;
        const form = new URLSearchParams(text);
        const kept = this.#codes.get(form.get("code"));
        this.#codes.delete(form.get("code"));
        const challenge = createHash("sha256").update(form.get("code_verifier") ?? "").digest("base64url");
        if (!kept || challenge !== kept.asked.get("code_challenge")) return json(400, { error: "invalid_grant" });
        const iat = Math.floor(Date.now() / 1000);
        const claims = { iss: issuer, sub: `s-${kept.name}`, aud: kept.asked.get("client_id"), iat, exp: iat + 60 };
        const signed = `${encoded({ alg: "ES256", kid: "1" })}.${encoded({ ...claims, nonce: kept.asked.get("nonce"), preferred_username: kept.name })}`;
        const signature = sign("sha256", Buffer.from(signed), { key: this.#keys.privateKey, dsaEncoding: "ieee-p1363" });
        return json(200, { access_token: "a", token_type: "Bearer", id_token: `${signed}.${signature.toString("base64url")}` });
      }
      default:
        return json(404, {});
    }
  }
}
