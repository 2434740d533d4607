// What changed between two texts, word by word: the shortest edit script (Myers 1986, in linear space).

const WORDS =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Khmer}\p{Script=Lao}]|[\p{L}\p{M}\p{N}_]+(?:['’][\p{L}\p{M}\p{N}]+)*|[^\S\n]+|\n|[^]/gu;

/** Words, runs of blanks, line breaks and single signs; joined they give the text again. */
export function words(text) {
  return text.match(WORDS) ?? [];
}

/**
 * The changes that lead from one text to another: `[{kind: "same" | "removed" | "added", text}]`, neighbours of a kind
 * joined. Same and removed joined give `before`, same and added joined give `after`.
 */
export function diffWords(before, after) {
  const old = words(before);
  const fresh = words(after);
  return gather(diff(old, fresh));
}

/** As `diffWords`, but a word or two kept in the midst of a rewritten passage belong to the passage: easier to read. */
export function readableChanges(before, after) {
  return gather(bridge(diff(words(before), words(after))));
}

/** How many words (not blanks or signs) were added, removed and kept. */
export function countWords(changes) {
  const count = { added: 0, removed: 0, same: 0 };
  for (const { kind, text } of changes) {
    count[kind] += words(text).filter((word) => /[\p{L}\p{N}]/u.test(word)).length;
  }
  return { added: count.added, removed: count.removed, kept: count.same };
}

/** The edit script of two lists of words, as `[kind, word]` pairs. */
export function diff(old, fresh, mostSteps = MOST_STEPS) {
  const ids = new Map();
  const number = (word) => ids.get(word) ?? ids.set(word, ids.size).get(word);
  const a = Int32Array.from(old, number);
  const b = Int32Array.from(fresh, number);
  const keptOld = new Uint8Array(a.length);
  const keptFresh = new Uint8Array(b.length);
  matchRange(a, b, { a0: 0, a1: a.length, b0: 0, b1: b.length }, keptOld, keptFresh, mostSteps);
  const script = [];
  let i = 0;
  let j = 0;
  while (i < old.length || j < fresh.length) {
    if (i < old.length && !keptOld[i]) script.push(["removed", old[i++]]);
    else if (j < fresh.length && !keptFresh[j]) script.push(["added", fresh[j++]]);
    else {
      script.push(["same", fresh[j]]);
      i++;
      j++;
    }
  }
  return script;
}

// Texts that differ more are not searched for their shortest script: nobody could read it.
const MOST_STEPS = 3000;

function matchRange(a, b, whole, keptOld, keptFresh, mostSteps) {
  const open = [whole];
  while (open.length) {
    let { a0, a1, b0, b1 } = open.pop();
    while (a0 < a1 && b0 < b1 && a[a0] === b[b0]) keptOld[a0++] = keptFresh[b0++] = 1;
    while (a0 < a1 && b0 < b1 && a[a1 - 1] === b[b1 - 1]) keptOld[--a1] = keptFresh[--b1] = 1;
    if (a0 === a1 || b0 === b1) continue;
    const snake = middleSnake(a, b, a0, a1, b0, b1, mostSteps);
    if (!snake) continue;
    const { x, y, u, v } = snake;
    for (let k = 0; k < u - x; k++) keptOld[x + k] = keptFresh[y + k] = 1;
    open.push({ a0, a1: x, b0, b1: y }, { a0: u, a1, b0: v, b1 });
  }
}

/** A run of matches in the middle of a shortest script of this box, from (x, y) to (u, v); null if it is too long. */
function middleSnake(a, b, a0, a1, b0, b1, mostSteps) {
  const n = a1 - a0;
  const m = b1 - b0;
  const most = Math.min(Math.ceil((n + m) / 2), mostSteps);
  const delta = n - m;
  const odd = (delta & 1) !== 0;
  const offset = most + 1;
  const forward = new Int32Array(2 * offset + 1);
  const backward = new Int32Array(2 * offset + 1);
  for (let d = 0; d <= most; d++) {
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && forward[offset + k - 1] < forward[offset + k + 1]);
      let x = down ? forward[offset + k + 1] : forward[offset + k - 1] + 1;
      const start = x;
      while (x < n && x - k < m && x - k >= 0 && a[a0 + x] === b[b0 + x - k]) x++;
      forward[offset + k] = x;
      const other = delta - k;
      if (odd && other >= 1 - d && other <= d - 1 && x + backward[offset + other] >= n) {
        return { x: a0 + start, y: b0 + start - k, u: a0 + x, v: b0 + x - k };
      }
    }
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && backward[offset + k - 1] < backward[offset + k + 1]);
      let x = down ? backward[offset + k + 1] : backward[offset + k - 1] + 1;
      const start = x;
      while (x < n && x - k < m && x - k >= 0 && a[a1 - 1 - x] === b[b1 - 1 - (x - k)]) x++;
      backward[offset + k] = x;
      const other = delta - k;
      if (!odd && other >= -d && other <= d && x + forward[offset + other] >= n) {
        return { x: a1 - x, y: b1 - (x - k), u: a1 - start, v: b1 - (start - k) };
      }
    }
  }
  return null;
}

const MOST_BRIDGED = 2; // words
const isWord = (text) => /[\p{L}\p{N}]/u.test(text);

/** Short runs that stayed between two changes, told as removed and added: first blanks and signs, then a word or two. */
function bridge(script) {
  const joined = dissolve(script, (run) => run.words === 0);
  return dissolve(joined, (run, before, after) => {
    return run.words <= MOST_BRIDGED && before.words + after.words >= 4 * run.words + 2;
  });
}

function dissolve(script, belongs) {
  const runs = [];
  for (const [kind, word] of script) {
    const isSame = kind === "same";
    if (runs.at(-1)?.isSame !== isSame) runs.push({ isSame, pairs: [], words: 0 });
    runs.at(-1).pairs.push([kind, word]);
    runs.at(-1).words += isWord(word) ? 1 : 0;
  }
  return runs.flatMap((run, at) => {
    const [before, after] = [runs[at - 1], runs[at + 1]];
    const stays = !run.isSame || !before || !after || run.pairs.some(([, word]) => word === "\n");
    if (stays || !belongs(run, before, after)) return run.pairs;
    return run.pairs.flatMap(([, word]) => [["removed", word], ["added", word]]);
  });
}

/** Neighbours of a kind joined; within one change, what was removed stands before what was added. */
function gather(script) {
  const changes = [];
  let removed = "";
  let added = "";
  const flush = () => {
    if (removed) changes.push({ kind: "removed", text: removed });
    if (added) changes.push({ kind: "added", text: added });
    removed = added = "";
  };
  for (const [kind, word] of script) {
    if (kind === "removed") removed += word;
    else if (kind === "added") added += word;
    else {
      flush();
      const last = changes.at(-1);
      if (last?.kind === "same") last.text += word;
      else changes.push({ kind, text: word });
    }
  }
  flush();
  return changes;
}
