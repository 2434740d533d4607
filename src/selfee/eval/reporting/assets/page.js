"use strict";
(() => {
  // Every text below comes from models, judges and files: it is only ever set as text, never as markup.
  const MOST_WORDS = 3000; // of both versions together: comparing takes time quadratic in this
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const text = (number) => (number === undefined || number === null ? "" : data.texts[number]);
  const [category, kind, search, choice] = ["category", "kind", "search", "question"].map(byId);
  const [view, status, changes, previous, next] = ["view", "status", "changes", "previous", "next"].map(byId);
  let shown = [];

  function element(name, className, ...children) {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...children.filter((child) => child !== null && child !== ""));
    return made;
  }

  // ---- words that a revision kept, added and removed: longest common subsequence ----
  function words(value) {
    return value.match(/\s+|[^\s]+/g) || [];
  }

  function pieces(before, after) {
    const a = words(before), b = words(after);
    let start = 0, endA = a.length, endB = b.length;
    while (start < endA && start < endB && a[start] === b[start]) start += 1;
    while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) { endA -= 1; endB -= 1; }
    const found = [];
    const put = (sort, word) => {
      const last = found[found.length - 1];
      if (last && last[0] === sort) last[1] += word; else found.push([sort, word]);
    };
    a.slice(0, start).forEach((word) => put("kept", word));
    middle(a.slice(start, endA), b.slice(start, endB)).forEach(([sort, word]) => put(sort, word));
    a.slice(endA).forEach((word) => put("kept", word));
    return found;
  }

  function middle(a, b) {
    if (a.length + b.length > 2 * MOST_WORDS) {
      return [...a.map((word) => ["removed", word]), ...b.map((word) => ["added", word])];
    }
    const width = b.length + 1;
    const longest = new Uint16Array((a.length + 1) * width);
    for (let i = a.length - 1; i >= 0; i -= 1) {
      for (let j = b.length - 1; j >= 0; j -= 1) {
        longest[i * width + j] = a[i] === b[j]
          ? longest[(i + 1) * width + j + 1] + 1
          : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
      }
    }
    const found = [];
    let i = 0, j = 0;
    while (i < a.length && j < b.length) {
      if (a[i] === b[j]) { found.push(["kept", a[i]]); i += 1; j += 1; }
      else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) { found.push(["removed", a[i]]); i += 1; }
      else { found.push(["added", b[j]]); j += 1; }
    }
    for (; i < a.length; i += 1) found.push(["removed", a[i]]);
    for (; j < b.length; j += 1) found.push(["added", b[j]]);
    return found;
  }

  function revised(before, after, className) {
    const block = element("div", className);
    for (const [sort, piece] of pieces(before, after)) {
      block.append(sort === "kept" ? piece : element(sort === "added" ? "ins" : "del", "", piece));
    }
    return block;
  }

  // ---- one question ----
  function step(entry, number, answer) {
    const isDelivered = answer.delivered === number;
    const notes = [];
    if (!entry.finished) notes.push("cut off");
    if (isDelivered) notes.push("delivered");
    if (entry.check) notes.push(entry.check.passed === null ? entry.check.reason : entry.check.passed ? "right" : "wrong");
    const title = (number === 0 ? "Answer" : `Revision ${number}`) + (notes.length ? ` (${notes.join(", ")})` : "");
    const className = "text" + (isDelivered ? " delivered" : "");
    const before = number > 0 ? text(answer.steps[number - 1].answer) : null;
    const own = text(entry.answer);
    const block = before !== null && changes.checked ? revised(before, own, className) : element("div", className, own);
    const parts = [element("h4", "", title), block];
    if (before !== null && before === own) parts.push(element("p", "status", "Equal to the answer before it."));
    if (entry.feedback !== undefined) {
      const verdict = entry.needed === undefined ? "" : entry.needed ? ": revision needed" : ": content";
      const forced = entry.forced ? ", overruled" : "";
      parts.push(element("h4", "", `Feedback ${number + 1}${verdict}${forced}`));
      parts.push(element("div", "text feedback", text(entry.feedback)));
    }
    return parts;
  }

  function answerBlock(answer) {
    const details = element("details", "");
    const count = answer.steps ? answer.steps.length - 1 : 0;
    const chain = answer.steps ? ` — ${count} revision${count === 1 ? "" : "s"}, ${answer.end}` : "";
    details.append(element("summary", "", element("strong", "", answer.title), chain));
    let filled = false;
    details.addEventListener("toggle", () => {
      if (!details.open || filled) return;
      filled = true;
      if (answer.steps) answer.steps.forEach((entry, number) => details.append(...step(entry, number, answer)));
      else if (answer.text !== undefined) details.append(element("div", "text", text(answer.text)));
      else details.append(element("p", "status", "The text of this answer is not at hand."));
    });
    return details;
  }

  function outcome(judgment) {
    if (judgment.unreadable) return `unreadable: ${judgment.unreadable}`;
    const scores = judgment.scores ? judgment.scores.map((score) => String(Math.round(score * 100) / 100)).join(" : ") : "";
    if (!judgment.second) return scores;
    const winner = judgment.winner === "tie" ? "tie" : `${judgment[judgment.winner]} wins`;
    return scores ? `${scores}, ${winner}` : winner;
  }

  function judgmentBlock(judgment) {
    const names = judgment.second ? `${judgment.first}, then ${judgment.second}` : judgment.first;
    const again = judgment.repeat ? `, repeat ${judgment.repeat}` : "";
    const details = element("details", "");
    details.append(element("summary", "", `${names}: `, element("strong", "", outcome(judgment)), ` (${judgment.judge}${again})`));
    details.append(element("div", "text" + (judgment.unreadable ? " unreadable" : ""), text(judgment.reply) || "(no reply)"));
    (judgment.notes || []).forEach((note) => details.append(element("p", "status", note)));
    return details;
  }

  function show() {
    const number = shown.indexOf(Number(choice.value));
    previous.disabled = number <= 0;
    next.disabled = number < 0 || number >= shown.length - 1;
    const open = new Set([...view.querySelectorAll("details[open] > summary > strong")].map((name) => name.textContent));
    view.replaceChildren();
    status.textContent = shown.length ? `${number + 1} of ${shown.length} questions` : "No question fits.";
    if (number < 0) return;
    const question = data.questions[shown[number]];
    const title = `Question ${question.id}` + (question.category ? ` (${question.category})` : "");
    view.append(element("h3", "", title));
    if (question.question !== null) view.append(element("div", "text", text(question.question)));
    if (question.answers.length) view.append(element("h3", "", "Answers"), ...question.answers.map(answerBlock));
    view.append(element("h3", "", "Judgments"), ...question.judgments.map(judgmentBlock));
    view.querySelectorAll("details").forEach((details) => {
      const name = details.querySelector("summary > strong");
      if (name && open.has(name.textContent) && question.answers.some((answer) => answer.title === name.textContent)) details.open = true;
    });
  }

  // ---- which questions ----
  function disagrees(question) {
    const seen = new Map();
    for (const each of question.judgments) {
      if (!each.second || !each.winner) continue;
      const key = [each.judge, ...[each.first, each.second].sort(), each.repeat || 0].join("\u0000");
      const winner = each.winner === "tie" ? "" : each[each.winner];
      if (seen.has(key) && seen.get(key) !== winner) return true;
      seen.set(key, winner);
    }
    return false;
  }

  const lost = (question) => {
    const chained = new Set(question.answers.filter((answer) => answer.steps).map((answer) => answer.title));
    return question.judgments.some((each) => {
      if (!each.second || !each.winner || each.winner === "tie") return false;
      const loser = each.winner === "first" ? each.second : each.first;
      return chained.size ? chained.has(loser) : loser === each.first;
    });
  };
  const kinds = { "": () => true, lost, differ: disagrees, unreadable: (question) => question.judgments.some((each) => each.unreadable) };

  function matches(question, wanted) {
    if (!wanted) return true;
    const texts = [question.id, text(question.question)];
    question.answers.forEach((answer) => {
      texts.push(text(answer.text));
      (answer.steps || []).forEach((entry) => texts.push(text(entry.answer), text(entry.feedback)));
    });
    question.judgments.forEach((each) => texts.push(text(each.reply)));
    return texts.some((value) => value.toLowerCase().includes(wanted));
  }

  function filter() {
    const before = choice.value, wanted = search.value.trim().toLowerCase();
    shown = [];
    choice.replaceChildren();
    data.questions.forEach((question, number) => {
      if (category.value && question.category !== category.value) return;
      if (!kinds[kind.value](question) || !matches(question, wanted)) return;
      shown.push(number);
      const option = element("option", "", `${question.id}: ${text(question.question).slice(0, 100)}`);
      option.value = String(number);
      choice.append(option);
    });
    if (shown.includes(Number(before)) && before !== "") choice.value = before;
    show();
  }

  function move(by) {
    const number = shown.indexOf(Number(choice.value)) + by;
    if (number < 0 || number >= shown.length) return;
    choice.value = String(shown[number]);
    show();
  }

  [...new Set(data.questions.map((question) => question.category))].filter(Boolean).forEach((name) => {
    category.append(element("option", "", name));
  });
  byId("controls").hidden = false;
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  [category, kind].forEach((control) => control.addEventListener("change", filter));
  let waiting = 0;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 150); });
  [choice, changes].forEach((control) => control.addEventListener("change", show));
  previous.addEventListener("click", () => move(-1));
  next.addEventListener("click", () => move(1));
  filter();
})();
