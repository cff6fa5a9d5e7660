// Drives the login pages of a running server in a real headless Chromium, as a person would, and as an attacker would.
// One line for each check; exits 1 if any failed.
//
//   BASE=http://127.0.0.1:8080 TENANT=default USERNAME=alice PASSWORD=... node run.mjs
//
// MARKUP_TENANT  a tenant whose name for people is markup: its login page must show the name and nothing else
// FEDERATED_TENANT, PROVIDER  a tenant with the same user, and the issuer of its connection, where a provider is started here
// CHROMIUM       the browser [default: /usr/bin/chromium]
// SCREENSHOTS    the folder for the pictures [default: target/browser of this repository]
//
// The user's password is changed and changed back. Three passwords are typed wrong.

import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import path from "node:path";
import { chromium } from "playwright-core";
import { AttackingSite } from "./attack.mjs";
import { Checks } from "./checks.mjs";
import { Provider } from "./provider.mjs";
import { contrasts, horizontalScroll, smallTargets, structure } from "./page-checks.mjs";

const fromEnvironment = (name) => {
  const value = process.env[name];
  if (!value) {
    console.error(`browser: ${name} is not set; see the head of run.mjs`);
    process.exit(2);
  }
  return value;
};

const origin = new URL(fromEnvironment("BASE")).origin;
const tenant = fromEnvironment("TENANT");
const username = fromEnvironment("USERNAME");
const password = fromEnvironment("PASSWORD");
const markupTenant = process.env.MARKUP_TENANT;
const federatedTenant = process.env.FEDERATED_TENANT;
const screenshots =
  process.env.SCREENSHOTS ?? fileURLToPath(new URL("../../target/browser", import.meta.url));

const base = `/t/${tenant}`;
const at = (path) => origin + path;
const wrongPassword = "not the password of anybody";
// Long enough for a loaded machine; nothing here waits that long when all is well.
const patience = 20_000;
const phones = [
  { width: 375, height: 700 },
  { width: 320, height: 640 },
];

mkdirSync(screenshots, { recursive: true });
const checks = new Checks();
const attacker = await AttackingSite.start();
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // What is asked here is on this machine, and nothing else is asked.
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE " + new URL(origin).hostname,
  ],
});

/** A browser of its own: no cookies; what its pages complain of is collected. */
async function open(options = {}) {
  // Without motion, as its user may wish: colours are what they will be as soon as they change.
  const context = await browser.newContext({ viewport: { width: 1024, height: 800 }, reducedMotion: "reduce", ...options });
  context.setDefaultTimeout(patience);
  const heard = [];
  // Where scripts are off, none of ours can listen, but what a page complains of is still written to the console.
  await context.exposeFunction("reportViolation", (what) => heard.push({ text: what }));
  await context.addInitScript(() => {
    window.shifts = 0;
    document.addEventListener("securitypolicyviolation", (event) =>
      window.reportViolation(`policy: ${event.violatedDirective} ${event.blockedURI}`),
    );
    new PerformanceObserver((list) => {
      for (const shift of list.getEntries()) window.shifts += shift.value;
    }).observe({ type: "layout-shift", buffered: true });
  });
  // A document that answers 4xx is written to the console as well: those are looked at by their status.
  const refused = new Set();
  context.on("response", (response) => {
    if (response.request().isNavigationRequest() && response.status() < 500) refused.add(response.url());
  });
  context.on("console", (message) => {
    const { url } = message.location();
    if (["error", "warning"].includes(message.type())) heard.push({ text: message.text(), url });
  });
  context.on("weberror", (error) => heard.push({ text: String(error.error()) }));
  const complaints = () =>
    heard
      .filter(({ text, url }) => !(refused.has(url) && /^Failed to load resource: .* status of 4\d\d /.test(text)))
      .map(({ text }) => text);
  const page = await context.newPage();
  return { context, page, complaints };
}

/** Does something that leads to a new page, and answers with that page's response (the last, after redirects). */
async function following(page, deed) {
  const [response] = await Promise.all([page.waitForNavigation({ waitUntil: "load" }), deed()]);
  return response;
}

const press = (page, name) =>
  following(page, () => page.getByRole("button", { name, exact: true }).click());

async function fillIn(page, name, secret) {
  await page.getByLabel("Username").fill(name);
  await page.getByLabel("Password", { exact: true }).fill(secret);
}

