"""inspect-ai: a task of two questions through its provider for servers that speak OpenAI's API."""

import os
import sys

url = sys.argv[1]
os.environ |= {"SELFEE_BASE_URL": f"{url}/v1", "SELFEE_API_KEY": "none", "INSPECT_DISPLAY": "plain"}

from inspect_ai import Task, eval  # noqa: E402
from inspect_ai.dataset import Sample  # noqa: E402
from inspect_ai.scorer import includes  # noqa: E402
from inspect_ai.solver import generate  # noqa: E402

QUESTIONS = {"Why is the sky blue?": "scatters", "What does the air do?": "blue light"}

task = Task(
    dataset=[Sample(input=question, target=target) for question, target in QUESTIONS.items()],
    solver=generate(),
    scorer=includes(),
)
log = eval(task, model="openai-api/selfee/selfee", log_dir=os.environ["LLM_USER_PATH"], log_format="json")[0]
assert log.status == "success", log.error
accuracy = log.results.scores[0].metrics["accuracy"].value
assert accuracy == 1.0
message = log.samples[0].output.message
kinds = [part.type for part in message.content] if isinstance(message.content, list) else ["text"]
print("accuracy:", accuracy, "| parts of the answer:", kinds)
assert "reasoning" in kinds
