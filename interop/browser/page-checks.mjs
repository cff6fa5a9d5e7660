// Looks at a page as it is laid out: what a tool for accessibility would ask, by hand.

/** Headings, labels, names, references, and anything that a strict policy would not allow. */
export const structure = (page) =>
  page.evaluate(() => {
    const all = (selector) => [...document.querySelectorAll(selector)];
    const told = (elements) => elements.map((element) => element.outerHTML);
    const ids = all("[id]").map(({ id }) => id);
    const references = ["for", "aria-describedby", "aria-labelledby"].flatMap((name) =>
      all(`[${name}]`).flatMap((element) => element.getAttribute(name).split(/\s+/)),
    );
    const handlers = all("*").filter(({ attributes }) =>
      [...attributes].some(({ name }) => name.startsWith("on") || name === "style"),
    );
    return {
      headings: all("h1").length,
      title: document.title.trim(),
      language: document.documentElement.lang,
      unlabelled: told(
        all("input:not([type=hidden]), select, textarea").filter(
          (input) => ![...input.labels].some((label) => label.innerText.trim()) && !input.getAttribute("aria-label"),
        ),
      ),
      unnamed: told(all("button, a").filter((target) => !target.innerText.trim())),
      doubles: ids.filter((id, index) => ids.indexOf(id) !== index),
      dangling: references.filter((id) => !document.getElementById(id)),
      inline: told([...all("script, style, iframe, object, embed"), ...handlers]),
    };
  });

/** By how many pixels the page is wider than its window. */
export const horizontalScroll = (page) =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

/** What is touched and is less than 44 pixels high. */
export const smallTargets = (page) =>
  page.evaluate(() =>
    [...document.querySelectorAll("button, a, input:not([type=hidden]):not([hidden])")]
      .map((target) => ({ name: target.name || target.innerText, height: target.getBoundingClientRect().height }))
      .filter(({ height }) => height < 44),
  );

/** The contrast (WCAG 2.2, "contrast ratio") of every visible text with what is behind it, and of every field's edge. */
export const contrasts = (page) =>
  page.evaluate(() => {
    const rgba = (css) => {
      const [r, g, b, a = 1] = css.match(/^rgba?\((.*)\)$/)[1].split(/[ ,/]+/).map(Number);
      return { r, g, b, a };
    };
    const over = (top, below) => ({
      r: top.r * top.a + below.r * (1 - top.a),
      g: top.g * top.a + below.g * (1 - top.a),
      b: top.b * top.a + below.b * (1 - top.a),
      a: 1,
    });
    const behind = (element) => {
      const layers = [];
      for (let at = element; at; at = at.parentElement) layers.unshift(rgba(getComputedStyle(at).backgroundColor));
      return layers.reduce((below, layer) => over(layer, below), { r: 255, g: 255, b: 255, a: 1 });
    };
    const luminance = ({ r, g, b }) => {
      const [x, y, z] = [r, g, b]
        .map((channel) => channel / 255)
        .map((channel) => (channel <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4));
      return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const ratio = (one, other) => {
      const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
      return (light + 0.05) / (dark + 0.05);
    };

    const texts = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const text = walker.currentNode.data.trim();
      const element = walker.currentNode.parentElement;
      if (!text || !element.checkVisibility()) continue;
      const below = behind(element);
      texts.push({ text, ratio: ratio(over(rgba(getComputedStyle(element).color), below), below) });
    }
    const edges = [];
    for (const input of document.querySelectorAll("input:not([type=hidden]):not([hidden])")) {
      const below = behind(input.parentElement);
      const { borderTopColor, color } = getComputedStyle(input);
      edges.push({ text: `edge of ${input.name}`, ratio: ratio(over(rgba(borderTopColor), below), below) });
      const field = behind(input);
      texts.push({ text: `what is typed into ${input.name}`, ratio: ratio(over(rgba(color), field), field) });
    }
    return { texts, edges };
  });
