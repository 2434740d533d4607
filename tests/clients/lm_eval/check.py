"""lm-eval's ``local-completions``: multiple choice through ``echo`` and ``logprobs``, tokens from the server itself."""

import json
import subprocess
import sys
from pathlib import Path

url = sys.argv[1]
out = Path(sys.argv[0]).resolve().parents[3] / "build" / "clients" / "homes" / "lm_eval" / "results"
arguments = (
    f"model=selfee,base_url={url}/v1/completions,tokenizer_backend=remote,tokenized_requests=True,num_concurrent=2"
)
command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", arguments]
command += [
    "--include_path",
    ".",
    "--tasks",
    "selfee_tiny",
    "--batch_size",
    "3",
    "--output_path",
    str(out),
    "--log_samples",
]
done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
assert done.returncode == 0, done.stderr[-3000:]
print("\n".join(line for line in done.stdout.splitlines() if line.startswith("|")))
rows = max(out.rglob("results_*.json"), key=lambda path: path.stat().st_mtime)
accuracy = json.loads(rows.read_text(encoding="utf-8"))["results"]["selfee_tiny"]["acc,none"]
assert accuracy > 0.6, f"accuracy {accuracy} is near chance"
print("accuracy:", accuracy)
