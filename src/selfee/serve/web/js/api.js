// All that the page says to the server, in one place.

import { readEvents } from "./sse.js";

const KEY = "selfee.key";
const SILENCE_MS = 60_000; // without a byte, although the server sends heartbeats

export class ApiError extends Error {
  constructor(status, body, retryAfter) {
    super(body?.message ?? (status ? `The server answered with status ${status}.` : "The server cannot be reached."));
    this.status = status;
    this.code = body?.code ?? null;
    this.retryAfter = retryAfter;
  }
}

/** The key is kept for this tab only, and never stored with conversations. */
export const apiKey = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (key) => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY)),
};

async function request(path, { method = "GET", body, signal, headers = {} } = {}) {
  const key = apiKey.get();
  let response;
  try {
    response = await fetch(path, {
      method,
      signal,
      cache: "no-store",
      credentials: "same-origin",
      headers: {
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(key ? { authorization: `Bearer ${key}` } : {}),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (signal?.aborted && !(signal.reason instanceof ApiError)) throw error;
    throw new ApiError(0);
  }
  if (!response.ok) {
    const told = await response.json().catch(() => null);
    throw new ApiError(response.status, told?.error, Number(response.headers.get("retry-after")) || null);
  }
  return response;
}

/** Names and facts of the models that the server offers. */
export async function listModels() {
  const answer = await (await request("/v1/models")).json();
  return answer.data ?? [];
}

/** Start a chain, or go on with one (`body.chain`); yields its events. */
export function startChain(body, signal) {
  return stream("/v1/selfee/chat", { method: "POST", body: { ...body, stream: true } }, signal);
}

/** Events of a chain after a number, then live. */
export function followChain(id, after, signal) {
  const headers = { "last-event-id": String(after) };
  return stream(`/v1/selfee/chat/${encodeURIComponent(id)}/events`, { headers }, signal);
}

export async function controlChain(id, body) {
  return (await request(`/v1/selfee/chat/${encodeURIComponent(id)}/control`, { method: "POST", body })).json();
}

async function* stream(path, options, signal) {
  const watchdog = new AbortController();
  const both = AbortSignal.any([signal, watchdog.signal]);
  let timer;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => watchdog.abort(new ApiError(0)), SILENCE_MS);
  };
  heard();
  try {
    const response = await request(path, { ...options, signal: both });
    for await (const { data } of readEvents(response.body, heard)) {
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  } catch (error) {
    if (error instanceof ApiError || signal.aborted) throw error;
    throw new ApiError(0); // the connection broke, whatever this browser calls it
  } finally {
    clearTimeout(timer);
  }
}
