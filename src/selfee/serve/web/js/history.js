// Conversations, kept in this browser alone, within bounds: the oldest go first.

const NAME = "selfee";
const STORE = "conversations";
export const MOST_CONVERSATIONS = 300;
export const MOST_CHARACTERS = 24_000_000;

/** Implements list, load, save, remove and clear; where the browser keeps nothing, for this visit only. */
export class History {
  #database = null;
  #memory = new Map();
  isKept = true;

  async open() {
    try {
      this.#database = await new Promise((resolve, reject) => {
        const opening = indexedDB.open(NAME, 1);
        opening.onupgradeneeded = () => opening.result.createObjectStore(STORE, { keyPath: "id" });
        opening.onsuccess = () => resolve(opening.result);
        opening.onerror = () => reject(opening.error);
        opening.onblocked = () => reject(new Error("blocked"));
      });
      this.#database.onversionchange = () => this.#database.close();
    } catch {
      this.isKept = false;
    }
    return this;
  }

  #transact(mode, work) {
    return new Promise((resolve, reject) => {
      const transaction = this.#database.transaction(STORE, mode);
      const asked = work(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(asked?.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  }

  /** Id, title, date and size of each, the latest first. */
  async list() {
    const rows = this.#database ? await this.#transact("readonly", (store) => store.getAll()) : [...this.#memory.values()];
    return rows
      .map(({ id, title, updated, size }) => ({ id, title, updated, size }))
      .sort((one, other) => other.updated - one.updated);
  }

  async load(id) {
    const row = this.#database ? await this.#transact("readonly", (store) => store.get(id)) : this.#memory.get(id);
    return row ? JSON.parse(row.text) : null;
  }

  /** Keep a conversation; returns how many older ones had to go. */
  async save(conversation) {
    const text = JSON.stringify(conversation);
    const { id, title, updated } = conversation;
    const row = { id, title, updated, size: text.length, text };
    if (!this.#database) {
      this.#memory.set(id, row);
      return 0;
    }
    const gone = tooMany([...(await this.list()).filter((other) => other.id !== id), row]);
    await this.#transact("readwrite", (store) => {
      for (const old of gone) store.delete(old);
      return store.put(row);
    });
    return gone.length;
  }

  async remove(id) {
    this.#memory.delete(id);
    if (this.#database) await this.#transact("readwrite", (store) => store.delete(id));
  }

  async clear() {
    this.#memory.clear();
    if (this.#database) await this.#transact("readwrite", (store) => store.clear());
  }
}

/** Ids of the oldest conversations beyond the bounds; the latest stays in any case. */
export function tooMany(rows, most = MOST_CONVERSATIONS, characters = MOST_CHARACTERS) {
  let size = 0;
  return [...rows]
    .sort((one, other) => other.updated - one.updated)
    .filter((row, at) => {
      size += row.size;
      return at > 0 && (at >= most || size > characters);
    })
    .map((row) => row.id);
}
