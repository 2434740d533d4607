"""lm-eval's ``local-completions``: multiple choice through ``echo`` and ``logprobs``, tokens from the server itself.

What it finds is compared with what llama.cpp says of the very same tokens and model file.
"""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

url, here = sys.argv[1], Path(__file__).resolve().parent
out = here.parents[2] / "build" / "clients" / "homes" / "lm_eval" / "results"


def run_task() -> tuple[float, list[dict]]:
    """The task through lm-eval: its accuracy and its samples."""
    arguments = f"model=selfee,base_url={url}/v1/completions,tokenizer_backend=remote,tokenized_requests=True"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions"]
    command += ["--model_args", f"{arguments},num_concurrent=2", "--include_path", ".", "--tasks", "selfee_tiny"]
    command += ["--batch_size", "3", "--output_path", str(out), "--log_samples"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    print("\n".join(line for line in done.stdout.splitlines() if line.startswith("|")))
    results, samples = (
        max(out.rglob(name), key=lambda path: path.stat().st_mtime) for name in ("results_*", "samples_*")
    )
    accuracy = json.loads(results.read_text(encoding="utf-8"))["results"]["selfee_tiny"]["acc,none"]
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    return accuracy, sorted(rows, key=lambda row: row["doc_id"])


def tokens_of(text: str) -> list[int]:
    """As the server splits a text."""
    body = json.dumps({"prompt": text, "add_special_tokens": False}).encode()
    asked = urllib.request.Request(f"{url}/tokenize", body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(asked))["tokens"]


def by_peer(samples: list[dict]) -> list[list]:
    """llama.cpp's word on every choice of every sample."""
    pairs = []
    for row in samples:
        for arguments in row["arguments"].values():
            context = tokens_of(arguments["arg_0"])
            pairs.append([context, tokens_of(arguments["arg_0"] + arguments["arg_1"])[len(context) :]])
    command = [sys.executable, str(here / "peer.py"), os.environ["SELFEE_MODEL_FILE"]]
    done = subprocess.run(command, input=json.dumps(pairs), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


accuracy, samples = run_task()
assert accuracy > 0.6, f"accuracy {accuracy} is near chance"
theirs = iter(by_peer(samples))
correct, farthest, count, same_greedy = 0, 0.0, 0, 0
for row in samples:
    ours = [(float(total), greedy == "True") for ((total, greedy),) in row["resps"]]
    peers = [next(theirs) for _ in ours]
    correct += max(range(len(peers)), key=lambda index: peers[index][0]) == row["doc"]["answer"]
    farthest = max(farthest, *(abs(one[0] - other[0]) for one, other in zip(ours, peers)))
    same_greedy += sum(one[1] == other[1] for one, other in zip(ours, peers))
    count += len(ours)
print(f"accuracy: {accuracy:.4f} through the server, {correct / len(samples):.4f} by llama.cpp")
print(f"log-likelihoods of {count} choices: at most {farthest:.4f} apart; greedy alike in {same_greedy}")
assert accuracy == correct / len(samples)
assert farthest < 0.25, "further apart than two ways to round a file of four bits"
assert same_greedy == count
