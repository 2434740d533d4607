"""``selfee quantize``: a model file in fewer bits, by name of the mixture, by pattern, or by size."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfee.cli.file_options import Rules, parse_size
from selfee.cli.model_file import local_file
from selfee.cli.output import Color, Screen, for_terminal, screen_of
from selfee.cli.places import require_apart, require_writable
from selfee.cli.shared_options import AsJson, Colored, Quiet, Threads

if TYPE_CHECKING:
    from selfee.weights.checkpoint import Checkpoint
    from selfee.weights.fetch.download import Progress
    from selfee.weights.quantization.quantize_file import Plan, Report
    from selfee.weights.quantization.recipes import Recipe
    from selfee.weights.quantization.transcode import Importance
    from selfee.weights.quantize import Quantizer
    from selfee.weights.quants import QuantType

EXAMPLES = """Examples:

\b
  selfee quantize model-f16.gguf model-q4_K_M.gguf q4_K_M
  selfee quantize ggml-model-f16.bin selfee-13b.ggmlv3.q4_0.bin q4_0 --rules 2023-06-05
  selfee quantize model-f16.gguf small.gguf --target-size 80M --imatrix model.imatrix.gguf
  selfee quantize model-f16.gguf out.gguf q4_K_M --tensor-type ffn_down=q6_K --dry-run

\b
File types: f32 f16 bf16, q4_0 q4_1 q5_0 q5_1 q8_0, q2_K q3_K_S q3_K_M q3_K_L q4_K_S q4_K_M q5_K_S q5_K_M q6_K.
The container stays what it is (GGUF, or GGML as ggjt v3); selfee convert changes it.
"""

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("quantize", epilog=EXAMPLES)
def quantize(
    source: Annotated[str, typer.Argument(metavar="IN", help="A model file, or the name of a downloaded model.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write; replaced whole if it is there.")],
    type: Annotated[
        str | None, typer.Argument(metavar="[TYPE]", help="The file type, such as q4_K_M; not with a target.")
    ] = None,
    rules: Annotated[Rules, typer.Option(help="Mixtures and quantisers of June 2023 or of today.")] = Rules.CURRENT,
    imatrix: Annotated[
        Path | None, typer.Option(help="An importance matrix (selfee imatrix), with the current rules.")
    ] = None,
    pure: Annotated[bool, typer.Option("--pure", help="Every matrix in the base type of TYPE.")] = False,
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN=TYPE", help="The type of tensors whose name has PATTERN; may be repeated."),
    ] = None,
    output_tensor_type: Annotated[str | None, typer.Option(metavar="TYPE", help="Of output.weight.")] = None,
    token_embedding_type: Annotated[str | None, typer.Option(metavar="TYPE", help="Of token_embd.weight.")] = None,
    leave_output_tensor: Annotated[
        bool, typer.Option("--leave-output-tensor", help="Keep output.weight as it is.")
    ] = False,
    target_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Choose types for a file of at most SIZE: 700M, 1.2G, bytes.")
    ] = None,
    target_bpw: Annotated[
        float | None, typer.Option(min=1.0, max=32.0, help="Choose types for at most so many bits per weight.")
    ] = None,
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", help="Accept a source that is quantised already.")
    ] = False,
    threads: Threads = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and its exact size.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Open the model, decide, write, say what became of it."""
    from selfee.cli.progress import QuietDisplay, WorkDisplay
    from selfee.weights.open import open_checkpoint
    from selfee.weights.quantization.quantize_file import require_plain, require_readable
    from selfee.weights.quantize import Quantizer

    path = local_file(source)
    if dry_run:
        require_apart(target, path, imatrix)
    else:
        require_writable(target, path, imatrix)
    display = QuietDisplay() if quiet else WorkDisplay(screen_of(sys.stderr, color))
    overrides = _overrides(tensor_type or [], output_tensor_type, token_embedding_type, leave_output_tensor)
    started = time.monotonic()
    with open_checkpoint(path) as checkpoint:
        _require_same_container(checkpoint, source, target)
        require_plain(checkpoint, allow_requantize)
        require_readable(checkpoint)
        _require_matches(checkpoint, tensor_type or [])
        importance = _importance(imatrix, checkpoint, rules)
        quantizer = Quantizer(threads)
        if target_size is not None or target_bpw is not None:
            _require_free(type, pure, rules, (target_size, target_bpw))
            wanted = parse_size(target_size, "--target-size") if target_size is not None else None
            plan = _plan_for_size(checkpoint, wanted, target_bpw, overrides, importance, quantizer, display)
        else:
            plan = _plan_for_type(checkpoint, _recipe(type, rules, pure, overrides, importance))
        report = _carry_out(checkpoint, target, plan, quantizer, importance, display, dry_run)
    _show(report, screen_of(sys.stdout, color), as_json, dry_run, time.monotonic() - started)


