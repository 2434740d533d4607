"""Log-likelihoods of token sequences by llama.cpp (the package xllamacpp): ``python peer.py MODEL < pairs.json``.

Reads ``[[context tokens, continuation tokens], …]``; prints a list of ``[log-likelihood, whether greedy]``. Its server
tells likelihoods only of tokens that may come next, so each token of a continuation is asked for on its own.
"""

import json
import sys

import xllamacpp

LIKELIEST = (1_000, 60_000)  # so many tokens are asked for; then more than the vocabulary has, which takes long


def main() -> None:
    """Answer one list of pairs."""
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_ctx, params.n_parallel, params.verbosity = 512, 1, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = (
        1  # several wait for each other where others compute, too
    )
    server = xllamacpp.Server(params)
    json.dump([likelihood(server, context, continuation) for context, continuation in json.load(sys.stdin)], sys.stdout)


def likelihood(server: "xllamacpp.Server", context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """Sum of the log-probabilities, and whether each token is the likeliest."""
    total, is_greedy = 0.0, True
    for index, token in enumerate(continuation):
        top = next(
            top for count in LIKELIEST if token in (top := likeliest(server, context + continuation[:index], count))
        )
        total += top[token]
        is_greedy &= next(iter(top)) == token
    return total, is_greedy


def likeliest(server: "xllamacpp.Server", tokens: list[int], count: int) -> dict[int, float]:
    """The log-probabilities of so many tokens that may come next, most likely first."""
    asked = {"prompt": tokens, "max_tokens": 1, "logprobs": count, "temperature": 0}
    reply = server.handle_completions(asked | {"ignore_eos": False, "cache_prompt": False})
    reply = json.loads(reply) if isinstance(reply, (str, bytes)) else reply
    return {each["id"]: each["logprob"] for each in reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}


if __name__ == "__main__":
    main()
