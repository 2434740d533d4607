// Draws Markdown as elements. A text that grows is drawn anew only from the block that changed.

import { button, fill, h } from "./dom.js";
import { parseBlocks } from "./markdown.js";

/** Show a text in an element; call again as it grows. */
export function drawProse(element, text) {
  const blocks = parseBlocks(text);
  const drawn = element.drawnBlocks ?? [];
  let same = 0;
  while (same < blocks.length && same < drawn.length && drawn[same].raw === blocks[same].raw) same++;
  for (const old of drawn.slice(same)) old.node.remove();
  element.drawnBlocks = drawn.slice(0, same);
  for (const block of blocks.slice(same)) {
    const node = blockNode(block);
    element.append(node);
    element.drawnBlocks.push({ raw: block.raw, node });
  }
}

/** Show something else in an element that `drawProse` was used on. */
export function drawOther(element, ...children) {
  element.drawnBlocks = [];
  fill(element, ...children);
}

const NODES = {
  paragraph: (block) => h("p", { dir: "auto" }, spanNodes(block.spans)),
  // The page's own headings end at level three.
  heading: (block) => h(`h${Math.min(6, block.level + 3)}`, { dir: "auto" }, spanNodes(block.spans)),
  rule: () => h("hr"),
  quote: (block) => h("blockquote", { dir: "auto" }, block.blocks.map(blockNode)),
  list: (block) =>
    h(
      block.ordered ? "ol" : "ul",
      { start: block.ordered && block.start !== 1 ? block.start : null, dir: "auto" },
      block.items.map((item) => h("li", {}, itemNodes(item))),
    ),
  code: codeNode,
  table: tableNode,
};

function blockNode(block) {
  return NODES[block.type](block);
}

/** An item of one paragraph needs no space around it. */
function itemNodes(blocks) {
  const [first, ...rest] = blocks;
  if (first?.type !== "paragraph") return blocks.map(blockNode);
  return [h("span", { dir: "auto" }, spanNodes(first.spans)), ...rest.map(blockNode)];
}

function codeNode(block) {
  const copy = button("Copy", () => {
    navigator.clipboard?.writeText(block.text).then(() => {
      copy.textContent = "Copied";
      setTimeout(() => (copy.textContent = "Copy"), 1500);
    });
  }, { class: "copy", "aria-label": "Copy code" });
  const label = h("span", { class: "language", text: block.language || "code" });
  const code = h("pre", { tabindex: 0, dir: "ltr", "aria-label": `Code: ${block.language || "plain"}`, role: "region" });
  code.append(h("code", { text: block.text }));
  return h("div", { class: "code" }, h("div", { class: "code-head" }, label, copy), code);
}

function tableNode(block) {
  const cell = (tag) => (spans, column) =>
    h(tag, { class: `align-${block.align[column] ?? "start"}`, dir: "auto", scope: tag === "th" ? "col" : null }, spanNodes(spans));
  const table = h(
    "table",
    {},
    h("thead", {}, h("tr", {}, block.head.map(cell("th")))),
    h("tbody", {}, block.rows.map((row) => h("tr", {}, row.map(cell("td"))))),
  );
  return h("div", { class: "table", tabindex: 0, role: "region", "aria-label": "Table" }, table);
}

const SPANS = {
  text: (span) => document.createTextNode(span.text),
  code: (span) => h("code", { text: span.text, dir: "ltr" }),
  strong: (span) => h("strong", {}, spanNodes(span.spans)),
  emphasis: (span) => h("em", {}, spanNodes(span.spans)),
  deleted: (span) => h("s", {}, spanNodes(span.spans)),
  break: () => h("br"),
  link: (span) =>
    h("a", { href: span.href, target: "_blank", rel: "noopener noreferrer nofollow", title: span.href }, spanNodes(span.spans)),
};

function spanNodes(spans) {
  return spans.map((span) => SPANS[span.type](span));
}