async function signIn(page, { query = "", secret = password } = {}) {
  await page.goto(at(`${base}/login${query}`));
  await fillIn(page, username, secret);
  return press(page, "Sign in");
}

const whereAmI = (page) => {
  const { origin: here, pathname } = new URL(page.url());
  return here === origin ? pathname : page.url();
};

/** Whether the account page is shown, asked for anew. */
async function signedIn(page) {
  await page.goto(at(`${base}/account`));
  return whereAmI(page) === `${base}/account`;
}

async function picture(page, name) {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: path.join(screenshots, `${name}-${colorScheme}.png`), fullPage: true });
  }
  await page.emulateMedia({ colorScheme: "light" });
}

/** What must hold of every page, whatever it is for. */
async function inspect(page, name) {
  const { headings, title, language, unlabelled, doubles, dangling, inline, unnamed } =
    await structure(page);
  checks.equal(`${name}: one h1`, headings, 1);
  checks.equal(`${name}: says its language`, language, "en");
  checks.true(`${name}: has a title`, title.length > 0, title);
  checks.equal(`${name}: every input has a label`, unlabelled, []);
  checks.equal(`${name}: every button and link has a name`, unnamed, []);
  checks.equal(`${name}: no id is there twice`, doubles, []);
  checks.equal(`${name}: every reference leads to an element`, dangling, []);
  checks.equal(`${name}: no script and no inline style`, inline, []);

  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    const { texts, edges } = await contrasts(page);
    const low = [...texts.filter(({ ratio }) => ratio < 4.5), ...edges.filter(({ ratio }) => ratio < 3)];
    const lowest = Math.min(...texts.map(({ ratio }) => ratio)).toFixed(1);
    checks.true(`${name}, ${colorScheme}: texts were measured`, texts.length > 0);
    checks.equal(`${name}, ${colorScheme}: contrast, lowest ${lowest}`, low, []);
  }
  await page.emulateMedia({ colorScheme: "light" });

  const desk = page.viewportSize();
  for (const phone of phones) {
    await page.setViewportSize(phone);
    checks.equal(`${name}, ${phone.width} wide: no sideways scrolling`, await horizontalScroll(page), 0);
    checks.equal(`${name}, ${phone.width} wide: all targets are 44 high`, await smallTargets(page), []);
    if (phone.width === 375) await picture(page, `${name.replaceAll(" ", "-")}-phone`);
  }
  // 200 % zoom of a 640 wide window is the 320 wide one above; this is text alone enlarged to twice its size.
  await page.evaluate(() => (document.documentElement.style.fontSize = "200%"));
  checks.equal(`${name}, 320 wide, text twice as large: no sideways scrolling`, await horizontalScroll(page), 0);
  await page.evaluate(() => document.documentElement.removeAttribute("style"));
  await page.setViewportSize(desk);
  await picture(page, name.replaceAll(" ", "-"));
}

