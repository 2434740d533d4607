// A chain as the page knows it: made of the server's events, one after the other, and never of guesses.

/** A chain that has not begun. `request` is what was asked, so that it can be asked again. */
export function newChain(request) {
  return {
    request,
    id: null,
    model: request.model ?? "",
    mode: "",
    policy: null,
    seed: request.seed ?? null,
    status: "sending", // sending, queued, running, completed, failed
    queuePosition: 0,
    lastSeq: 0,
    segments: [],
    record: null,
    final: "",
    delivered: null,
    stopCause: "",
    why: "",
    truncated: false,
    usage: null,
    error: null,
    vote: null,
  };
}

/** Take one event in; returns the segment it is about, if it is about one. */
export function applyEvent(chain, event) {
  if (event.seq !== undefined) {
    if (event.chain_id === chain.id && event.seq <= chain.lastSeq) return null; // seen before a reconnection
    chain.lastSeq = event.seq;
  }
  return HANDLERS[event.type]?.(chain, event) ?? null;
}

const HANDLERS = {
  "chain.created"(chain, event) {
    chain.id = event.chain_id;
    chain.model = event.model ?? chain.model;
    chain.mode = event.mode ?? "";
    chain.policy = event.policy ?? null;
    chain.seed = event.seed ?? chain.seed;
    chain.queuePosition = 0;
    chain.status = "running";
    if (event.steps?.length) chain.segments = segmentsOf(event.steps);
    Object.assign(chain, { error: null, stopCause: "", record: null });
  },
  "chain.queued"(chain, event) {
    chain.status = "queued";
    chain.queuePosition = event.position;
  },
  "chain.started"(chain, event) {
    chain.status = "running";
    chain.queuePosition = 0;
    chain.seed = event.seed ?? chain.seed;
  },
  "segment.started"(chain, event) {
    const { id, type, index } = event.segment;
    chain.status = "running";
    const segment = newSegment(id, type, index);
    chain.segments.push(segment);
    return segment;
  },
  "segment.delta"(chain, event) {
    const segment = chain.segments.findLast((one) => one.id === event.segment_id);
    if (!segment) return null;
    segment.text += event.text;
    segment.pieces += 1;
    return segment;
  },
  "segment.completed"(chain, event) {
    const told = event.segment;
    const segment = chain.segments.findLast((one) => one.id === told.id);
    if (!segment) return null;
    const { text, finished, verdict, phrase, probability, source, tokens, seconds, words } = told;
    Object.assign(segment, { text, finished, verdict, phrase, probability, source, tokens, seconds, words, open: false });
    segment.own = source === "user";
    return segment;
  },
  "segment.overruled"(chain, event) {
    const segment = chain.segments.findLast((one) => one.id === event.segment_id);
    if (!segment) return null;
    Object.assign(segment, { verdict: "forced", said: segment.text, text: event.text });
    return segment;
  },
  "chain.continued"(chain, event) {
    cutAfter(chain, event.from_answer, event.action === "feedback");
    Object.assign(chain, { status: "running", stopCause: "", why: "", delivered: null, record: null, error: null });
  },
  "chain.completed"(chain, event) {
    chain.status = "completed";
    chain.final = event.final;
    chain.delivered = event.delivered ?? null;
    chain.stopCause = event.stop_cause;
    chain.truncated = Boolean(event.truncated);
    chain.why = event.status ?? "";
    chain.usage = event.usage ?? null;
    chain.record = event.chain ?? null;
    for (const segment of chain.segments) segment.open = false;
  },
  error(chain, event) {
    chain.status = "failed";
    chain.error = event.error ?? { message: "The server reports an error without saying which." };
    for (const segment of chain.segments) segment.open = false;
  },
};

function newSegment(id, type, index) {
  return {
    id, type, index, text: "", open: true, finished: false, verdict: "none", phrase: "", probability: null,
    source: "", tokens: null, seconds: null, words: null, pieces: 0, started: Date.now(), said: null, own: false,
  };
}

