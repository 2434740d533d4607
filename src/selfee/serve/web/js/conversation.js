// A conversation: questions, and under each a chain, or two side by side.

import { deliveredOf, isLive, newChain, titleOf } from "./chain.js";
import { ChainView } from "./chainview.js";
import { openComparison } from "./diffview.js";
import { announce, button, h, renew } from "./dom.js";
import { requestFields } from "./settings.js";
import { Session } from "./session.js";

const SAVE_EVERY_MS = 1500;
const PREFERENCES = [["left", "Left is better"], ["tie", "Both are good"], ["right", "Right is better"], ["both_bad", "Both are bad"]];

export class Conversation {
  /** `hooks`: settings, models(), onChange(), onConnection(session, …), onSave(this), compare, scroller. */
  constructor(hooks, data = null) {
    this.hooks = hooks;
    this.data = data ?? { id: freshId(), title: "", created: Date.now(), updated: Date.now(), turns: [] };
    this.sessions = new Map(); // chain -> Session
    this.views = [];
    this.element = h("ol", { class: "conversation" });
    this.sticks = true;
    this.onScroll = () => {
      const { scroller } = hooks;
      this.sticks = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 120;
    };
    hooks.scroller.addEventListener("scroll", this.onScroll, { passive: true });
    for (const turn of this.data.turns) this.#drawTurn(turn);
    for (const turn of this.data.turns) for (const chain of turn.chains) this.#takeUp(chain);
    requestAnimationFrame(() => hooks.scroller.scrollTo(0, hooks.scroller.scrollHeight));
  }

  get isLive() {
    return this.data.turns.at(-1)?.chains.some(isLive) ?? false;
  }

  get currentView() {
    const chains = this.data.turns.at(-1)?.chains ?? [];
    return this.views.findLast((view) => chains.includes(view.chain));
  }

  ask(question) {
    const turn = { question, asked: Date.now(), preference: null, chains: [] };
    const models = this.hooks.models();
    turn.chains = models.map((model, column) => newChain(this.#request(model, question, column)));
    this.data.title ||= question.split("\n")[0].slice(0, 80);
    this.data.turns.push(turn);
    this.sticks = true;
    this.#drawTurn(turn);
    for (const chain of turn.chains) this.#session(chain).start();
    this.#changed();
    this.save(true);
  }

  /** What is sent: settings, and the conversation so far with the answers that were delivered. */
  #request(model, question, column) {
    const { settings } = this.hooks;
    const messages = settings.system.trim() ? [{ role: "system", content: settings.system.trim() }] : [];
    for (const turn of this.data.turns) {
      const answer = deliveredOf(turn.chains[column] ?? turn.chains[0]);
      if (!answer) continue;
      messages.push({ role: "user", content: turn.question }, { role: "assistant", content: answer.text });
    }
    messages.push({ role: "user", content: question });
    return { model, messages, ...requestFields(settings) };
  }

  stop() {
    for (const chain of this.data.turns.at(-1)?.chains ?? []) {
      if (isLive(chain)) this.#control(chain, { action: "stop" });
    }
  }

  /** Stop waiting for a server that does not answer. */
  giveUp() {
    for (const [chain, session] of this.sessions) {
      if (!isLive(chain)) continue;
      session.leave();
      chain.status = "failed";
      chain.error = { message: "The connection to the server was lost." };
      for (const segment of chain.segments) segment.open = false;
      this.#viewOf(chain)?.update();
    }
    this.hooks.onConnection(null, "ok");
    this.#changed();
    this.save(true);
  }

  /** Keep it: at once, or when it was not kept for a while. */
  save(now = false) {
    if (!this.data.turns.length || this.isForgotten) return;
    const due = () => {
      this.timer = null;
      if (this.isForgotten) return;
      this.data.updated = Date.now();
      this.hooks.onSave(this);
    };
    if (now) {
      clearTimeout(this.timer);
      due();
    } else this.timer ??= setTimeout(due, SAVE_EVERY_MS);
  }

  /** It was deleted: what still comes does not bring it back. */
  forget() {
    this.isForgotten = true;
    clearTimeout(this.timer);
  }

  dispose() {
    if (this.timer) this.save(true);
    for (const session of this.sessions.values()) session.leave();
    for (const view of this.views) view.dispose();
    this.hooks.scroller.removeEventListener("scroll", this.onScroll);
  }

  #session(chain) {
    if (!this.sessions.has(chain)) {
      const session = new Session(chain, {
        onChange: (segment, event) => this.#onEvent(chain, segment, event),
        onConnection: (state, detail) => this.hooks.onConnection(session, state, detail),
      });
      this.sessions.set(chain, session);
    }
    return this.sessions.get(chain);
  }