def _require_same_container(checkpoint: Checkpoint, source: str, target: Path) -> None:
    """A GGML file under a name that says GGUF would deceive every program."""
    from selfee.errors import UsageError
    from selfee.weights.ggml import GgmlCheckpoint

    if isinstance(checkpoint, GgmlCheckpoint) and target.suffix == ".gguf":
        raise UsageError(
            f"{target}: {source} is a GGML file, and so would this be; expected a name such as {target.stem}.bin; for "
            f"GGUF: selfee convert {source} {target} --type TYPE"
        )


_Overrides = list[tuple[str, "QuantType | None"]]


def _overrides(patterns: list[str], output: str | None, embedding: str | None, leave: bool) -> _Overrides:
    """(pattern, type or None to keep what a tensor has) in the order in which they win."""
    from selfee.errors import UsageError

    found: _Overrides = [(r"^output\.weight$", None)] if leave else []
    for text in patterns:
        pattern, _, name = text.rpartition("=")
        if not pattern or not name:
            raise UsageError(f"--tensor-type '{text}': expected PATTERN=TYPE, such as ffn_down=q6_K")
        found.append((pattern, _block_type(name)))
    if output:
        found.append((r"^output\.weight$", _block_type(output)))
    if embedding:
        found.append((r"^token_embd\.weight$", _block_type(embedding)))
    return found


def _require_matches(checkpoint: Checkpoint, typed: list[str]) -> None:
    """A pattern that fits nothing is a slip of the keyboard."""
    from selfee.errors import UsageError
    from selfee.weights.quantization.recipes import is_matrix, tensor_pattern

    names = [name for name, tensor in checkpoint.tensors.items() if is_matrix(tensor)]
    for text in typed:
        pattern = tensor_pattern(text.rpartition("=")[0])
        if not any(pattern.search(name) for name in names):
            raise UsageError(
                f"--tensor-type '{text}': fits the name of no matrix; expected a part of one, such as {names[-1]}"
                if names
                else f"--tensor-type '{text}': the file has no matrix"
            )


def _block_type(name: str) -> QuantType:
    """A tensor's type by name; "q4_K_M" names a mixture, whose base is meant."""
    from selfee.errors import UsageError
    from selfee.weights.quantization.recipes import FileType
    from selfee.weights.quants import QuantType

    known = {kind.base.name.lower(): kind.base for kind in FileType}
    found = known.get(re.sub("_[sml]$", "", name.strip().lower()))
    if not isinstance(found, QuantType):
        raise UsageError(f"tensor type '{name}': unknown; choose one of {' '.join(known)}")
    return found


def _importance(path: Path | None, checkpoint: Checkpoint, rules: Rules) -> Importance | None:
    from selfee.errors import UsageError
    from selfee.weights.quantization.imatrix import read_imatrix

    if path is None:
        return None
    if rules is not Rules.CURRENT:
        raise UsageError(f"--rules {rules.value}: knew no importance matrix; expected --rules current with --imatrix")
    importance = read_imatrix(path)
    importance.check(checkpoint)
    return importance


def _require_free(type: str | None, pure: bool, rules: Rules, targets: tuple[str | None, float | None]) -> None:
    from selfee.errors import UsageError

    if None not in targets:
        raise UsageError("--target-size and --target-bpw: both were given; expected one of them")
    if type is not None or pure:
        raise UsageError("a target size chooses the types by itself; expected neither TYPE nor --pure with it")
    if rules is not Rules.CURRENT:
        raise UsageError(f"--rules {rules.value}: knew no target size; expected --rules current with it")