/** Drop what came after an answer; its feedback stays unless it is replaced by a person's own. */
function cutAfter(chain, answer, dropFeedback) {
  const at = chain.segments.findLastIndex((one) => one.type !== "feedback" && one.index === answer);
  if (at < 0) return;
  const keeps = chain.segments[at + 1]?.type === "feedback" && !chain.segments[at + 1].open && !dropFeedback ? 2 : 1;
  chain.segments.length = Math.min(chain.segments.length, at + keeps);
}

/** Segments of a record's steps: what a chain that is taken up has made before. */
export function segmentsOf(steps) {
  return steps.flatMap((step, index) => {
    const cost = step.answer_cost ?? {};
    const answer = {
      ...newSegment(`step_${index}`, index ? "revision" : "answer", index),
      text: step.answer, open: false, finished: step.answer_finished !== false,
      tokens: cost.tokens ?? null, seconds: cost.seconds ?? null,
    };
    if (step.feedback === null || step.feedback === undefined) return [answer];
    const verdict = step.verdict;
    const feedback = {
      ...newSegment(`feedback_${index + 1}`, "feedback", index + 1),
      text: step.feedback, said: step.overruled ?? null, open: false, finished: step.feedback_finished !== false,
      verdict: verdict?.forced ? "forced" : verdict ? (verdict.needed ? "needed" : "not_needed") : "none",
      source: verdict?.source ?? "", own: verdict?.source === "user",
      tokens: step.feedback_cost?.tokens ?? null, seconds: step.feedback_cost?.seconds ?? null,
    };
    return [answer, feedback];
  });
}

/** The answers of a chain, from the first to the last revision. */
export function answersOf(chain) {
  return chain.segments.filter((segment) => segment.type !== "feedback");
}

/** The answer that counts for the rest of the conversation: the delivered one, else the last finished one. */
export function deliveredOf(chain) {
  const answers = answersOf(chain);
  if (chain.delivered !== null) return answers.find((one) => one.index === chain.delivered) ?? null;
  return answers.findLast((one) => one.finished && one.text.trim()) ?? null;
}

export const isLive = (chain) => ["sending", "queued", "running"].includes(chain.status);

/** The record of a chain that the server has forgotten, as far as its sections were finished; null if none was. */
export function recordOf(chain) {
  if (chain.record) return chain.record;
  const steps = [];
  for (const segment of chain.segments) {
    if (!segment.finished) break;
    if (segment.type !== "feedback") steps.push({ answer: segment.text, feedback: null, verdict: null });
    else if (steps.length && segment.verdict !== "none") {
      const { verdict, own } = segment;
      Object.assign(steps.at(-1), {
        feedback: segment.text,
        overruled: segment.said,
        verdict: {
          needed: verdict === "needed", forced: verdict === "forced", phrase: segment.phrase ?? "",
          source: own ? "user" : segment.source || "phrase", probability: segment.probability ?? null,
        },
      });
    }
  }
  if (!steps.length) return null;
  const messages = chain.request.messages ?? [];
  const system = messages.find((message) => message.role === "system")?.content ?? "";
  const spoken = messages.filter((message) => message.role !== "system");
  const history = [];
  for (let at = 0; at + 2 < spoken.length; at += 2) {
    history.push({ question: spoken[at].content, answer: spoken[at + 1].content });
  }
  return {
    instruction: spoken.at(-1)?.content ?? "", input: chain.request.input ?? "", history, system,
    end: "cut_off", cut: "cancelled", status: "the server went away", seed: chain.seed, mode: chain.mode,
    engine: "", settings: {}, steps,
  };
}

/** What a segment is called. */
export function titleOf(segment) {
  if (segment.type === "answer") return "Answer";
  if (segment.type === "revision") return `Revision ${segment.index}`;
  return segment.own ? `Your feedback ${segment.index}` : `Feedback ${segment.index}`;
}

const CAUSES = {
  autonomous: "The model is content.",
  max_revisions: "As many revisions as you allow.",
  stalled: "The last revision changes nothing new.",
  length: "Cut off: the length allowed is used up.",
  allowance: "Ended: the allowance of the whole chain is spent.",
  accepted: "Accepted by you.",
  cancelled: "Stopped by you.",
  error: "Ended by an error.",
};

/** Why a chain ended, in a few words. */
export function causeOf(chain) {
  return CAUSES[chain.stopCause] ?? chain.stopCause;
}
