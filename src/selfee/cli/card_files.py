"""The files of a folder for ``selfee card``: read, hashed, measured, joined with what ``selfee perplexity`` found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from selfee.cli.output import for_terminal
from selfee.cli.progress import QuietDisplay, WorkDisplay
from selfee.errors import BadFileError, ResourceError, UsageError
from selfee.eval.memory import measure_memory
from selfee.eval.results import Quality, read_results
from selfee.weights import ggml, gguf
from selfee.weights.card.facts import FileFacts, MemoryFigure, QualityFigure, read_facts
from selfee.weights.printable import printable

_ENDINGS = (".gguf", ".bin", ".ggml")


class CardDisplay(WorkDisplay):
    """Shows what is being read and run."""

    def note(self, text: str) -> None:
        """A line that stays."""
        super().note(printable(text, 400))

    def tokens(self, label: str, done: int, total: int) -> None:
        """So many tokens of a full context are evaluated."""
        if self._screen.is_terminal:
            self._clear()
            self._screen.write(f"{for_terminal(label)}  {done:,} of {total:,} tokens")
            self._is_open = True


class QuietCardDisplay(QuietDisplay):
    """Shows nothing."""

    def tokens(self, label: str, done: int, total: int) -> None: ...


AnyDisplay = CardDisplay | QuietCardDisplay


class Reader:
    """Reads the model files of a folder; ``skipped`` says which others are there, and why they are left out."""

    def __init__(self, context: int, threads: int | None, measure: bool, display: AnyDisplay) -> None:
        self.skipped: list[str] = []
        self._others: list[str] = []
        self._context = context
        self._threads = threads
        self._measures = measure
        self._display = display

    def read_folder(self, folder: Path, ignored: Sequence[Path] = ()) -> list[FileFacts]:
        """The facts of every model file; nothing is said of ``ignored`` files.

        Raises UsageError where there is no folder or no model in it.
        """
        try:
            paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        except NotADirectoryError as error:
            raise UsageError(f"{folder}: is a file; expected the folder that holds the model files") from error
        except OSError as error:
            raise UsageError(f"{folder}: cannot be read ({error.strerror}); expected a folder of models") from error
        ours = {path.resolve() for path in ignored}
        known = [facts for path in paths if path.resolve() not in ours and (facts := self._read(path))]
        if self._others:
            self.skipped.append(f"{folder}: {', '.join(self._others)}: no GGUF or GGML files")
        if not known:
            others = f" ({self.skipped[0]})" if self.skipped else ""
            raise UsageError(f"{folder}: holds no model{others}; expected GGUF or GGML files; name their folder")
        return known

    def _read(self, path: Path) -> FileFacts | None:
        """The facts of one file, None if it is left out."""
        try:
            if not _is_model(path):
                self._others.append(path.name)
                return None
            self._display.begin(f"reading {path.name}", path.stat().st_size, 0)
            try:
                facts = read_facts(path, self._context, self._display.advance)
            finally:
                self._display.end()
        except BadFileError as error:
            self.skipped.append(str(error))
            return None
        except OSError as error:
            self.skipped.append(f"{path}: cannot be read ({error.strerror})")
            return None
        return self._measured(path, facts) if self._measures else facts

    def _measured(self, path: Path, facts: FileFacts) -> FileFacts:
        """With memory as measured; where that fails the computed figure stays, and why."""
        if facts.memory is None:
            return facts
        context = facts.memory.context
        done = 0

        def tell(count: int) -> None:
            nonlocal done
            done += count
            self._display.tokens(f"running {path.name}", done, context)

        tell(0)

        try:
            use = measure_memory(path, context, threads=self._threads, on_tokens=tell)
        except (BadFileError, ResourceError) as error:
            reason = str(error).removeprefix(f"{path}: ")
            self._display.note(f"{path}: its memory was not measured: {reason}")
            return replace(facts, memory=replace(facts.memory, note=f"its memory was not measured: {reason}"))
        finally:
            self._display.end()
        figure = MemoryFigure(context, use.peak, measured=True, weights=use.weights, own=use.own)
        return replace(facts, memory=figure)


def _is_model(path: Path) -> bool:
    """Whether a file is a model by its first bytes, or says so by its ending (then its error is worth telling)."""
    with path.open("rb") as file:
        magic = file.read(4)
    return magic == gguf.MAGIC or magic in ggml.MAGICS or path.suffix.lower() in _ENDINGS


def add_quality(
    files: Sequence[FileFacts], results: Path, *, required: bool, display: AnyDisplay
) -> tuple[FileFacts, ...]:
    """The files with what a results file says of them; a line counts for the very bytes it was measured on.

    Raises UsageError if ``required`` and there is no such file, BadFileError for lines that are no measurements.
    """
    if not results.is_file():
        if required:
            raise UsageError(f"{results}: there is no such file; expected one that selfee perplexity --out wrote")
        return tuple(files)
    rows = read_results(results)
    for row in rows:
        stale = [file.file for file in files if file.file == row.file and file.sha256 != row.sha256]
        if stale and not any(file.sha256 == row.sha256 for file in files):
            display.note(f"{results}: a line is about another file named {row.file}; measure it again")
    return tuple(replace(file, quality=_figures(file, rows)) for file in files)


def _figures(file: FileFacts, rows: Sequence[Quality]) -> tuple[QualityFigure, ...]:
    """The last measurement under each setting."""
    found = {_setting(row): row for row in rows if row.sha256 == file.sha256}
    return tuple(
        QualityFigure(
            setting=setting,
            ppl=row.ppl,
            ppl_error=row.ppl_error,
            base=row.base,
            ppl_difference=row.ppl_difference,
            ppl_difference_error=row.ppl_difference_error,
            kld=row.kld_mean,
            kld_99=row.kld_percentiles.get("99"),
            same_top=row.same_top,
        )
        for setting, row in found.items()
    )


def _setting(row: Quality) -> str:
    """Text and settings in words; figures of one setting can be compared."""
    base = "without a base" if row.base is None else f"against {row.base} (PPL {row.base_ppl or 0:.4f})"
    scored = "" if row.definition == "current" else f", positions scored as in {row.definition}"
    cache = "" if row.cache_type == "f16" else f", cache {row.cache_type}"
    return (
        f"{row.text} (SHA-256 {row.text_sha256[:16]}…), {row.chunks} chunks of {row.n_ctx} tokens{scored}{cache}, "
        f"{base}, by selfee {row.selfee}"
    )
