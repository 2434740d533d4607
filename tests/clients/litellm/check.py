"""LiteLLM: chat and stream, with the reasoning where LiteLLM puts it."""

import sys

import litellm

url = sys.argv[1]
common = {
    "model": "openai/selfee",
    "api_base": f"{url}/v1",
    "api_key": "none",
    "messages": [{"role": "user", "content": "Why is the sky blue?"}],
}
final = "The air scatters blue light more than red."
whole = litellm.completion(**common)
message = whole.choices[0].message
assert message.content == final
assert "Reflection is not the cause" in message.reasoning_content
print("completion:", message.content, "|", len(message.reasoning_content), "characters of reasoning")

content = reasoning = ""
for chunk in litellm.completion(**common, stream=True):
    delta = chunk.choices[0].delta
    content += delta.content or ""
    reasoning += getattr(delta, "reasoning_content", None) or ""
assert content == final
assert reasoning == message.reasoning_content
print("stream:", content, "|", len(reasoning), "characters of reasoning")

try:
    litellm.completion(**(common | {"temperature": 9}))
    raise AssertionError("no error came")
except litellm.BadRequestError as error:
    print("BadRequestError:", str(error)[:90])
