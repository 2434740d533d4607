"""What is told on stderr before the model begins."""

from __future__ import annotations

import resource
from collections.abc import Sequence

from selfee.cli.main2023.console import Console
from selfee.cli.main2023.flags import MainOptions
from selfee.cli.main2023.loop import MOST_TOKENS, Turns
from selfee.cli.main2023.opening import Opened
from selfee.llama.memory import memory_needed
from selfee.llama.tokenizer import Tokenizer


def show_tokens(text: str, prompt: Sequence[int], tokenizer: Tokenizer, console: Console) -> None:
    """--verbose-prompt: the prompt, token by token."""
    console.note(f"main: prompt: '{text}'\nmain: number of tokens in prompt = {len(prompt)}")
    for token in prompt:
        console.note(f"{token:6d} -> '{tokenizer.piece(token)}'")


def introduce(options: MainOptions, turns: Turns, context: int, keep: int, console: Console) -> None:
    """What is going to happen, in the words of 2023, which programs may look for."""
    if turns.interactive:
        console.note("main: interactive mode on.")
        reverse = [*turns.reverse_prompts, *(["### Instruction:\\n\\n"] if turns.instruct else [])]
        for label, texts in (
            ("Reverse prompt", reverse),
            ("Input prefix", [turns.in_prefix]),
            ("Input suffix", [turns.in_suffix]),
        ):
            for text in filter(None, texts):
                console.note(f"{label}: '{text}'")
    o = options
    console.note(
        f"sampling: repeat_last_n = {o.repeat_last_n}, repeat_penalty = {o.repeat_penalty:f}, presence_penalty = "
        f"{o.presence_penalty:f}, frequency_penalty = {o.frequency_penalty:f}, top_k = {o.top_k}, tfs_z = {o.tfs:f}, "
        f"top_p = {o.top_p:f}, typical_p = {o.typical:f}, temp = {o.temp:f}, mirostat = {o.mirostat}, mirostat_lr = "
        f"{o.mirostat_lr:f}, mirostat_ent = {o.mirostat_ent:f}"
    )
    console.note(
        f"generate: n_ctx = {context}, n_batch = {turns.batch}, n_predict = {turns.n_predict}, n_keep = {keep}\n\n"
    )
    if turns.interactive:
        ends = (
            " - To return control to LLaMa, end your input with '\\'.\n"
            if options.multiline_input
            else " - Press Return to return control to LLaMa.\n"
        )
        more = "" if options.multiline_input else " - If you want to submit another line, end your input with '\\'.\n"
        console.note(
            "== Running in interactive mode. ==\n - Press Ctrl+C to interject at any time.\n"
            f"{ends} - To return control without starting a new line, end your input with '/'.\n{more}"
        )


def test_memory(opened: Opened, batch: int, console: Console) -> None:
    """--mtest: evaluate one full batch and say what it took."""
    model = opened.model
    count = min(batch, MOST_TOKENS, model.context_length)
    token = opened.tokenizer.bos or 0
    model.new_session().forward([token] * count)
    need = memory_needed(model.checkpoint, model.config, model.context_length) / (1 << 20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 10)
    console.note(
        f"main: {count} tokens evaluated; the process has used {peak:.0f} MiB at most; with a full context of "
        f"{model.context_length} tokens the model needs {need:.0f} MiB"
    )
