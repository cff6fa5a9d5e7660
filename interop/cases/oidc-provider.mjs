// oidc-provider is a tenant's own provider: people come through it with PKCE, are refused where they should be, and are asked
// about again when their tokens are refreshed.

import { execFileSync } from "node:child_process";
import { createServer } from "node:http";
import Provider from "oidc-provider";
import { BASE, TENANT, check } from "../case.mjs";

const { BINARY, DATA } = process.env;
const people = {
  alice: { email: "alice@example.com", email_verified: true, groups: ["staff", "hpc-admin"] },
  bob: { email: "bob@example.com", email_verified: false, groups: ["guests"] },
};
let away = false;

const server = createServer();
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const issuer = `http://127.0.0.1:${server.address().port}`;
const callback = `${BASE}/t/${TENANT}/login/corp/callback`;
console.warn = console.info = () => {};
const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "claviger",
      client_secret: "a secret of theirs",
      redirect_uris: [callback],
      grant_types: ["authorization_code", "refresh_token"],
    },
  ],
  pkce: { required: () => true },
  issueRefreshToken: () => true,
  rotateRefreshToken: true,
  claims: { openid: ["sub"], profile: ["preferred_username", "groups"], email: ["email", "email_verified"] },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, preferred_username: id, ...people[id] }) }),
});
const serve = provider.callback();
server.on("request", (request, response) => {
  if (away) return response.writeHead(502).end();
  return serve(request, response);
});

const claviger = (...args) =>
  JSON.parse(execFileSync(BINARY, ["--data-dir", DATA, "--output", "json", ...args], { encoding: "utf8" }));
const settings = {
  title: "Corp",
  oidc: { issuer, client_id: "claviger", scopes: ["openid", "profile", "email"] },
  secret: "a secret of theirs",
  mapping: { role_map: { "hpc-admin": ["hpc"] }, default_roles: ["user"], required_groups: ["staff"] },
  auto_create: true,
  recheck_after: 0,
};
// The provider runs in this process, and a program that is waited for would wait for it.
const made = claviger("connection", "create", "--tenant", TENANT, "--settings", JSON.stringify(settings), "corp");
check("oidc-provider: connection create names the redirect URI", made.redirect_uri === callback, JSON.stringify(made));

/** A browser, as far as cookies and redirects go. */
class Browser {
  cookies = {};
  async fetch(url, init = {}) {
    const host = new URL(url).host;
    const jar = (this.cookies[host] ??= new Map());
    const headers = { ...init.headers, cookie: [...jar].map(([name, value]) => `${name}=${value}`).join("; ") };
    const response = await fetch(url, { ...init, headers, redirect: "manual" });
    for (const line of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      if (value && !/expires=Thu, 01 Jan 1970/i.test(line)) jar.set(name, value);
      else jar.delete(name);
    }
    return response;
  }
  /** Logs in at the provider and consents; returns where it sends the browser back to. */
  async through(begin, login) {
    const sent = await this.fetch(begin);
    check(`oidc-provider: ${login} is sent to the provider`, sent.status === 303 && sent.headers.get("location").startsWith(issuer), sent.status);
    let url = sent.headers.get("location");
    for (let step = 0; step < 12; step++) {
      const response = await this.fetch(url);
      let location = response.headers.get("location");
      if (!location) {
        const page = await response.text();
        const action = /action="([^"]+)"/.exec(page)?.[1];
        const prompt = /name="prompt" value="([^"]+)"/.exec(page)?.[1];
        const body = new URLSearchParams({ prompt, login, password: "any" });
        const posted = await this.fetch(new URL(action, url), { method: "POST", body });
        location = posted.headers.get("location");
      }
      url = new URL(location, url).href;
      if (url.startsWith(callback)) return url;
    }
    throw new Error(`the provider sends ${login} around`);
  }
}

const begin = `${BASE}/t/${TENANT}/login/corp`;
const asJson = { headers: { accept: "application/json" } };
const error = async (response) => `${response.status} ${(await response.json()).error}`;

