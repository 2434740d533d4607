"""From the flags of 2023 to a sampler."""

from __future__ import annotations

from selfee.cli.main2023.flags import MainOptions
from selfee.cli.main2023.opening import Opened
from selfee.errors import UsageError
from selfee.llama.sampling import Sampler, SamplerConfig
from selfee.llama.sampling_2023 import Sampler2023
from selfee.llama.tokenizer import Tokenizer


def sampler_of(options: MainOptions, opened: Opened, seed: int) -> Sampler | Sampler2023:
    """The sampler that the flags ask for: ours, or that of 2023. Raises UsageError for a value out of range."""
    tokenizer, context = opened.tokenizer, opened.model.context_length
    config = SamplerConfig(
        temperature=max(0.0, options.temp),
        top_k=max(0, options.top_k),
        top_p=options.top_p,
        typical_p=options.typical,
        tail_free_z=options.tfs,
        repeat_penalty=options.repeat_penalty,
        repeat_last_n=context if options.repeat_last_n < 0 else min(options.repeat_last_n, context),
        frequency_penalty=options.frequency_penalty,
        presence_penalty=options.presence_penalty,
        penalize_newline=not options.no_penalize_nl,
        mirostat=options.mirostat,
        mirostat_tau=options.mirostat_ent,
        mirostat_eta=options.mirostat_lr,
        logit_bias=_biases(options, tokenizer),
        seed=seed,
    )
    if options.compat == "2023":
        return Sampler2023(config, context)
    newline = tokenizer.encode("\n", add_bos=False, continues=True)
    return Sampler(config, newline[-1] if newline else None)


def _biases(options: MainOptions, tokenizer: Tokenizer) -> dict[int, float]:
    """-l and --ignore-eos together. Raises UsageError for a part that is no bias or a token that does not exist."""
    biases: dict[int, float] = {}
    for part in options.logit_bias:
        name, sign, number = part.partition("+") if "+" in part else part.partition("-")
        try:
            token, bias = int(name), float(f"{sign}{number}")
        except ValueError as error:
            raise UsageError(f"-l: {part!r} is no bias; expected TOKEN+BIAS or TOKEN-BIAS, as 15043+1") from error
        if not sign or not 0 <= token < tokenizer.vocab_size:
            raise UsageError(f"-l: {part!r}; expected a token from 0 to {tokenizer.vocab_size - 1}, + or -, a number")
        biases[token] = bias
    if options.ignore_eos:
        ends = (tokenizer.eos,) if options.compat == "2023" else tokenizer.end_tokens
        biases |= {token: float("-inf") for token in ends if token is not None}
    return biases