def _recipe(type: str | None, rules: Rules, pure: bool, overrides: _Overrides, importance: Importance | None) -> Recipe:
    from selfee.errors import UsageError
    from selfee.weights.quantization.recipes import Recipe, RuleSet, file_type

    if type is None:
        raise UsageError("no TYPE and no target: expected a file type such as q4_K_M, --target-size or --target-bpw")
    return Recipe(file_type(type), RuleSet(rules.value), pure, tuple(overrides), importance is not None)


def _plan_for_type(checkpoint: Checkpoint, recipe: Recipe) -> Plan:
    from selfee.weights.quantization.quantize_file import Plan
    from selfee.weights.quantization.recipes import ModelFacts, choose_types

    facts = ModelFacts.of(checkpoint.metadata, checkpoint.tensors)
    return Plan(choose_types(checkpoint.tensors.values(), recipe, facts), recipe.file_type, recipe.rules)


def _plan_for_size(
    checkpoint: Checkpoint,
    nbytes: int | None,
    bits: float | None,
    overrides: _Overrides,
    importance: Importance | None,
    quantizer: Quantizer,
    display: Progress,
) -> Plan:
    from math import prod

    from selfee.weights.quantization.budget import choose_for_size
    from selfee.weights.quantization.quantize_file import Plan, nearest_file_type, room_for_tensors
    from selfee.weights.quantization.recipes import RuleSet, override_types

    fixed = override_types(checkpoint.tensors.values(), overrides)
    values = sum(prod(tensor.shape) for tensor in checkpoint.tensors.values())
    room, alignment = int((bits or 0) * values / 8), 1
    if nbytes is not None:
        room, alignment = room_for_tensors(checkpoint, nbytes)
    display.begin("measuring errors", sum(tensor.nbytes for tensor in checkpoint.tensors.values()), 0)
    try:
        budget = choose_for_size(
            checkpoint,
            room,
            quantizer=quantizer,
            fixed={name: choice.type for name, choice in fixed.items()},
            alignment=alignment,
            importance=importance,
            on_tensor=display.advance,
        )
    finally:
        display.end()
    choices = {**budget.choices, **fixed}
    types = {name: choice.type for name, choice in choices.items()}
    return Plan(choices, nearest_file_type(types, checkpoint), RuleSet.CURRENT)


def _carry_out(
    checkpoint: Checkpoint,
    target: Path,
    plan: Plan,
    quantizer: Quantizer,
    importance: Importance | None,
    display: Progress,
    dry_run: bool,
) -> Report:
    from selfee.weights.quantization.quantize_file import report_of, target_size, write_quantized

    if dry_run:
        return report_of(checkpoint, target, plan)
    display.begin(target.name, target_size(checkpoint, plan), 0)
    try:
        return write_quantized(checkpoint, target, plan, quantizer, importance=importance, on_bytes=display.advance)
    finally:
        display.end()


def _show(report: Report, stdout: Screen, as_json: bool, dry_run: bool, seconds: float) -> None:
    from dataclasses import asdict

    from selfee.weights.disk import human_size

    if as_json:
        value: dict[str, Any] = asdict(report) | {"written": not dry_run, "seconds": round(seconds, 3)}
        stdout.write_json(value, indent=2)
        return
    shares = ", ".join(f"{share.type.lower()} × {share.tensors}" for share in report.tensors)
    done = "would be written" if dry_run else f"written in {seconds:.1f} s"
    stdout.write(
        f"{for_terminal(report.target)}: {done}: {report.file_type}, rules {report.rules}\n"
        f"  {human_size(report.source_bytes)} → {human_size(report.target_bytes)} ({report.target_bytes:,} bytes), "
        f"{report.bits_per_weight:.2f} bits per weight\n  {shares}\n"
    )
    for note in report.notes:
        stdout.write(stdout.style(f"  {for_terminal(note)}\n", "dim"))
