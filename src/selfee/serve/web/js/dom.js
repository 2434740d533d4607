// Makes elements. Text is always text: there is no way here to turn a string into markup.

/** An element with properties and children; `on` holds listeners, `data` data attributes, null children are left out. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A button that says what it does; `hint` is its tooltip. */
export function button(label, listener, properties = {}) {
  return h("button", { type: "button", on: { click: listener }, ...properties }, label);
}

const SVG = "http://www.w3.org/2000/svg";

/** One of the page's own signs (see the sprite in index.html); hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Replace the children of an element only where they differ from what is there. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Tell screen readers; the words come once and are not shown. */
export function announce(text) {
  const region = document.getElementById("live");
  if (region) region.append(h("p", { text }));
  while (region && region.children.length > 4) region.firstElementChild.remove();
}

export function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}

/**
 * Make the children of an element anew only if `signature` is another than last time; whoever had the focus keeps it,
 * where a control of the same `data-act` is still there.
 */
export function renew(element, signature, make) {
  if (element.signature === signature) return;
  element.signature = signature;
  const held = element.contains(document.activeElement) ? document.activeElement.dataset.act : null;
  fill(element, make());
  if (held) (element.querySelector(`[data-act="${held}"]:not(:disabled)`) ?? element.querySelector("button"))?.focus();
}
