"""OpenAI's own library: chat, stream, responses, completions, models, errors, cancelling."""

import asyncio
import sys
import time

import openai

url = sys.argv[1]
client = openai.OpenAI(base_url=f"{url}/v1", max_retries=0)
question = [{"role": "user", "content": "Why is the sky blue?"}]
final = "The air scatters blue light more than red."

print("models:", [model.id for model in client.models.list()], client.models.retrieve("selfee").owned_by)

whole = client.chat.completions.create(model="selfee", messages=question)
assert whole.choices[0].message.content == final
print(
    "chat:",
    whole.choices[0].message.content,
    "|",
    whole.usage.completion_tokens,
    "tokens,",
    whole.usage.completion_tokens_details.reasoning_tokens,
    "of reasoning",
)

reasoning, content = "", ""
for chunk in client.chat.completions.create(
    model="selfee", messages=question, stream=True, stream_options={"include_usage": True}
):
    for choice in chunk.choices:
        reasoning += getattr(choice.delta, "reasoning_content", None) or ""
        content += choice.delta.content or ""
assert content == final
assert "Reflection is not the cause" in reasoning
print("stream:", content, "|", len(reasoning), "characters of reasoning, usage", chunk.usage.total_tokens)

with client.chat.completions.stream(model="selfee:rev0", messages=question) as stream:
    assert stream.get_final_completion().choices[0].message.content == "The sky reflects the ocean."
print("model suffix:", "selfee:rev0 gives the first answer")

response = client.responses.create(model="selfee", input="Why is the sky blue?")
assert response.output_text == final
print("responses:", response.output_text, "|", [item.type for item in response.output])
kinds = [event.type for event in client.responses.create(model="selfee", input="Why?", stream=True)]
assert kinds[-1] == "response.completed"
print("responses stream:", len(kinds), "events,", len(set(kinds)), "kinds, the last", kinds[-1])

text = client.completions.create(model="selfee", prompt="Why", max_tokens=5, logprobs=1)
print("completions:", repr(text.choices[0].text), text.choices[0].logprobs.token_logprobs)

for name, call in {
    "NotFoundError": lambda: client.models.retrieve("nobody"),
    "BadRequestError": lambda: client.chat.completions.create(model="selfee", messages=question, temperature=9),
}.items():
    try:
        call()
        raise AssertionError("no error came")
    except openai.APIStatusError as error:
        if type(error).__name__ != name:
            raise
        print(f"{name}: {error.code} {error.param}: {error.message[:60]}")


async def cancel() -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", max_retries=0) as other:
        stream = await other.chat.completions.create(model="selfee", messages=question, stream=True)
        async for _ in stream:
            break
        await stream.close()


asyncio.run(cancel())
time.sleep(0.5)
metrics = __import__("urllib.request").request.urlopen(f"{url}/metrics").read().decode()
assert 'selfee_jobs_running{model="selfee"} 0.0' in metrics
print("cancelled: nothing computes any more")