async function theWayIn() {
  const { context, page, complaints } = await open();
  let formOrigin;
  page.on("request", async (request) => {
    if (request.method() === "POST") formOrigin = (await request.allHeaders()).origin;
  });

  const shown = await page.goto(at(`${base}/login`));
  checks.equal("login page: status", shown.status(), 200);
  const headers = shown.headers();
  checks.match("login page: HTML", headers["content-type"], /^text\/html; *charset=utf-8$/i);
  const policy = headers["content-security-policy"] ?? "";
  checks.match("login page: policy closes everything by default", policy, /default-src 'none'/);
  checks.true("login page: policy allows no script and nothing unsafe", !/script-src|unsafe/.test(policy), policy);
  checks.match("login page: may not be framed", policy, /frame-ancestors 'none'/);
  checks.match("login page: is not kept", headers["cache-control"], /no-store/);
  checks.equal("login page: the style sheet applies", await page.locator("main").evaluate(
    (main) => getComputedStyle(main).maxWidth !== "none"), true);
  checks.equal("login page: nothing moves while it loads", await page.evaluate(() => window.shifts), 0);
  checks.equal("login page: nothing moves for those who do not wish it", await page.locator("*").evaluateAll(
    (all) => all.filter((one) => parseFloat(getComputedStyle(one).transitionDuration) > 0).length), 0);
  await inspect(page, "login");
  const before = await context.cookies();

  await fillIn(page, username, wrongPassword);
  const refused = await press(page, "Sign in");
  checks.equal("wrong password: status", refused.status(), 401);
  checks.equal("wrong password: the browser tells the form's origin", formOrigin, origin);
  checks.equal("wrong password: still the login page", whereAmI(page), `${base}/login`);
  const alert = page.getByRole("alert");
  checks.true("wrong password: says so", (await alert.innerText()).trim().length > 0, await alert.innerText());
  checks.equal("wrong password: the name is kept", await page.getByLabel("Username").inputValue(), username);
  checks.equal("wrong password: the password is not", await page.getByLabel("Password", { exact: true }).inputValue(), "");
  checks.true("wrong password: not in the page at all", !(await page.content()).includes(wrongPassword));
  const needed = page.locator(":focus");
  checks.equal("wrong password: the password has the focus", await needed.getAttribute("name"), "password");
  const described = await needed.getAttribute("aria-describedby");
  checks.equal("wrong password: it refers to the problem", described, await alert.getAttribute("id"));
  checks.match("wrong password: the title says so", await page.title(), /^Problem: /);
  await inspect(page, "login error");

  await fillIn(page, username, password);
  const accepted = await press(page, "Sign in");
  checks.equal("right password: status", accepted.status(), 200);
  checks.equal("right password: on the account page", whereAmI(page), `${base}/account`);
  checks.true("right password: says who", (await page.locator("main").innerText()).includes(username));
  await inspect(page, "account");

  const old = new Set(before.map(({ name, value }) => `${name}=${value}`));
  const fresh = (await context.cookies()).filter(({ name, value }) => !old.has(`${name}=${value}`));
  checks.true("cookies: login sets at least one", fresh.length > 0);
  for (const { name, httpOnly, secure, path, domain, sameSite, value } of fresh) {
    checks.match(`cookie ${name}: bound to the host`, name, /^__Host-/);
    checks.equal(`cookie ${name}: attributes`, { httpOnly, secure, path }, { httpOnly: true, secure: true, path: "/" });
    checks.equal(`cookie ${name}: no domain`, domain, new URL(origin).hostname);
    checks.match(`cookie ${name}: same site`, sameSite, /^(Lax|Strict)$/);
    checks.true(`cookie ${name}: short enough to be kept`, name.length + value.length <= 4096);
    checks.true(`cookie ${name}: 128 bits or more`, value.length >= 22, `${value.length} characters`);
  }
  checks.true("cookies: the session's is Lax, so that a link leads to an account that is signed in",
    fresh.some(({ sameSite }) => sameSite === "Lax"));
  checks.equal("no complaints of the browser", complaints(), []);
  return { context, page, complaints, cookies: await context.cookies() };
}

async function theWayOut({ context, page, complaints, cookies }) {
  const confirmation = await page.goto(at(`${base}/logout`));
  checks.equal("logout page: status", confirmation.status(), 200);
  checks.match("logout page: asks", await page.getByRole("heading", { level: 1 }).innerText(), /sign out.*\?/i);
  await inspect(page, "logout");
  await following(page, () => page.getByRole("link").first().click());
  checks.equal("logout page: the way back", whereAmI(page), `${base}/account`);

  const done = await press(page, "Sign out");
  checks.equal("sign out: status", done.status(), 200);
  await inspect(page, "signed out");
  await page.goBack();
  checks.true("sign out: the browser's way back shows no account", whereAmI(page) !== `${base}/account`, page.url());
  checks.true("sign out: the account page is not shown", !(await signedIn(page)), page.url());
  checks.equal("sign out: the login page is shown instead", whereAmI(page), `${base}/login`);
  checks.equal("sign out: no complaints of the browser", complaints(), []);
  await context.close();

  const thief = await open();
  await thief.context.addCookies(cookies);
  checks.true("sign out: the old cookies are worth nothing", !(await signedIn(thief.page)));
  await thief.context.close();
}

