// The AI SDK: text and reasoning, whole and streamed.
import assert from "node:assert";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const url = process.argv[2];
const selfee = createOpenAICompatible({ name: "selfee", baseURL: `${url}/v1`, includeUsage: true });
const prompt = "Why is the sky blue?";
const final = "The air scatters blue light more than red.";

const whole = await generateText({ model: selfee("selfee"), prompt });
assert.equal(whole.text, final);
assert.match(whole.reasoningText, /Reflection is not the cause/);
console.log("generateText:", whole.text, "|", whole.reasoningText.length, "characters of reasoning");

const parts = [];
const stream = streamText({ model: selfee("selfee"), prompt });
for await (const part of stream.fullStream) parts.push(part.type);
assert.equal(await stream.text, final);
assert.equal(await stream.reasoningText, whole.reasoningText);
assert.equal(parts.filter((type) => type === "reasoning-start").length, 1);
assert.equal(parts.filter((type) => type === "text-start").length, 1);
console.log("streamText:", await stream.text, "| one block of reasoning, one of text; finish:", await stream.finishReason);
