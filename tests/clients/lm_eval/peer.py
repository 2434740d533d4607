"""Log-likelihoods of token sequences by llama.cpp (the package xllamacpp): ``python peer.py MODEL < pairs.json``.

Reads ``[[context tokens, continuation tokens], …]``; prints a list of ``[log-likelihood, whether greedy]``. Its server
tells likelihoods only of tokens that may come next, so each token of a continuation is asked for on its own.
"""

import json
import sys

import xllamacpp

EVERY = 60_000  # more tokens than the vocabulary has


def main() -> None:
    """Answer one list of pairs."""
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_ctx, params.n_parallel, params.verbosity = 512, 1, -1
    server = xllamacpp.Server(params)
    json.dump([likelihood(server, context, continuation) for context, continuation in json.load(sys.stdin)], sys.stdout)


def likelihood(server: "xllamacpp.Server", context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """Sum of the log-probabilities, and whether each token is the likeliest."""
    total, is_greedy = 0.0, True
    for index, token in enumerate(continuation):
        asked = {"prompt": context + continuation[:index], "max_tokens": 1, "logprobs": EVERY, "temperature": 0}
        reply = server.handle_completions(asked | {"ignore_eos": False, "cache_prompt": False})
        reply = json.loads(reply) if isinstance(reply, (str, bytes)) else reply
        top = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        total += next(each["logprob"] for each in top if each["id"] == token)
        is_greedy &= top[0]["id"] == token
    return total, is_greedy


if __name__ == "__main__":
    main()