async function withoutScripts() {
  const { context, page, complaints } = await open({ javaScriptEnabled: false });
  const typed = '"><img src=x onerror=alert(1)>';
  await page.goto(at(`${base}/login`));
  await fillIn(page, typed, wrongPassword);
  const refused = await press(page, "Sign in");
  checks.equal("no scripts: wrong password", refused.status(), 401);
  checks.equal("no scripts: what was typed is kept as text", await page.getByLabel("Username").inputValue(), typed);
  checks.equal("no scripts: and is nothing else", await page.locator("img").count(), 0);
  await fillIn(page, username, password);
  await press(page, "Sign in");
  checks.equal("no scripts: right password", whereAmI(page), `${base}/account`);
  await press(page, "Sign out");
  checks.true("no scripts: sign out", !(await signedIn(page)));
  checks.equal("no scripts: no complaints of the browser", complaints(), []);
  await context.close();
}

async function byKeyboard() {
  const { context, page } = await open();
  const focused = () =>
    page.evaluate(() => {
      const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
      return {
        name: document.activeElement.name || document.activeElement.innerText,
        seen: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2,
      };
    });
  await page.goto(at(`${base}/login`));
  checks.equal("keyboard: begins at the name", await focused(), { name: "username", seen: true });
  await page.keyboard.type(username);
  await page.keyboard.press("Tab");
  checks.equal("keyboard: then the password", await focused(), { name: "password", seen: true });
  await page.keyboard.press("Tab");
  checks.equal("keyboard: then the button", await focused(), { name: "Sign in", seen: true });
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.type(password);
  await following(page, () => page.keyboard.press("Enter"));
  checks.equal("keyboard: Enter signs in", whereAmI(page), `${base}/account`);

  const targets = "button, a[href], input:not([type=hidden]):not([hidden])";
  const wanted = await page.locator(targets).evaluateAll((all) => all.map((one) => one.name || one.innerText));
  const reached = [];
  for (let i = 0; i < wanted.length; i++) {
    await page.keyboard.press("Tab");
    reached.push(await focused());
  }
  checks.equal("keyboard: Tab goes through the account page in its order", reached.map(({ name }) => name), wanted);
  checks.true("keyboard: one sees where one is", reached.every(({ seen }) => seen));
  await context.close();
}

async function returnTargets() {
  const landed = async (target) => {
    const { context, page } = await open();
    await page.goto(at(`${base}/login?return_to=${encodeURIComponent(target)}`));
    await fillIn(page, username, password);
    const answered = page.waitForResponse((response) => response.request().method() === "POST");
    const arrived = press(page, "Sign in").catch(() => null);
    const answer = await answered.catch(() => null);
    // The browser keeps to itself an answer whose redirect the page's policy forbids: it should not have been made.
    if (!answer) return context.close().then(() => "elsewhere, which the policy forbids");
    // As the browser reads it.
    const told = new URL(answer.headers().location ?? "about:blank", page.url());
    if (told.origin === origin) await arrived;
    const { pathname, search } = new URL(page.url());
    const landing = told.origin === origin && page.url() === told.href ? pathname + search : told.href;
    await context.close();
    await arrived;
    return landing;
  };
  const relative = `${base}/account?from=elsewhere`;
  checks.equal(`return target ${relative}`, await landed(relative), relative);
  for (const target of ["//evil.test", "https://evil.test", "/\\evil.test", "javascript:alert(1)", "/\t/evil.test"]) {
    checks.equal(`return target ${JSON.stringify(target)}`, await landed(target), `${base}/account`);
  }
}

