"""Serve a model over HTTP with llama.cpp, as the package xllamacpp brings it; needs nothing of selfee.

    python peer_server.py MODEL THREADS PARALLEL CONTEXT [GUESSES]

Prints the address, then serves until its input ends.
"""

from __future__ import annotations

import sys


def main() -> None:
    import xllamacpp

    model, threads, parallel, context = sys.argv[1], *map(int, sys.argv[2:5])
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = context * parallel
    params.n_parallel = parallel
    params.cont_batching = True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    if len(sys.argv) > 5 and sys.argv[5]:
        params.speculative.types = [
            getattr(xllamacpp.common_speculative_type, f"COMMON_SPECULATIVE_TYPE_{sys.argv[5].upper()}")
        ]
    params.verbosity = -1
    params.port = 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
