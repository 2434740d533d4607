"""lm-eval's ``local-completions``: multiple choice through ``echo`` and ``logprobs``, tokens from the server itself.

What it finds is compared with what llama.cpp says of the very same tokens and weights. With weights of 16 bits both
compute nearly exactly, and must agree. With a quantised file both round what goes into each matrix to 8 bits, each in
its own order: then they are as far from one another as from the truth, so each is measured against that: the 16 bit
figures of llama.cpp.
"""

import json
import math
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

url, here = sys.argv[1], Path(__file__).resolve().parent
out = here.parents[2] / "build" / "clients" / "homes" / "lm_eval" / "results"
files = json.loads(os.environ["SELFEE_MODEL_FILES"])

EXACT = 0.05  # two programs that add up products of 16 bit numbers in another order, over up to four tokens
ROUNDED = 2.0  # our distance from the truth, in that of the other program: the same rounding is at work in both


def run_task(model: str) -> tuple[float, list[dict]]:
    """The task through lm-eval: its accuracy and its samples."""
    arguments = f"model={model},base_url={url}/v1/completions,tokenizer_backend=remote,tokenized_requests=True"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions"]
    command += ["--model_args", f"{arguments},num_concurrent=2", "--include_path", ".", "--tasks", "selfee_tiny"]
    command += ["--batch_size", "3", "--output_path", str(out / model), "--log_samples"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    print("\n".join(line for line in done.stdout.splitlines() if line.startswith("|")))
    results, samples = (
        max((out / model).rglob(name), key=lambda path: path.stat().st_mtime) for name in ("results_*", "samples_*")
    )
    accuracy = json.loads(results.read_text(encoding="utf-8"))["results"]["selfee_tiny"]["acc,none"]
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    return accuracy, sorted(rows, key=lambda row: row["doc_id"])


def tokens_of(text: str) -> list[int]:
    """As the server splits a text."""
    body = json.dumps({"prompt": text, "add_special_tokens": False}).encode()
    asked = urllib.request.Request(f"{url}/tokenize", body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(asked))["tokens"]


def by_peer(samples: list[dict], file: str) -> list[list]:
    """llama.cpp's word on every choice of every sample."""
    pairs = []
    for row in samples:
        for arguments in row["arguments"].values():
            context = tokens_of(arguments["arg_0"])
            pairs.append([context, tokens_of(arguments["arg_0"] + arguments["arg_1"])[len(context) :]])
    command = [sys.executable, str(here / "peer.py"), file]
    done = subprocess.run(command, input=json.dumps(pairs), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def right(samples: list[dict], found: list[list]) -> float:
    """The share of questions whose right choice is the likeliest."""
    rest = iter(found)
    rows = [[next(rest)[0] for _ in row["resps"]] for row in samples]
    return sum(max(range(len(row)), key=row.__getitem__) == s["doc"]["answer"] for row, s in zip(rows, samples)) / len(
        samples
    )


def apart(ones: list[list], others: list[list]) -> list[float]:
    """How far the log-likelihoods of two are from each other, choice by choice."""
    return [abs(one[0] - other[0]) for one, other in zip(ones, others, strict=True)]


def mean(distances: list[float]) -> float:
    """Root of the mean square."""
    return math.sqrt(sum(distance * distance for distance in distances) / len(distances))


def compare(model: str) -> tuple[list[list], list[list]]:
    """Ours and llama.cpp's log-likelihoods of all choices; the accuracy and all greedy choices must be the same."""
    accuracy, samples = run_task(model)
    assert accuracy > 0.6, f"accuracy {accuracy} is near chance"
    ours = [[float(total), greedy == "True"] for row in samples for ((total, greedy),) in row["resps"]]
    theirs = by_peer(samples, files[model])
    greedy = sum(one[1] == other[1] for one, other in zip(ours, theirs, strict=True))
    print(f"{model}: accuracy {accuracy:.4f} through the server, {right(samples, theirs):.4f} by llama.cpp")
    print(f"{model}: {len(ours)} choices at most {max(apart(ours, theirs)):.4f} apart; greedy alike in {greedy}")
    assert accuracy == right(samples, theirs)
    assert greedy == len(ours)
    return ours, theirs


ours, truth = compare("selfee")
assert max(apart(ours, truth)) < EXACT, "further apart than two programs that compute the same"
ours, theirs = compare("quantised")
one, other = mean(apart(ours, truth)), mean(apart(theirs, truth))
print(f"quantised: {one:.4f} from the truth through the server, {other:.4f} by llama.cpp (root of the mean square)")
assert one < ROUNDED * other, "our rounding costs more than llama.cpp's"
