// A site of somebody else: it shows one form, which leads to ours.

import { createServer } from "node:http";

const escape = (text) => text.replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`);

const formPage = (action, fields) => {
  const inputs = Object.entries(fields)
    .map(([name, value]) => `<input type="hidden" name="${escape(name)}" value="${escape(value)}">`)
    .join("");
  return `<!doctype html><title>Win a prize</title><form method="post" action="${escape(action)}">${inputs}<button>Win</button></form>`;
};

export class AttackingSite {
  #server;

  static async start() {
    const site = new AttackingSite();
    site.#server = createServer((request, response) => {
      const form = new URL(request.url, site.elsewhere).searchParams.get("form");
      if (!form) return response.writeHead(404).end();
      const { action, fields } = JSON.parse(form);
      response.setHeader("content-type", "text/html; charset=utf-8");
      response.end(formPage(action, fields));
    });
    await new Promise((listening) => site.#server.listen(0, "127.0.0.1", listening));
    const { port } = site.#server.address();
    /** Another site than 127.0.0.1. */
    site.elsewhere = `http://localhost:${port}`;
    /** Another origin of the same site. */
    site.neighbour = `http://127.0.0.1:${port}`;
    return site;
  }

  /** The address of a page with the form; on no site at all where `site` is null. */
  form(site, action, fields) {
    if (site === null) return `data:text/html;charset=utf-8,${encodeURIComponent(formPage(action, fields))}`;
    return `${site}/?form=${encodeURIComponent(JSON.stringify({ action, fields }))}`;
  }

  async stop() {
    this.#server.closeAllConnections();
    await new Promise((closed) => this.#server.close(closed));
  }
}
