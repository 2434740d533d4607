"""``selfee convert``: a model from one form to another: GGUF, GGML, a Hugging Face folder."""

from __future__ import annotations

import enum
import os
import re
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfee.cli.file_options import Rules, parse_size
from selfee.cli.model_file import local_file
from selfee.cli.output import Color, Screen, for_terminal, screen_of
from selfee.cli.places import require_apart
from selfee.cli.shared_options import AsJson, Colored, Quiet, Threads

if TYPE_CHECKING:
    from selfee.weights.checkpoint import Checkpoint, Vocab
    from selfee.weights.convert import Conversion, ConvertOptions

EXAMPLES = """Examples:

\b
  selfee convert SmolLM2-135M-Instruct/ smollm2-f16.gguf --type f16
  selfee convert selfee-13b/ ggml-model-f16.bin --type f16
  selfee convert selfee-13b.ggmlv3.q4_0.bin selfee-13b.q4_0.gguf
  selfee convert smollm2-135m smollm2-hf/
  selfee convert smollm2-135m ours.gguf --adapter run/adapter --type q8_0 --allow-requantize
  selfee convert model-f32.gguf model-q4_K_M.gguf --type q4_K_M
  selfee convert smollm2-hf/ smollm2-gptq/ --format gptq --calibration text.txt

\b
IN is a GGUF file, a GGML file (all versions of 2023), or the folder of a Hugging Face or Meta model.
OUT says the form: NAME.gguf, NAME.bin (GGML, ggjt v3), or the name of a folder (Hugging Face, safetensors).
"""

app = typer.Typer(rich_markup_mode=None, add_completion=False)


class OutFormat(enum.Enum):
    """What may be written."""

    GGUF = "gguf"
    GGML = "ggml"
    SAFETENSORS = "safetensors"
    GPTQ = "gptq"


@app.command("convert", epilog=EXAMPLES)
def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="A model file or folder, or a downloaded model's name.")],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file (replaced whole if it is there) or folder to write.")
    ],
    type: Annotated[
        str,
        typer.Option(help="keep: every tensor as it is, byte for byte. Or a file type: f32 f16 bf16 q8_0 q4_K_M …"),
    ] = "keep",
    format: Annotated[OutFormat | None, typer.Option(help="The form of OUT, where its name does not say.")] = None,
    rules: Annotated[Rules, typer.Option(help="Mixtures and quantisers of June 2023 or of today.")] = Rules.CURRENT,
    vocab_from: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Take the tokenizer from this folder or model file.")
    ] = None,
    pre: Annotated[
        str | None, typer.Option(metavar="NAME", help="How a byte-level vocabulary cuts texts, if that is not known.")
    ] = None,
    eps: Annotated[
        float | None, typer.Option(help="The norms' epsilon of a GGML file: 1e-6 for LLaMA 1 (default), 1e-5 for 2.")
    ] = None,
    context: Annotated[
        int | None, typer.Option("-c", "--context", min=1, help="The context length of a GGML file or Meta folder.")
    ] = None,
    max_shard_size: Annotated[
        str, typer.Option(metavar="SIZE", help="The largest file of a Hugging Face folder.")
    ] = "5G",
    calibration: Annotated[
        Path | None, typer.Option(metavar="TEXT", help="A text like the model's own, for --format gptq.")
    ] = None,
    bits: Annotated[int, typer.Option(help="Bits of a weight: 2, 3, 4 or 8, for --format gptq.")] = 4,
    group_size: Annotated[int, typer.Option(help="Weights that share a scale, for --format gptq.")] = 128,
    adapter: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Add this LoRA adapter to the model: a folder of peft or its file."),
    ] = None,
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", help="Quantise what is quantised already.")
    ] = False,
    threads: Threads = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT also where it is a folder.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Open the model, plan, write, say what became of it."""
    from selfee.weights.convert import ConvertOptions
    from selfee.weights.quantization.recipes import RuleSet

    path = local_file(source)
    _require_epsilon(eps)
    require_apart(target, path, vocab_from, calibration)
    _check_folder_options(path, pre, context)
    wanted = format or _format_of(target)
    options = ConvertOptions(
        type=type,
        rules=RuleSet(rules.value),
        epsilon=eps,
        context=None if os.path.isdir(path) else context,
        allow_requantize=allow_requantize,
        max_shard_bytes=parse_size(max_shard_size, "--max-shard-size"),
        force=force,
    )
    job = _Job(path, options, vocab_from, pre, context, threads, quiet, screen_of(sys.stderr, color), adapter)
    if wanted is OutFormat.GPTQ:
        _export_gptq(job, target, calibration, bits, group_size)
        return
    started = time.monotonic()
    plan = _convert(job, target, wanted)
    _show(plan, target, screen_of(sys.stdout, color), as_json, time.monotonic() - started)


@dataclass(frozen=True)
class _Job:
    """What is to be converted, and how."""

    source: Path
    options: ConvertOptions
    vocab_from: Path | None
    pre: str | None
    context: int | None
    threads: int | None
    quiet: bool
    stderr: Screen
    adapter: Path | None = None


def _convert(job: _Job, target: Path, wanted: OutFormat) -> Conversion:
    from selfee.weights.adapter import read_adapter, with_adapter
    from selfee.weights.convert import Format, plan_conversion
    from selfee.weights.quantize import Quantizer

    form = Format(wanted.value)
    with _open(job) as opened:
        checkpoint = opened if job.adapter is None else with_adapter(opened, read_adapter(job.adapter))
        options = replace(job.options, vocab=_vocab(job.vocab_from, checkpoint))
        plan = plan_conversion(checkpoint, form, options, quantizer=Quantizer(job.threads))
        _carry_out(plan, target, job.stderr, job.quiet)
    return plan


def _export_gptq(job: _Job, target: Path, calibration: Path | None, bits: int, group_size: int) -> None:
    """Hand a folder over to GPTQ's library; from any other form a folder is made first, for the time being."""
    from tempfile import TemporaryDirectory

    from selfee.errors import UsageError
    from selfee.weights.huggingface.gptq import calibration_pieces, export_gptq

    if calibration is None:
        raise UsageError("--format gptq: is fitted on a text; expected --calibration TEXT")
    calibration_pieces(calibration)
    on_line = None if job.quiet else lambda line: job.stderr.write(f"{for_terminal(line)}\n")
    settings: dict[str, Any] = {"calibration": calibration, "bits": bits, "group_size": group_size}
    settings |= {"force": job.options.force, "on_line": on_line}
    if os.path.isdir(job.source) and any(job.source.glob("*.safetensors")):
        export_gptq(job.source, target, **settings)
        return
    with TemporaryDirectory(prefix=".selfee-", dir=target.absolute().parent) as beside:
        folder = Path(beside) / (job.source.stem or "model")
        _convert(job, folder, OutFormat.SAFETENSORS)
        export_gptq(folder, target, **settings)


