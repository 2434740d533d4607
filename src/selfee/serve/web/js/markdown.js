// Reads the Markdown that models write, into plain data. What it does not know stays text; HTML is always text.

const FENCE = /^( {0,3})(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}(?:(?:-\s*){3,}|(?:\*\s*){3,}|(?:_\s*){3,})$/;
const ITEM = /^(\s*)([-*+•]|\d{1,9}[.)])(\s+|$)(.*)$/;
const QUOTE = /^ {0,3}>\s?(.*)$/;
const TABLE_RULE = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const MOST_DEPTH = 12;

/**
 * Blocks of a text: `{type, …, raw}` with type paragraph, heading, code, rule, quote, list or table. `raw` is the
 * source, so that a growing text is drawn anew only from where it changed.
 */
export function parseBlocks(text, depth = 0) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at++;
      continue;
    }
    const reader = depth < MOST_DEPTH ? READERS.find(([starts]) => starts(lines, at)) : undefined;
    const [block, next] = (reader?.[1] ?? readParagraph)(lines, at, depth);
    block.raw = lines.slice(at, next).join("\n");
    blocks.push(block);
    at = next;
  }
  return blocks;
}

const READERS = [
  [(lines, at) => FENCE.test(lines[at]), readCode],
  [(lines, at) => HEADING.test(lines[at]), readHeading],
  [(lines, at) => RULE.test(lines[at]), (lines, at) => [{ type: "rule" }, at + 1]],
  [(lines, at) => QUOTE.test(lines[at]), readQuote],
  [(lines, at) => ITEM.test(lines[at]), readList],
  [startsTable, readTable],
];

