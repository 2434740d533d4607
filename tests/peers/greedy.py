"""Greedy tokens of selfee and of others on the same file, and what their differences are worth.

Two programs round activations differently, so their logits differ a little. Where both tokens of a first difference are
about as likely as each other, that is all there is to it; a difference elsewhere is an error in one of them.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfee.llama.generate import generate
from selfee.llama.model import Model
from selfee.llama.sampling import Sampler, SamplerConfig
from selfee.llama.tokenizer import load_tokenizer
from selfee.weights.open import open_checkpoint

NEW_PEER = Path(__file__).resolve().parents[2] / "benchmarks" / "peer.py"
OLD_PEER = Path(__file__).with_name("old_peer.py")
TOP = 1000  # tokens whose log-probability is asked for: all of a tiny vocabulary
LIKELY = math.log(0.02)  # below, log-probabilities are not compared

Prompt = Sequence[int]


@dataclass(frozen=True)
class Step:
    """A token chosen, and the log-probabilities of the likeliest tokens."""

    id: int
    top: dict[int, float]


@dataclass(frozen=True)
class Agreement:
    """What two programs made of the same prompts."""

    prompts: int
    equal: int  # prompts with the same tokens to the end
    first_equal: int  # prompts with the same first token
    noise: float  # largest difference of a likely token's log-probability after the same text
    widest_gap: float  # of the tokens they parted at: by how much the less sure of both preferred its own

    def __str__(self) -> str:
        return (
            f"{self.equal} of {self.prompts} texts equal, {self.first_equal} first tokens; "
            f"noise {self.noise:.3f}, widest gap at a difference {self.widest_gap:.3f}"
        )


def own_steps(path: Path, prompts: Sequence[Prompt], length: int, banned: Sequence[int] = ()) -> list[list[Step]]:
    """selfee's greedy tokens, none of them ``banned``."""
    with Model.load(path, context_length=256) as model:
        sampler = Sampler(SamplerConfig(temperature=0, logit_bias=dict.fromkeys(banned, -math.inf)))
        texts = []
        for prompt in prompts:
            tokens = generate(model.new_session(), prompt, sampler, max_tokens=length)
            texts.append([_step(token.id, token.logits) for token in tokens])
        return texts


def _step(id: int, logits: np.ndarray) -> Step:
    wide = logits.astype(np.float64)
    logprobs = wide - wide.max()
    logprobs -= np.log(np.exp(logprobs).sum())
    return Step(id, {int(token): float(logprobs[token]) for token in np.argsort(-logprobs)[:TOP]})


def end_tokens(path: Path) -> list[int]:
    """What ends a text in this file's vocabulary; today's llama.cpp is told never to choose it."""
    with open_checkpoint(path) as checkpoint:
        return sorted(load_tokenizer(checkpoint.vocab).end_tokens)


def new_peer_steps(
    python: str,
    path: Path,
    prompts: Sequence[Prompt],
    length: int,
    banned: Sequence[int] = (),
    flash_attention: bool = True,
) -> list[list[Step]]:
    """Today's llama.cpp; end tokens are banned in any case."""
    never = {"logit_bias": [[token, False] for token in banned]}
    requests = [never | {"prompt": list(prompt), "max_tokens": length, "n_probs": TOP} for prompt in prompts]
    asked = {"model": str(path), "threads": 1, "requests": requests, "context": 256, "flash_attention": flash_attention}
    printed = _ask(python, NEW_PEER, asked)
    replies = json.loads(printed[printed.index('{"replies"') :])["replies"]
    return [[Step(step["id"], dict(step["top"])) for step in reply["steps"]] for reply in replies]


def old_peer_steps(python: str, path: Path, prompts: Sequence[Prompt], length: int) -> list[list[Step]]:
    """llama.cpp of summer 2023; end tokens are tokens like others."""
    asked = {"model": str(path), "prompts": [list(prompt) for prompt in prompts], "length": length, "top": TOP}
    texts = json.loads(_ask(python, OLD_PEER, asked))
    return [[Step(step["id"], dict(step["top"])) for step in steps] for steps in texts]


def _ask(python: str, script: Path, asked: dict[str, Any]) -> str:
    done = subprocess.run([python, str(script)], input=json.dumps(asked), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the peer failed on {asked['model']}:\n{done.stderr[-2000:]}"
    return done.stdout


def agreement(own: Sequence[Sequence[Step]], peer: Sequence[Sequence[Step]]) -> Agreement:
    """Compare texts, and log-probabilities as far as the texts are the same."""
    equal = first_equal = 0
    noise = widest = 0.0
    for ours, theirs in zip(own, peer, strict=True):
        parted = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a.id != b.id), None)
        equal += parted is None
        first_equal += parted != 0
        for a, b in zip(ours[: None if parted is None else parted + 1], theirs, strict=False):
            noise = max([noise, *(abs(p - b.top[t]) for t, p in a.top.items() if t in b.top and p > LIKELY)])
        if parted is not None:
            widest = max(widest, min(_gap(ours[parted], theirs[parted]), _gap(theirs[parted], ours[parted])))
    return Agreement(len(own), equal, first_equal, noise, widest)


def _gap(one: Step, other: Step) -> float:
    """By how much a program prefers its own token to the other's."""
    return one.top[one.id] - one.top.get(other.id, -math.inf)