  /** A chain that was being made when the page was left. */
  #takeUp(chain) {
    if (!isLive(chain)) return;
    if (chain.id) this.#session(chain).follow();
    else Object.assign(chain, { status: "failed", error: { message: "The page was left before the question was sent." } });
  }

  async #control(chain, body) {
    try {
      await this.#session(chain).control(body);
    } catch (error) {
      announce(error.message);
      const view = this.#viewOf(chain);
      view?.complain(error.message);
    }
  }

  #onEvent(chain, segment, event) {
    const view = this.#viewOf(chain);
    if (!view) return;
    view.update(event?.type === "segment.delta" ? segment : null);
    if (event && event.type !== "segment.delta") this.#tell(chain, segment, event);
    this.#changed();
    this.save(["chain.completed", "error"].includes(event?.type));
    if (this.sticks) requestAnimationFrame(() => this.hooks.scroller.scrollTo(0, this.hooks.scroller.scrollHeight));
  }

  /** For those who listen instead of looking: sections that begin and end, not every word. */
  #tell(chain, segment, event) {
    const who = this.data.turns.at(-1)?.chains.length > 1 ? `${chain.model}: ` : "";
    if (event.type === "segment.started") announce(`${who}${titleOf(segment)} is being written.`);
    if (event.type === "segment.completed" && segment.type === "feedback") {
      announce(`${who}${titleOf(segment)}: ${segment.verdict === "needed" ? "a revision is needed" : "content"}.`);
    }
    if (event.type === "segment.overruled") announce(`${who}A revision is made all the same, as you asked.`);
    if (event.type === "chain.completed") announce(`${who}Final answer: ${chain.final.slice(0, 400)}`);
    if (event.type === "error") announce(`${who}Error: ${chain.error?.message}`);
  }

  #changed() {
    for (const draw of this.preferences ?? []) draw();
    this.hooks.onChange();
  }

  #viewOf(chain) {
    return this.views.find((view) => view.chain === chain);
  }

  #drawTurn(turn) {
    const views = turn.chains.map((chain) => this.#makeView(turn, chain));
    this.views.push(...views);
    const columns = h("div", { class: `columns columns-${views.length}` }, views.map((view) => view.element));
    const item = h(
      "li",
      { class: "turn" },
      h(
        "h2",
        { class: "question" },
        h("span", { class: "visually-hidden", text: "You asked: " }),
        h("span", { dir: "auto", text: turn.question }),
      ),
      columns,
    );
    if (views.length > 1) item.append(this.#preference(turn));
    this.element.append(item);
  }

  #makeView(turn, chain) {
    const view = new ChainView(chain, {
      control: (body) => this.#control(chain, body),
      again: () => this.#again(turn, chain),
      compare: () => openComparison(this.hooks.compare, chain),
      copy: (target) => copy(target, deliveredOf(chain)?.text ?? ""),
      vote: (value) => {
        chain.vote = value;
        announce(value ? `Voted ${value}.` : "Vote taken back.");
        view.update();
        this.save(true);
      },
    });
    return view;
  }

  /** Ask the same question anew, in the place of this chain. */
  #again(turn, chain) {
    const at = turn.chains.indexOf(chain);
    const request = { ...chain.request, ...requestFields(this.hooks.settings) };
    const fresh = newChain(request);
    turn.chains[at] = fresh;
    turn.preference = null;
    this.sessions.get(chain)?.leave();
    this.sessions.delete(chain);
    const old = this.#viewOf(chain);
    const view = this.#makeView(turn, fresh);
    this.views[this.views.indexOf(old)] = view;
    old.element.replaceWith(view.element);
    old.dispose();
    this.#session(fresh).start();
    this.#changed();
  }

  #preference(turn) {
    const bar = h("div", { class: "preference", role: "group", "aria-label": "Which answer is better?" });
    const draw = () => {
      const live = turn.chains.some(isLive);
      bar.hidden = live || !turn.chains.every((chain) => deliveredOf(chain));
      renew(bar, [live, turn.preference].join(), () =>
        PREFERENCES.map(([value, label]) =>
          button(label, () => {
            turn.preference = turn.preference === value ? null : value;
            this.save(true);
            draw();
          }, { "aria-pressed": String(turn.preference === value), data: { act: value } }),
        ),
      );
    };
    (this.preferences ??= []).push(draw);
    draw();
    return bar;
  }
}

/** Also where the page came over plain http from another machine, and `crypto.randomUUID` is missing. */
function freshId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function copy(target, text) {
  navigator.clipboard?.writeText(text).then(() => {
    const label = target.textContent;
    target.textContent = "Copied";
    announce("Copied.");
    setTimeout(() => (target.textContent = label), 1500);
  });
}
