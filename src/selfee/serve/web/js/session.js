// Keeps one chain alive on the page: starts it, follows it through lost connections and server restarts, controls it.

import { ApiError, controlChain, followChain, startChain } from "./api.js";
import { applyEvent, isLive, recordOf, segmentsOf } from "./chain.js";

const WAITS = [500, 1000, 2000, 4000, 5000];

/**
 * `onChange(segment | null)` hears of every event; `onConnection(state, detail)` of "ok", "lost" (detail: attempt),
 * "restarted", "busy" (detail: seconds) and "key" (it must return a promise of whether a key was given).
 */
export class Session {
  #abort = null;
  #wake = null;

  constructor(chain, { onChange, onConnection }) {
    this.chain = chain;
    this.onChange = onChange;
    this.onConnection = onConnection;
    this.following = false;
  }

  /** Ask what the chain's request says. */
  start() {
    return this.#run(() => startChain(this.chain.request, this.#abort.signal));
  }

  /** Go on listening to a chain that was begun earlier. */
  follow() {
    return this.#run(() => followChain(this.chain.id, this.chain.lastSeq, this.#abort.signal));
  }

  /** Stop listening; the chain ends by itself where nobody else listens. */
  leave() {
    this.#abort?.abort();
    this.#wake?.();
  }

  /** Try again at once instead of waiting. */
  retryNow() {
    this.#wake?.();
  }

  async control(body) {
    const { chain } = this;
    try {
      await controlChain(chain.id, body);
    } catch (error) {
      if (error.status === 401 && (await this.onConnection("key"))) return this.control(body);
      if (error.status !== 404 || !["one_more", "feedback"].includes(body.action)) throw error;
      return this.#takeUp(body);
    }
    if (!this.following) this.follow();
  }

  /** The server has forgotten the chain: send it back, with what is to be done now. */
  #takeUp(body) {
    const record = recordOf(this.chain);
    if (!record) throw new ApiError(404, { message: "The server no longer knows this chain, and nothing was finished." });
    const request = { ...this.chain.request, ...body, chain: record };
    delete request.messages;
    delete request.input;
    Object.assign(this.chain, { status: "sending", error: null });
    this.onChange(null);
    this.#run(() => startChain(request, this.#abort.signal));
  }

  async #run(open) {
    this.#abort?.abort();
    const abort = (this.#abort = new AbortController());
    this.following = true;
    let next = open;
    let attempt = 0;
    try {
      while (next) {
        try {
          for await (const event of next()) {
            if (attempt) this.onConnection("ok");
            attempt = 0;
            this.onChange(applyEvent(this.chain, event), event);
          }
          next = isLive(this.chain) ? await this.#again(attempt++) : null;
        } catch (error) {
          if (abort.signal.aborted) return;
          next = await this.#recover(error, next, attempt++);
        }
        if (abort.signal.aborted) return;
      }
    } finally {
      if (this.#abort === abort) this.following = false;
      this.onChange(null);
    }
  }

  /** How to go on after an error; null = not at all. */
  async #recover(error, last, attempt) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401 && (await this.onConnection("key"))) return last;
    if ((error.status === 429 || error.status === 503) && attempt < 6) {
      await this.#wait((error.retryAfter ?? 2) * 1000, "busy", error.retryAfter ?? 2);
      return last;
    }
    if (error.status === 0) return this.#again(attempt);
    if (error.status === 404 && this.chain.id && isLive(this.chain)) return this.#afterRestart();
    applyEvent(this.chain, { type: "error", error: { message: error.message, code: error.code } });
    this.onConnection("ok");
    return null;
  }

  async #again(attempt) {
    await this.#wait(WAITS[Math.min(attempt, WAITS.length - 1)], "lost", attempt + 1);
    const { chain } = this;
    const signal = this.#abort.signal;
    return chain.id ? () => followChain(chain.id, chain.lastSeq, signal) : () => startChain(chain.request, signal);
  }

  /** The server does not know the chain any more: go on from its last finished section, or ask anew. */
  #afterRestart() {
    const { chain } = this;
    const record = recordOf(chain);
    const signal = this.#abort.signal;
    this.onConnection("restarted", Boolean(record));
    chain.lastSeq = 0;
    if (!record) {
      chain.segments = [];
      return () => startChain({ ...chain.request, seed: chain.seed ?? undefined }, signal);
    }
    chain.segments = segmentsOf(record.steps);
    const request = { ...chain.request, seed: chain.seed ?? undefined, chain: record, action: "go_on" };
    delete request.messages;
    delete request.input;
    return () => startChain(request, signal);
  }

  #wait(milliseconds, state, detail) {
    this.onConnection(state, detail);
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
