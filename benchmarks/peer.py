"""Run llama.cpp, as the package xllamacpp brings it, on requests given as JSON; needs nothing of selfee.

    echo '{"model": "m.gguf", "threads": 2, "requests": [{"prompt": "Hi", "max_tokens": 8}]}' | python peer.py

Prints one JSON object: the replies (text, token ids and log-probabilities, llama.cpp's own timings) and the peak memory
of the process in bytes. Sampling is greedy, end tokens are banned; prompts are evaluated anew unless "keeps" is true.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any


def main() -> None:
    import xllamacpp

    asked = json.load(sys.stdin)
    params = xllamacpp.CommonParams()
    params.model.path = asked["model"]
    params.n_ctx = asked.get("context", 2048)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = asked["threads"]
    params.n_parallel = 1
    params.verbosity = -1
    kinds = xllamacpp.llama_flash_attn_type
    if not asked.get("flash_attention", True):
        params.flash_attn_type = kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if name := asked.get("speculative"):  # one of llama.cpp's own ways to guess tokens without a second model
        kinds = xllamacpp.common_speculative_type
        params.speculative.types = [getattr(kinds, f"COMMON_SPECULATIVE_TYPE_{name.upper()}")]
        if sizes := asked.get("ngram"):  # tokens looked for, tokens guessed
            params.speculative.ngram_simple.size_n, params.speculative.ngram_simple.size_m = sizes
    server = xllamacpp.Server(params)
    replies = [reply(server, request, asked.get("keeps", False)) for request in asked["requests"]]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    json.dump({"replies": replies, "peak_bytes": peak}, sys.stdout)


def reply(server: Any, request: dict[str, Any], keeps: bool) -> dict[str, Any]:
    fixed = {"temperature": 0, "cache_prompt": keeps, "ignore_eos": True}
    result = server.handle_completions(request | fixed)
    result = json.loads(result) if isinstance(result, str | bytes) else result
    choice = result["choices"][0]
    content = (choice.get("logprobs") or {}).get("content", [])
    steps = [{"id": step["id"], "top": [[t["id"], t["logprob"]] for t in step["top_logprobs"]]} for step in content]
    return {"text": choice["text"], "steps": steps, "timings": result["timings"]}


if __name__ == "__main__":
    main()
