"""Run llama.cpp of summer 2023, as the package ctransformers brings it, on tokens given as JSON; nothing of selfee.

    echo '{"model": "m.bin", "prompts": [[1, 300, 301]], "length": 8, "top": 50}' | python old_peer.py

Prints one JSON list: for each prompt its steps, for each step the greedy token and the largest log-probabilities.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any


def main() -> None:
    import ctransformers

    asked = json.load(sys.stdin)
    config = ctransformers.Config(context_length=asked.get("context", 256), threads=1, gpu_layers=0)
    model = ctransformers.LLM(asked["model"], "llama", config=config)
    json.dump([continued(model, prompt, asked["length"], asked["top"]) for prompt in asked["prompts"]], sys.stdout)


def continued(model: Any, prompt: list[int], length: int, top: int) -> list[dict[str, Any]]:
    model.reset()
    model.eval(prompt)
    steps = []
    for _ in range(length):
        logits = list(model.logits)
        largest = max(logits)
        total = largest + math.log(sum(math.exp(logit - largest) for logit in logits))
        best = sorted(range(len(logits)), key=lambda token: -logits[token])[:top]
        steps.append({"id": best[0], "top": [[token, logits[token] - total] for token in best]})
        model.eval([best[0]])
    return steps


if __name__ == "__main__":
    main()
