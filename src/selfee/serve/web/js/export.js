// A conversation as a file: JSON with everything, or Markdown for readers.

import { causeOf, deliveredOf, titleOf } from "./chain.js";

/** A conversation for programs; chains are the records that the server gave. */
export function asJson(conversation) {
  return JSON.stringify(
    {
      format: "selfee-conversation",
      version: 1,
      title: conversation.title,
      created: new Date(conversation.created).toISOString(),
      turns: conversation.turns.map((turn) => ({
        question: turn.question,
        preference: turn.preference ?? null,
        chains: turn.chains.map((chain) => ({
          model: chain.model,
          vote: chain.vote,
          stop_cause: chain.stopCause,
          final: deliveredOf(chain)?.text ?? "",
          segments: chain.segments.map(({ type, index, text, said, verdict, finished, tokens, seconds, own }) => ({
            type, index, text, model_said: said, verdict, finished, tokens, seconds, by_user: own,
          })),
          chain: chain.record,
        })),
      })),
    },
    null,
    2,
  );
}

const VERDICTS = { needed: "revision needed", not_needed: "content", forced: "content, revision enforced" };

/** A conversation for people: the final answers, with what led to them. */
export function asMarkdown(conversation) {
  const parts = [`# ${conversation.title}`];
  for (const turn of conversation.turns) {
    parts.push(`## ${turn.question.split("\n")[0].slice(0, 120)}`, quote(turn.question));
    for (const chain of turn.chains) {
      parts.push(`*${chain.model}* – ${causeOf(chain) || chain.status}${chain.vote ? `, voted ${chain.vote}` : ""}`);
      for (const segment of chain.segments) {
        const verdict = segment.type === "feedback" ? VERDICTS[segment.verdict] : "";
        const note = verdict && !segment.own ? ` (${verdict})` : "";
        const final = segment === deliveredOf(chain) ? " (final answer)" : "";
        parts.push(`### ${titleOf(segment)}${note}${final}`, segment.text.trim());
      }
    }
    if (turn.preference) parts.push(`Preferred: ${turn.preference.replace("_", " ")}`);
  }
  return `${parts.join("\n\n")}\n`;
}

const quote = (text) => text.split("\n").map((line) => `> ${line}`).join("\n");

/** Hand a text to the reader as a file. */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** A title as the name of a file. */
export function fileName(title, ending) {
  const plain = title.normalize("NFKC").replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 60);
  return `${plain || "conversation"}.${ending}`;
}
