// One chain on the page: a timeline of answer, feedback and revision, an overview above it, what can be done below.

import { answersOf, causeOf, deliveredOf, isLive, titleOf } from "./chain.js";
import { changesNode, wordCounts } from "./diffview.js";
import { button, h, icon, plural, renew } from "./dom.js";
import { drawOther, drawProse } from "./prose.js";

const VERDICTS = {
  needed: ["Revision needed", "needed"],
  not_needed: ["Content", "content"],
  forced: ["Content – revised on your rule", "forced"],
};
let counter = 0;

/**
 * `actions` is told what the reader wants: control(body), again(), compare(), exportAs(kind), vote(value), change().
 */
export class ChainView {
  constructor(chain, actions) {
    this.chain = chain;
    this.actions = actions;
    this.number = ++counter;
    this.views = new Map(); // segment id -> its elements
    this.raw = false;
    this.showsForm = false;
    this.dirty = new Set();
    this.ribbon = h("ol", { class: "ribbon", "aria-label": "Overview of the chain" });
    this.total = h("p", { class: "total" });
    this.timeline = h("ol", { class: "timeline" });
    this.foot = h("footer", { class: "chain-foot" });
    this.form = this.#ownFeedback();
    this.element = h(
      "section",
      { class: "chain", "aria-label": `Chain of ${chain.model || "the model"}` },
      h("header", { class: "chain-head" }, h("p", { class: "model", text: chain.model }), this.ribbon, this.total),
      this.timeline,
      this.form,
      this.foot,
    );
    this.ticker = setInterval(() => this.#tick(), 200);
    this.update();
  }

  /** Draw what has changed, at the next frame; a segment's own text only where it is named. */
  update(segment = null) {
    if (segment) this.dirty.add(segment.id);
    this.all ||= !segment;
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      this.#draw();
    });
  }

  dispose() {
    clearInterval(this.ticker);
    cancelAnimationFrame(this.frame);
  }

  #draw() {
    const { chain } = this;
    this.element.setAttribute("aria-busy", String(isLive(chain)));
    this.element.dataset.status = chain.status;
    this.element.querySelector(".model").textContent = chain.model;
    const ids = new Set(chain.segments.map((segment) => segment.id));
    for (const [id, view] of this.views) {
      if (ids.has(id)) continue;
      view.item.remove();
      this.views.delete(id);
    }
    for (const segment of chain.segments) {
      const isNew = !this.views.has(segment.id);
      if (isNew) this.#add(segment);
      if (isNew || this.all || this.dirty.has(segment.id)) this.#drawSegment(segment);
    }
    this.#drawRibbon();
    this.#drawFoot();
    this.dirty.clear();
    this.all = false;
  }

  #add(segment) {
    const id = `segment-${this.number}-${segment.id}`;
    const view = {
      title: h("h3", { id, tabindex: -1 }),
      chips: h("span", { class: "chips" }),
      meta: h("span", { class: "meta" }),
      tools: h("span", { class: "tools" }),
      body: h("div", { class: "body" }),
      more: null,
      mode: "text", // text, changes, said
      folded: null, // null = as the page thinks best
    };
    view.item = h(
      "li",
      { class: `segment ${segment.type}` },
      h("span", { class: "dot", "aria-hidden": "true" }),
      h(
        "article",
        { "aria-labelledby": id },
        h("header", {}, view.title, view.chips, view.meta, view.tools),
        view.body,
      ),
    );
    this.views.set(segment.id, view);
    this.timeline.append(view.item);
  }

  #drawSegment(segment) {
    const view = this.views.get(segment.id);
    const delivered = deliveredOf(this.chain);
    const isFinal = !isLive(this.chain) && delivered === segment;
    const { item } = view;
    item.classList.toggle("open", segment.open);
    item.classList.toggle("final", isFinal);
    item.classList.toggle("unfinished", !segment.open && !segment.finished);
    item.dataset.verdict = segment.verdict;
    view.title.textContent = titleOf(segment);
    const { open, finished, verdict, own } = segment;
    const told = [open, finished, verdict, own, isFinal, isLive(this.chain), view.mode, delivered === segment].join();
    renew(view.chips, told, () => this.#chips(segment, isFinal));
    renew(view.tools, told, () => this.#tools(segment, view));
    view.meta.textContent = metaOf(segment);
    this.#drawBody(segment, view);
    this.#fold(segment, view, isFinal);
  }

  #chips(segment, isFinal) {
    const chips = [];
    const chip = (text, kind, sign) => chips.push(h("span", { class: `chip ${kind}` }, sign && icon(sign), text));
    if (segment.type === "feedback" && !segment.open) {
      const [text, kind] = segment.own ? ["By you", "forced"] : VERDICTS[segment.verdict] ?? ["No verdict", "none"];
      const signs = { content: "check", needed: "pen", forced: "hand" };
      chip(text, kind, signs[kind]);
    }
    if (segment.type === "revision" && !segment.open) {
      const before = this.#answerBefore(segment);
      // Counted here, as the comparison does, so that both say the same.
      const words = before ? wordCounts(before.text, segment.text) : segment.words;
      if (words) chip(`+${words.added} −${words.removed} words`, "words");
    }
    if (!segment.open && !segment.finished) chip("Unfinished", "none");
    if (isFinal) chip("Final answer", "delivered", "check");
    return chips;
  }

  #answerBefore(segment) {
    const answers = answersOf(this.chain);
    return answers[answers.indexOf(segment) - 1] ?? null;
  }

  #tools(segment, view) {
    const tools = [];
    const toggle = (label, mode) => {
      const on = view.mode === mode;
      tools.push(
        button(label, () => {
          view.mode = on ? "text" : mode;
          this.update(segment);
        }, {
          class: "tool", "aria-pressed": String(on), "aria-label": `${label} of ${titleOf(segment)}`, data: { act: mode },
        }),
      );
    };
    if (segment.type === "revision" && !segment.open && this.#answerBefore(segment)) toggle("Changes", "changes");
    if (segment.said) toggle("In its own words", "said");
    const { chain } = this;
    const isAnswer = segment.type !== "feedback" && segment.finished;
    if (isAnswer && !isLive(chain) && chain.id && deliveredOf(chain) !== segment) {
      tools.push(
        button("Take this one", () => this.actions.control({ action: "accept", answer: segment.index }), {
          class: "tool",
          "aria-label": `Take ${titleOf(segment)} as the final answer`,
        }),
      );
    }
    return tools;
  }

  #drawBody(segment, view) {
    const { body } = view;
    body.classList.toggle("raw", this.raw);
    if (view.mode === "changes" && !segment.open) {
      drawOther(body, changesNode(this.#answerBefore(segment)?.text ?? "", segment.text));
    } else if (view.mode === "said" && segment.said) {
      drawOther(body, changesNode(segment.text, segment.said));
    } else if (this.raw) {
      drawOther(body, h("pre", { text: segment.text, dir: "auto", tabindex: 0 }));
    } else {
      if (body.firstElementChild && !body.drawnBlocks?.length) drawOther(body);
      drawProse(body, segment.text);
    }
  }

  /** Drafts that were revised since take a few lines only, until somebody wants to see them. */
  #fold(segment, view, isFinal) {
    const { chain } = this;
    const isPast = !segment.open && segment !== chain.segments.at(-1) && !isFinal;
    const long = segment.text.length > 420 || segment.text.split("\n").length > 7;
    const wants = view.folded ?? (isPast && segment.type !== "feedback" && view.mode === "text");
    const folded = long && wants;
    view.item.classList.toggle("folded", folded);
    if (!long || !isPast) {
      view.more?.remove();
      view.more = null;
      return;
    }
    if (!view.more) {
      view.more = button("", () => {
        view.folded = !view.item.classList.contains("folded");
        this.update(segment);
      }, { class: "more" });
      view.body.after(view.more);
    }
    view.more.textContent = folded ? "Show all" : "Show less";
    view.more.setAttribute("aria-expanded", String(!folded));
    view.more.setAttribute("aria-label", `${folded ? "Show all" : "Show less"} of ${titleOf(segment)}`);
  }

  #drawRibbon() {
    const { chain } = this;
    const delivered = isLive(chain) ? null : deliveredOf(chain);
    const told = chain.segments.map((one) => [one.id, one.open, one.verdict, one === delivered].join()).join(";");
    renew(this.ribbon, told, () =>
      chain.segments.map((segment) => {
        const label = segment.type === "feedback" ? "Feedback" : titleOf(segment);
        const state = segment.open ? "being written" : (VERDICTS[segment.verdict]?.[0] ?? "");
        return h(
          "li",
          { class: `${segment.type}${segment.open ? " open" : ""}${segment === delivered ? " final" : ""}`, data: { verdict: segment.verdict } },
          button(label, () => this.views.get(segment.id)?.title.focus(), {
            "aria-label": [titleOf(segment), state].filter(Boolean).join(", "),
          }),
        );
      }),
    );
    this.ribbon.hidden = chain.segments.length < 2;
    this.#tick();
  }

  #tick() {
    const { chain } = this;
    const open = chain.segments.at(-1);
    if (open?.open) {
      const view = this.views.get(open.id);
      if (view) view.meta.textContent = metaOf(open);
    }
    const tokens = chain.segments.reduce((sum, one) => sum + (one.tokens ?? one.pieces), 0);
    const seconds = chain.segments.reduce((sum, one) => sum + secondsOf(one), 0);
    this.total.textContent = tokens ? `${plural(tokens, "token")} · ${seconds.toFixed(1)} s` : "";
  }

  #drawFoot() {
    const { chain } = this;
    const live = isLive(chain);
    const answers = answersOf(chain);
    const told = [
      chain.status, chain.id, chain.queuePosition, chain.stopCause, chain.error?.message, answers.length, chain.vote,
      answers.some((one) => one.finished), chain.segments.length > 0, this.raw, this.showsForm,
    ].join();
    renew(this.foot, told, () => [
      this.#statusLine(),
      h("div", { class: "actions" }, live ? this.#liveActions() : this.#endActions()),
    ]);
    this.form.hidden = !this.showsForm;
  }

  #statusLine() {
    const { chain } = this;
    if (chain.status === "failed") {
      return h("p", { class: "status failed", role: "alert" }, icon("warn"), ` ${chain.error?.message ?? "It failed."}`);
    }
    if (chain.status === "sending") return h("p", { class: "status", text: "Sending your question…" });
    if (chain.status === "queued") {
      return h("p", { class: "status", text: `Waiting: number ${chain.queuePosition} in line.` });
    }
    if (chain.status === "running") {
      if (!chain.segments.length) return h("p", { class: "status", text: "The model reads your question…" });
      return h("p", { class: "status", hidden: true });
    }
    const why = chain.why && chain.why !== causeOf(chain) ? chain.why : null;
    return h("p", { class: "status", title: why }, causeOf(chain));
  }

  #liveActions() {
    const { control } = this.actions;
    const hasAnswer = answersOf(this.chain).some((segment) => segment.finished);
    const can = Boolean(this.chain.id);
    return [
      button("Stop", () => control({ action: "stop" }), { class: "stop", disabled: !can, data: { act: "stop" } }),
      button("Accept this", () => control({ action: "accept" }), { disabled: !hasAnswer, data: { act: "accept" } }),
      button("One more", () => control({ action: "one_more" }), { disabled: !can, data: { act: "more" } }),
      this.#criticise(hasAnswer),
    ];
  }

  #endActions() {
    const { chain, actions } = this;
    const answers = answersOf(chain);
    const hasAnswer = answers.some((segment) => segment.finished);
    const vote = (value, label, sign) =>
      button(icon(sign), () => actions.vote(chain.vote === value ? null : value), {
        class: "iconic", "aria-label": label, title: label, "aria-pressed": String(chain.vote === value),
        data: { act: `vote-${value}` },
      });
    return [
      hasAnswer && button("One more", () => actions.control({ action: "one_more" }), { data: { act: "more" } }),
      hasAnswer && this.#criticise(true),
      button(hasAnswer ? "Ask again" : "Try again", () => actions.again(), { data: { act: "again" } }),
      answers.length > 1 && button("Compare versions", () => actions.compare(), { data: { act: "compare" } }),
      answers.length > 0 &&
        button("Raw", () => {
          this.raw = !this.raw;
          this.update();
        }, { "aria-pressed": String(this.raw), data: { act: "raw" } }),
      hasAnswer && button("Copy", (event) => actions.copy(event.currentTarget), { "aria-label": "Copy the final answer" }),
      hasAnswer && vote("up", "Good answer", "up"),
      hasAnswer && vote("down", "Bad answer", "down"),
    ];
  }

  #criticise(enabled) {
    return button("Criticise it yourself", () => this.openForm(), {
      disabled: !enabled, "aria-expanded": String(this.showsForm), data: { act: "feedback" },
    });
  }

  /** Say for a while why something could not be done. */
  complain(text) {
    const note = h("p", { class: "status failed", role: "alert", text });
    this.foot.before(note);
    setTimeout(() => note.remove(), 8000);
  }

  openForm() {
    this.showsForm = !this.showsForm;
    this.form.hidden = !this.showsForm;
    if (this.showsForm) this.form.querySelector("textarea").focus();
    this.update();
  }

  #ownFeedback() {
    const id = `own-${this.number}`;
    const text = h("textarea", { id, rows: 3, dir: "auto", maxlength: 20000, placeholder: "What should become better?" });
    const send = () => {
      const words = text.value.trim();
      if (!words) return text.focus();
      text.value = "";
      this.openForm();
      this.actions.control({ action: "feedback", feedback: words });
    };
    text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send();
      if (event.key === "Escape") {
        event.stopPropagation();
        this.openForm();
      }
    });
    return h(
      "form",
      {
        class: "own-feedback", hidden: true,
        on: {
          submit: (event) => {
            event.preventDefault();
            send();
          },
        },
      },
      h("label", { for: id, text: "Your feedback" }),
      text,
      h("div", { class: "actions" }, h("button", { class: "primary", text: "Revise after this" }), button("Cancel", () => this.openForm())),
    );
  }
}

function secondsOf(segment) {
  if (segment.open) return (Date.now() - segment.started) / 1000;
  return segment.seconds ?? 0;
}

/** "42 tokens · 1.3 s"; while it is written, pieces are counted instead of tokens. */
function metaOf(segment) {
  const tokens = segment.tokens ?? segment.pieces;
  const parts = [];
  if (tokens && !segment.own) parts.push(plural(tokens, "token"));
  if (segment.open || segment.seconds) parts.push(`${secondsOf(segment).toFixed(1)} s`);
  return parts.join(" · ");
}
