// Server-sent events out of a byte stream that may be cut anywhere (WHATWG HTML, section 9.2).

/** Yields `{event, id, data}` for each event of a response's body; `onBytes` hears of every piece that comes. */
export async function* readEvents(body, onBytes = () => {}) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      onBytes();
      yield* parser.feed(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

export class EventParser {
  #rest = "";
  #event = "";
  #data = [];
  #id = "";

  /** The events that this piece of text completes. */
  feed(text) {
    const events = [];
    const all = this.#rest + text;
    // A CR at the very end may be half of a CRLF.
    const lines = all.split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length) events.push({ event: this.#event || "message", id: this.#id, data: this.#data.join("\n") });
        this.#event = "";
        this.#data = [];
      } else this.#take(line);
    }
    return events;
  }

  #take(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
  }
}