/** Forms of other sites, sent by the browser of somebody who is signed in. */
async function forgedForms() {
  const { context, page } = await open();
  await signIn(page);
  const token = await page.locator("form[action$='/logout'] input[name=csrf]").inputValue();

  // Ports do not count for the site: from 127.0.0.1 a Lax cookie is sent along, from localhost it is not.
  const sites = [
    ["another site", attacker.elsewhere],
    ["the same site, another origin", attacker.neighbour],
    ["a data: address", null],
  ];
  const from = async (site, action, fields) => {
    const attack = attacker.form(site, at(action), fields);
    await page.goto(attack);
    return following(page, () => page.getByRole("button").click());
  };
  for (const [name, site] of sites) {
    const response = await from(site, `${base}/logout`, {});
    const heading = response.status() === 200 ? await page.getByRole("heading", { level: 1 }).innerText() : "";
    checks.true(`forged logout from ${name}: asks, or refuses`,
      response.status() === 403 || /sign out.*\?/i.test(heading), `${response.status()} ${heading}`);
    checks.true(`forged logout from ${name}: still signed in`, await signedIn(page));

    const everywhere = await from(site, `${base}/account/end-all`, {});
    checks.true(`forged end of all sessions from ${name}: not done`, everywhere.status() >= 400 || whereAmI(page) === `${base}/login`,
      `${everywhere.status()} ${page.url()}`);
    checks.true(`forged end of all sessions from ${name}: still signed in`, await signedIn(page));

    // With all that a form of ours would hold: where it comes from must count too.
    await from(site, `${base}/account/end-all`, { csrf: token });
    checks.true(`forged end of all sessions from ${name}, with the token: still signed in`, await signedIn(page));
  }
  await context.close();

  for (const [name, site] of sites) {
    const victim = await open();
    await victim.page.goto(at(`${base}/login`));
    const csrf = await victim.page.locator("input[name=csrf]").inputValue();
    for (const [how, fields] of [["", {}], [", with the token", { csrf }]]) {
      await victim.page.goto(attacker.form(site, at(`${base}/login`), { username, password, ...fields }));
      const response = await following(victim.page, () => victim.page.getByRole("button").click());
      checks.equal(`forged login from ${name}${how}: refused`, response.status(), 403);
      checks.true(`forged login from ${name}${how}: nobody is signed in`, !(await signedIn(victim.page)));
    }
    await victim.context.close();
  }

  const { context: ours, page: form } = await open();
  await form.goto(at(`${base}/login`));
  await form.locator("input[name=csrf]").evaluate((input) => (input.value = "forged"));
  await fillIn(form, username, password);
  const response = await press(form, "Sign in");
  checks.equal("our own form with another token: refused", response.status(), 403);
  await inspect(form, "refused");
  checks.true("our own form with another token: nobody is signed in", !(await signedIn(form)));
  await ours.close();
}

async function theAccountsOwnForms() {
  const desk = await open();
  const phone = await open();
  const lines = desk.page.getByRole("listitem");
  const listed = async () => {
    await desk.page.goto(at(`${base}/account`));
    return lines.locator("input[name=id]").evaluateAll((all) => all.map((input) => input.value));
  };
  await signIn(desk.page);
  const without = await listed();
  await signIn(phone.page);
  const together = await listed();
  const many = together.length;
  const added = together.filter((id) => !without.includes(id));
  checks.equal("sessions: the other device is one more", [added.length, many], [1, without.length + 1]);
  checks.equal("sessions: one is marked as this one", await desk.page.locator("li[aria-current=true]").count(), 1);
  const other = lines.filter({ has: desk.page.locator(`input[name=id][value="${added[0]}"]`) });
  const times = await desk.page.locator("time").evaluateAll((all) => all.map((time) => time.dateTime));
  checks.true("sessions: programs can read the times", times.length === 2 * many && times.every((time) => !Number.isNaN(Date.parse(time))), times);
  await following(desk.page, () => other.getByRole("button").click());
  checks.equal("end a session: one fewer", await lines.count(), many - 1);
  checks.true("end a session: it is over there", !(await signedIn(phone.page)));
  checks.true("end a session: not here", await signedIn(desk.page));

  const changePassword = async (from, to) => {
    await desk.page.getByLabel("Current password").fill(from);
    await desk.page.getByLabel("New password").fill(to);
    return press(desk.page, "Change password");
  };
  const next = randomBytes(18).toString("base64url");
  await changePassword(password, "short");
  const alert = desk.page.getByRole("alert");
  checks.true("change password: a short one is refused", (await alert.count()) === 1);
  checks.equal("change password: the form has the focus", await desk.page.locator(":focus").getAttribute("name"), "current_password");
  await inspect(desk.page, "account error");
  await signIn(phone.page);
  await changePassword(password, next);
  checks.equal("change password: done", await alert.count(), 0);
  checks.true("change password: the other device is signed out", !(await signedIn(phone.page)));
  await signIn(phone.page);
  checks.equal("change password: the old one is refused", whereAmI(phone.page), `${base}/login`);
  await signIn(phone.page, { secret: next });
  checks.equal("change password: the new one is accepted", whereAmI(phone.page), `${base}/account`);

  // Whether a change ends the session that it was made in is not said here.
  const stay = async (secret) => {
    if (!(await signedIn(desk.page))) await signIn(desk.page, { secret });
    checks.true("change password: here one is, or can be, signed in", whereAmI(desk.page) === `${base}/account`);
  };
  await stay(next);
  await changePassword(next, password);
  await stay(password);
  checks.true("change password: back again, the other device is signed out", !(await signedIn(phone.page)));
  await signIn(phone.page);
  checks.equal("change password: back again", whereAmI(phone.page), `${base}/account`);

  await press(desk.page, "Sign out everywhere");
  checks.true("sign out everywhere: here", !(await signedIn(desk.page)));
  checks.true("sign out everywhere: there", !(await signedIn(phone.page)));
  checks.equal("account forms: no complaints of the browser", [...desk.complaints(), ...phone.complaints()], []);
  await desk.context.close();
  await phone.context.close();
}