function readCode(lines, at) {
  const [, indent, fence, info] = lines[at].match(FENCE);
  const closing = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}\\s*$`);
  const code = [];
  let next = at + 1;
  while (next < lines.length && !closing.test(lines[next])) {
    code.push(lines[next].replace(new RegExp(`^ {0,${indent.length}}`), ""));
    next++;
  }
  const closed = next < lines.length;
  return [{ type: "code", language: info.trim(), text: code.join("\n"), closed }, closed ? next + 1 : next];
}

function readHeading(lines, at) {
  const [, marks, text] = lines[at].match(HEADING);
  return [{ type: "heading", level: marks.length, spans: parseSpans(text) }, at + 1];
}

function readQuote(lines, at, depth) {
  const inner = [];
  let next = at;
  while (next < lines.length && QUOTE.test(lines[next])) inner.push(lines[next++].match(QUOTE)[1]);
  return [{ type: "quote", blocks: parseBlocks(inner.join("\n"), depth + 1) }, next];
}

function readList(lines, at, depth) {
  const [, first, mark] = lines[at].match(ITEM);
  const ordered = /\d/.test(mark);
  const items = [];
  let next = at;
  while (next < lines.length) {
    const match = lines[next].match(ITEM);
    if (!match || match[1].length > first.length + 1 || match[1].length < first.length) break;
    if (/\d/.test(match[2]) !== ordered || RULE.test(lines[next])) break;
    const width = match[1].length + match[2].length + Math.min(Math.max(match[3].length, 1), 4);
    const inner = [match[4]];
    next++;
    next = readItem(lines, next, first.length, width, inner);
    items.push(parseBlocks(inner.join("\n"), depth + 1));
    while (next < lines.length && !lines[next].trim() && ITEM.test(lines[next + 1] ?? "")) next++;
  }
  return [{ type: "list", ordered, start: ordered ? Number.parseInt(mark, 10) : 1, items }, next];
}

/** What belongs to an item beyond its first line: what is indented, and lazy lines of its paragraph. */
function readItem(lines, at, indent, width, inner) {
  let next = at;
  while (next < lines.length) {
    const line = lines[next];
    if (!line.trim()) {
      const after = lines.slice(next + 1).find((other) => other.trim());
      if (!after || leading(after) <= indent) break;
      inner.push("");
    } else if (leading(line) > indent + 1 || leading(line) >= width) {
      inner.push(line.slice(Math.min(width, leading(line))));
    } else if (ITEM.test(line) || startsBlock(lines, next) || !lines[next - 1].trim()) break;
    else inner.push(line.trim());
    next++;
  }
  return next;
}

const leading = (line) => line.length - line.trimStart().length;

function startsTable(lines, at) {
  const rule = lines[at + 1];
  return lines[at].includes("|") && rule !== undefined && rule.includes("-") && rule.includes("|") && TABLE_RULE.test(rule);
}

function readTable(lines, at) {
  const head = cells(lines[at]);
  const align = cells(lines[at + 1]).map((cell) => (/^:-+:$/.test(cell) ? "center" : /-:$/.test(cell) ? "end" : "start"));
  const rows = [];
  let next = at + 2;
  while (next < lines.length && lines[next].includes("|") && lines[next].trim()) rows.push(cells(lines[next++]));
  const spans = (row) => head.map((_, column) => parseSpans(row[column] ?? ""));
  return [{ type: "table", align, head: spans(head), rows: rows.map(spans) }, next];
}

function cells(line) {
  return line
    .trim()
    .replace(/^\||(?<!\\)\|$/g, "")
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim().replace(/\\\|/g, "|"));
}

function startsBlock(lines, at) {
  return READERS.some(([starts, read]) => read !== readList && starts(lines, at)) || interruptingItem(lines[at]);
}

// "1985. What a year" in the middle of a paragraph is no list.
const interruptingItem = (line) => /^ {0,3}(?:[-*+•]|1[.)])\s+\S/.test(line);

function readParagraph(lines, at) {
  let next = at + 1;
  while (next < lines.length && lines[next].trim() && !startsBlock(lines, next)) next++;
  return [{ type: "paragraph", spans: parseSpans(lines.slice(at, next).join("\n").trim()) }, next];
}

const SPANS = [
  [/^\\([!-/:-@[-`{-~])/, (m) => ({ type: "text", text: m[1] })],
  [/^(`+)(?!`)([^]*?[^`])\1(?!`)/, (m) => ({ type: "code", text: m[2].replace(/^ (.*[^ ].*) $/s, "$1") })],
  [/^!\[([^\]\n]{0,500})\]\(([^\s()]{1,2000})\)/, (m, depth) => link(m[1] || "image", m[2], depth)],
  [/^\[([^\]\n]{1,500})\]\(\s*<?([^\s()<>]{1,2000}(?:\([^\s()]{0,200}\))?)>?(?:\s+"[^"\n]{0,300}")?\s*\)/, (m, depth) => link(m[1], m[2], depth)],
  [/^<(https?:\/\/[^\s<>]{1,2000})>/, (m, depth) => link(m[1], m[1], depth)],
  [/^https?:\/\/[^\s<>"'`]{1,2000}[^\s<>"'`.,;:!?)\]*_]/, (m) => ({ type: "link", href: m[0], spans: [{ type: "text", text: m[0] }] })],
  [/^\*\*\*(?=\S)((?:[^*\n]|\*(?!\*\*)){1,4000}?\S)\*\*\*/, (m, depth) => ({ type: "strong", spans: [{ type: "emphasis", spans: parseSpans(m[1], depth + 1) }] })],
  [/^\*\*(?=\S)((?:[^*]|\*(?!\*)){0,4000}?\S)\*\*(?!\*)/, (m, depth) => ({ type: "strong", spans: parseSpans(m[1], depth + 1) })],
  [/^__(?=\S)((?:[^_]|_(?!_)){0,4000}?\S)__(?![\p{L}\p{N}])/u, (m, depth) => ({ type: "strong", spans: parseSpans(m[1], depth + 1) })],
  [/^~~(?=\S)([^~]{0,4000}?\S)~~/, (m, depth) => ({ type: "deleted", spans: parseSpans(m[1], depth + 1) })],
  [/^\*(?=[^\s*])([^*]{0,4000}?\S)\*(?!\*)/, (m, depth) => ({ type: "emphasis", spans: parseSpans(m[1], depth + 1) })],
  [/^_(?=[^\s_])([^_]{0,4000}?\S)_(?![\p{L}\p{N}_])/u, (m, depth) => ({ type: "emphasis", spans: parseSpans(m[1], depth + 1) })],
  [/^\\\n/, () => ({ type: "break" })],
];
const INTERESTING = /[\\`!\[<h*_~]/;

/** Spans of a line or paragraph: text, code, strong, emphasis, deleted, link and break. */
export function parseSpans(text, depth = 0) {
  if (depth > MOST_DEPTH) return [{ type: "text", text }];
  const spans = [];
  let plain = "";
  let at = 0;
  while (at < text.length) {
    const found = INTERESTING.test(text[at]) ? readSpan(text, at, depth) : null;
    if (text[at] === "\n" && plain.endsWith("  ")) {
      spans.push({ type: "text", text: plain.trimEnd() }, { type: "break" });
      plain = "";
      at++;
    } else if (found) {
      if (plain) spans.push({ type: "text", text: plain });
      plain = "";
      spans.push(found.span);
      at += found.length;
    } else plain += text[at++];
  }
  if (plain) spans.push({ type: "text", text: plain });
  return spans;
}

// No construct is longer: a text full of openings that never close costs a bounded time for each.
const MOST_SPAN = 8192;

function readSpan(text, at, depth) {
  const inWord = at > 0 && /[\p{L}\p{N}]/u.test(text[at - 1]);
  if (inWord && (text[at] === "_" || text[at] === "h")) return null;
  if (text[at] === "*" && at > 0 && /\d/.test(text[at - 1])) return null; // 2*3*4
  const rest = text.slice(at, at + MOST_SPAN);
  for (const [pattern, make] of SPANS) {
    const match = rest.match(pattern);
    if (match) return { span: make(match, depth), length: match[0].length };
  }
  return null;
}

/** A link to another site, or its words where the address is of any other kind. */
function link(words, href, depth) {
  const spans = parseSpans(words, depth + 1);
  return isSafe(href) ? { type: "link", href, spans } : { type: "text", text: `${words} (${href})` };
}

/** Only addresses that a person may well want to open: never javascript:, data: or a path of this server. */
export function isSafe(href) {
  if (!/^(?:https?:\/\/|mailto:)/i.test(href)) return false;
  try {
    return ["http:", "https:", "mailto:"].includes(new URL(href).protocol);
  } catch {
    return false;
  }
}