const browser = new Browser();
const back = await browser.through(begin, "alice");
check("oidc-provider: it names itself", new URL(back).searchParams.get("iss") === issuer, back);
const mixed = new URL(back);
mixed.searchParams.set("state", `${mixed.searchParams.get("state").slice(0, -1)}_`);
const tampered = await error(await browser.fetch(mixed.href, asJson));
check("oidc-provider: a tampered state is refused", tampered === "400 invalid_state", tampered);
const stolen = await error(await new Browser().fetch(back, asJson));
check("oidc-provider: in another browser it is refused", stolen === "400 invalid_state", stolen);
const done = await browser.fetch(back);
check("oidc-provider: alice is signed in", done.status === 303, await done.clone().text());
const me = await (await browser.fetch(`${BASE}/t/${TENANT}/v1/me`)).json();
check("oidc-provider: under her own name", me.username === "alice", JSON.stringify(me));
const replayed = await error(await browser.fetch(back, asJson));
check("oidc-provider: a second time it is refused", replayed === "400 invalid_state", replayed);

const missing = await error(await (async (b) => b.fetch(await b.through(begin, "bob"), asJson))(new Browser()));
check("oidc-provider: without the required group bob is refused", missing === "403 missing_group", missing);

const program = new Browser();
const answer = await program.fetch(await program.through(`${begin}?into=tokens`, "alice"));
let tokens = await answer.json();
check("oidc-provider: tokens", answer.status === 200 && tokens.refresh_token, JSON.stringify(tokens));
const claims = JSON.parse(Buffer.from(tokens.access_token.split(".")[1], "base64url"));
check("oidc-provider: with the roles of the map", JSON.stringify(claims.roles) === '["hpc","user"]' && claims.sub === me.sub, JSON.stringify(claims));

const refresh = () =>
  fetch(`${BASE}/t/${TENANT}/v1/token/refresh`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ refresh_token: tokens.refresh_token }),
  });
for (const round of ["first", "second"]) {
  const next = await refresh();
  check(`oidc-provider: the ${round} refresh goes through it`, next.status === 200, await next.clone().text());
  tokens = await next.json();
}
people.alice.groups = ["staff"];
tokens = await (await refresh()).json();
const now = JSON.parse(Buffer.from(tokens.access_token.split(".")[1], "base64url"));
check("oidc-provider: a role goes with its group", JSON.stringify(now.roles) === '["user"]', JSON.stringify(now));
// On behalf of alice, a service has a token of the provider's own, which knows it.
claviger("connection", "set", "--tenant", TENANT, "--settings", '{"hand_out_tokens":true}', "corp");
claviger("app", "create", "--tenant", TENANT, "--name", "mailer");
const mailer = claviger("key", "create", "--tenant", TENANT, "--app", "mailer", "--scope", "tokens:upstream");
const asked = await fetch(`${BASE}/t/${TENANT}/v1/token`, {
  method: "POST",
  headers: { authorization: `Basic ${btoa(`${mailer.api_key}:${mailer.api_secret}`)}` },
  body: new URLSearchParams({
    grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
    subject_token: tokens.access_token,
    subject_token_type: "urn:ietf:params:oauth:token-type:access_token",
    requested_token_type: "urn:claviger:params:oauth:token-type:upstream-access-token",
  }),
});
check("oidc-provider: a token of its own, on behalf", asked.status === 200, await asked.clone().text());
const { access_token: theirs } = await asked.json();
const known = await fetch(`${issuer}/me`, { headers: { authorization: `Bearer ${theirs}` } });
check("oidc-provider: which it knows as hers", known.status === 200 && (await known.json()).sub === "alice", known.status);

away = true;
const unknown = await refresh();
check("oidc-provider: away, nobody says no", unknown.status === 503, await unknown.text());
away = false;
people.alice.groups = [];
const last = await refresh();
check("oidc-provider: without the group the login ends", last.status === 401, await last.text());
people.alice.groups = ["staff"];
check("oidc-provider: for good", (await refresh()).status === 401);

const off = claviger("connection", "set", "--tenant", TENANT, "--settings", '{"enabled":false}', "corp");
check("oidc-provider: disabled", off.enabled === false);
const ended = await browser.fetch(`${BASE}/t/${TENANT}/v1/me`);
check("oidc-provider: and its sessions have ended", ended.status === 401, ended.status);
server.close();
server.closeAllConnections();
