// Shows what changed between two answers, and lets any two be chosen.

import { answersOf, titleOf } from "./chain.js";
import { countWords, diffWords, readableChanges } from "./diff.js";
import { fill, h, plural } from "./dom.js";

/** The changes as one text: what was removed struck through, what was added underlined; not by colour alone. */
export function changesNode(before, after) {
  const changes = readableChanges(before, after);
  const tags = { same: "span", removed: "del", added: "ins" };
  const node = h("div", { class: "changes", dir: "auto" });
  node.append(...changes.map(({ kind, text }) => h(tags[kind], { text })));
  return node;
}

/** "+12 −5 words", from two texts. */
export function wordCounts(before, after) {
  return countWords(diffWords(before, after));
}

/** Open the dialog that compares two answers of a chain; the last two at first. */
export function openComparison(dialog, chain) {
  const answers = answersOf(chain);
  const choice = (selected) =>
    answers.map((answer, at) => h("option", { value: at, selected: at === selected, text: titleOf(answer) }));
  const [from, to] = [dialog.querySelector("#compare-from"), dialog.querySelector("#compare-to")];
  fill(from, ...choice(Math.max(0, answers.length - 2)));
  fill(to, ...choice(answers.length - 1));
  const body = dialog.querySelector("#compare-body");
  const counts = dialog.querySelector("#compare-counts");
  const draw = () => {
    const [before, after] = [answers[from.value].text, answers[to.value].text];
    const { added, removed, kept } = wordCounts(before, after);
    counts.textContent =
      added || removed ? `${plural(added, "word")} added, ${removed} removed, ${kept} kept` : "No difference in words";
    fill(body, changesNode(before, after));
  };
  from.onchange = to.onchange = draw;
  draw();
  dialog.showModal();
}