async function aNameThatIsMarkup() {
  const { context, page, complaints } = await open();
  await page.goto(at(`/t/${markupTenant}/login`));
  const heading = await page.getByRole("heading", { level: 1 }).innerText();
  checks.match("a tenant's name that is markup: shown as it is", heading, /<script/);
  checks.equal("a tenant's name that is markup: is nothing else", await page.locator("script, body img, svg").count(), 0);
  await inspect(page, "markup");
  checks.equal("a tenant's name that is markup: no complaints of the browser", complaints(), []);
  await context.close();
}

/** The way in through a tenant's own provider, and one's own account linked to it. */
async function throughAProvider() {
  const provider = await Provider.start(fromEnvironment("PROVIDER"), ["carol", "somebody"]);
  const home = `/t/${federatedTenant}`;
  const follow = (page, name) => following(page, () => page.getByRole("link", { name, exact: true }).click());
  const { context, page, complaints } = await open();
  await page.goto(at(`${home}/login?return_to=${home}/account%3Ffrom=login`));
  const offered = page.getByRole("link", { name: "Continue with Corp & Sons", exact: true });
  checks.equal("provider: the login page offers it", await offered.count(), 1);
  await inspect(page, "login with a provider");
  await follow(page, "Continue with Corp & Sons");
  checks.equal("provider: the browser is there", new URL(page.url()).origin, provider.issuer);
  await follow(page, "I am carol");
  checks.equal("provider: and comes back to where it was going", page.url(), at(`${home}/account?from=login`));
  checks.match("provider: signed in", await page.locator("main").innerText(), /as carol/);
  await inspect(page, "account with a provider");
  await press(page, "Sign out");
  // The address of the answer is worth nothing a second time.
  await page.goto(at(`${home}/login/corp/callback?code=x&state=x`));
  checks.match("provider: what belongs to no sign-in is told as such", await page.locator("main").innerText(), /Begin again/);
  await inspect(page, "refused by a provider");

  await page.goto(at(`${home}/login`));
  await fillIn(page, username, password);
  await press(page, "Sign in");
  await page.getByLabel("Current password, to link or unlink").fill(wrongPassword);
  await press(page, "Link Corp & Sons");
  checks.true("provider: nothing is linked without the password", (await page.getByRole("alert").count()) === 1);
  await inspect(page, "link refused");
  await page.getByLabel("Current password, to link or unlink").fill(password);
  await press(page, "Link Corp & Sons");
  await inspect(page, "link");
  await follow(page, "Continue");
  await follow(page, "I am somebody");
  checks.match("provider: linked", await page.locator("main").innerText(), /Linked, as somebody/);
  await press(page, "Sign out");
  await page.goto(at(`${home}/login`));
  await follow(page, "Continue with Corp & Sons");
  await follow(page, "I am somebody");
  checks.true("provider: a way into one's own account", (await page.locator("main").innerText()).includes(`as ${username}`));
  checks.equal("provider: no complaints of the browser", complaints(), []);
  await context.close();
  await provider.stop();
}

try {
  const session = await theWayIn();
  await theWayOut(session);
  await withoutScripts();
  await byKeyboard();
  await returnTargets();
  await forgedForms();
  await theAccountsOwnForms();
  if (markupTenant) await aNameThatIsMarkup();
  if (federatedTenant) await throughAProvider();
} catch (error) {
  checks.fail("the drive itself", error.stack);
} finally {
  await browser.close();
  await attacker.stop();
}
process.exit(checks.summary() ? 0 : 1);