def _format_of(target: Path) -> OutFormat:
    from selfee.errors import UsageError

    known = {".gguf": OutFormat.GGUF, ".bin": OutFormat.GGML}
    if target.suffix.lower() in known and not os.path.isdir(target):
        return known[target.suffix.lower()]
    if os.path.isdir(target) or not re.fullmatch(r"\.[A-Za-z]\w*", target.suffix):  # "llama-2.7b" has no ending
        return OutFormat.SAFETENSORS
    raise UsageError(
        f"{target}: its ending says no form; expected NAME.gguf, NAME.bin (GGML) or the name of a folder (Hugging "
        "Face), or --format gguf, ggml or safetensors"
    )


def _require_epsilon(eps: float | None) -> None:
    from selfee.errors import UsageError

    if eps is not None and not 1e-38 < eps < 1:  # what float32 holds as more than nothing
        raise UsageError(f"--eps {eps}: expected a small number such as 1e-6 or 1e-5")


def _check_folder_options(path: Path, pre: str | None, context: int | None) -> None:
    from selfee.errors import UsageError

    if os.path.isdir(path) and context is not None and (path / "config.json").exists():
        raise UsageError(f"--context: {path / 'config.json'} states it; expected a GGML file or Meta folder")
    if not os.path.isdir(path) and pre is not None:
        raise UsageError(f"--pre: {path} is a file and names its own; expected a Hugging Face folder")


def _open(job: _Job) -> Checkpoint:
    from selfee.weights.huggingface.checkpoint import open_folder
    from selfee.weights.open import open_checkpoint

    if not os.path.isdir(job.source):
        return open_checkpoint(job.source)
    return open_folder(job.source, vocab_from=job.vocab_from, pre=job.pre, context=job.context)


def _vocab(vocab_from: Path | None, checkpoint: Checkpoint) -> Vocab | None:
    """The vocabulary of --vocab-from for a file; a folder has been opened with it."""
    from selfee.weights.huggingface.vocab_source import vocab_of

    embedding = checkpoint.tensors.get("token_embd.weight")
    if vocab_from is None or embedding is None or checkpoint.path.is_dir():
        return None
    return vocab_of(vocab_from, embedding.shape[0]).vocab


def _carry_out(plan: Conversion, target: Path, stderr: Screen, quiet: bool) -> None:
    from selfee.cli.progress import QuietDisplay, WorkDisplay

    display = QuietDisplay() if quiet else WorkDisplay(stderr)
    display.begin(target.name, plan.nbytes, 0)
    try:
        plan.write(target, display.advance)
    finally:
        display.end()


def _show(plan: Conversion, target: Path, stdout: Screen, as_json: bool, seconds: float) -> None:
    from selfee.weights.disk import human_size

    size = plan.file_bytes or sum(file.stat().st_size for file in target.iterdir())
    if as_json:
        value: dict[str, Any] = {
            "target": str(target),
            "format": plan.format.value,
            "file_type": plan.file_type,
            "bytes": size,
            "tensor_bytes": plan.nbytes,
            "tensors": dict(plan.types),
            "copied": plan.copied,
            "notes": list(plan.notes),
            "seconds": round(seconds, 3),
        }
        stdout.write_json(value, indent=2)
        return
    shares = ", ".join(f"{name.lower()} × {count}" for name, count in plan.types.items())
    total = sum(plan.types.values())
    stdout.write(
        f"{for_terminal(str(target))}: written in {seconds:.1f} s: {plan.format.value}, {human_size(size)} ({size:,} "
        f"bytes)\n  {shares}; {plan.copied} of {total} tensors copied as they are\n"
    )
    for note in plan.notes[:12]:
        stdout.write(stdout.style(f"  {for_terminal(note)}\n", "dim"))
    if len(plan.notes) > 12:
        stdout.write(stdout.style(f"  and {len(plan.notes) - 12} more notes (--json lists them all)\n", "dim"))
