"""The ``llm`` program: a model of ours beside those of others, told by its own file for that."""

import os
import subprocess
import sys
from pathlib import Path

url = sys.argv[1]
home = Path(os.environ["LLM_USER_PATH"])
(home / "extra-openai-models.yaml").write_text(
    f"- model_id: selfee\n  model_name: selfee\n  api_base: {url}/v1\n", encoding="utf-8"
)
program = Path(sys.executable).parent / "llm"
for words in (["-m", "selfee", "Why is the sky blue?"], ["-m", "selfee", "--no-stream", "Why is the sky blue?"]):
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "The air scatters blue light more than red.", done.stdout
    print("llm", " ".join(words), "->", done.stdout.strip())
