"""``tokenizer.json`` (and the older ``vocab.json`` with ``merges.txt``): pieces by id and merges, best first.

Two kinds of vocabulary are written in this form: byte-level BPE (GPT-2's, Llama 3's, Qwen's), and SentencePiece's
vocabulary of LLaMA spelt out as merges, where the scores have to be found again from the order of the merges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfee.errors import BadFileError, UnsupportedFileError, UsageError
from selfee.weights.huggingface.json_file import JsonFile, read_json, read_small, refuse_surrogates
from selfee.weights.huggingface.pretokenizers import PRE_TOKENIZERS, recognize
from selfee.weights.printable import printable
from selfee.weights.vocab_keys import BYTE, NORMAL

_SPACE = "\u2581"
_NEVER_MERGED = -1e9  # the score of a piece that no merge makes, as LLaMA's vocabulary has it
_LARGEST_MERGES = 1 << 26
_LONGEST_SPLIT = 256  # characters of a piece whose splits are counted
_KNOWN_NORMALIZERS = frozenset({"NFC", "Prepend", "Replace"})


@dataclass(frozen=True)
class Pieces:
    """A vocabulary before the added tokens: texts, scores and types by id; holes are None."""

    model: str  # "llama" or "gpt2", as in GGUF
    pre: str
    texts: Sequence[str | None]
    scores: Sequence[float] | None
    types: Sequence[int]
    merges: Sequence[str]
    add_space_prefix: bool = False
    notes: Sequence[str] = field(default_factory=tuple)


def is_byte_level(file: JsonFile) -> bool:
    """Whether a tokenizer.json is one of bytes; otherwise it is SentencePiece's spelt out."""
    return any(step.get("type") == "ByteLevel" for key in ("pre_tokenizer", "decoder") for step in _steps(file, key))


def pieces_of(file: JsonFile, limit: int, pre: str | None = None) -> Pieces:
    """The pieces of a tokenizer.json. ``limit`` is the number of rows of the embedding: no id may reach it.

    ``pre`` names the family of cuts where the file's own are not known. Raises BadFileError for a damaged file,
    UnsupportedFileError for another kind of tokenizer.
    """
    model = file.part("model")
    if model is None:
        raise file.bad("model", "an object")
    kind = model.get("type") or ("BPE" if "merges" in model.values else None)
    if kind != "BPE":
        raise UnsupportedFileError(
            f"{file.path}: the tokenizer is of kind {printable(str(kind), 30)}; selfee reads BPE; use a model with that"
        )
    texts = _by_id(model, limit)
    merges = _merges(model, texts)
    names = [str(step.get("type")) for step in _steps(file, "normalizer")]
    strange = [name for name in names if name not in _KNOWN_NORMALIZERS]
    if strange:
        raise UnsupportedFileError(
            f"{file.path}: the tokenizer changes texts first ({printable(strange[0], 30)}); selfee takes them as they "
            "are; use another model"
        )
    if is_byte_level(file):
        name = pre or _family(file, model)
        return Pieces("gpt2", name, texts, None, [NORMAL] * len(texts), merges)
    return _sentencepieces(file, texts, merges)


def pieces_of_pair(vocab: Path, merges: Path, limit: int, pre: str | None) -> Pieces:
    """The pieces of vocab.json and merges.txt, GPT-2's own form, which does not say how texts are cut."""
    if pre is None:
        raise UsageError(
            f"{vocab.parent}: vocab.json and merges.txt do not say how texts are cut before merging; add --pre with "
            f"one of {', '.join(sorted(PRE_TOKENIZERS))}"
        )
    file = read_json(vocab)
    texts = _by_id(JsonFile(vocab, {"vocab": file.values}), limit)
    try:
        lines = read_small(merges, _LARGEST_MERGES, "a list of merges").decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise BadFileError(f"{merges}: is no UTF-8; expected one merge a line; fetch it again") from None
    pairs = [line.rstrip("\r") for line in lines if line.rstrip("\r") and not line.startswith("#version")]
    return Pieces("gpt2", pre, texts, None, [NORMAL] * len(texts), _merges(JsonFile(merges, {"merges": pairs}), texts))


def begins_texts(file: JsonFile, bos: str | None) -> bool | None:
    """Whether the post-processor puts ``bos`` before every text; None where the file has none that says."""
    for step in _steps(file, "post_processor"):
        if step.get("type") == "TemplateProcessing":
            single = step.get("single")
            first = single[0] if isinstance(single, list) and single else None
            special = first.get("SpecialToken") if isinstance(first, dict) else None
            return bos is not None and isinstance(special, dict) and special.get("id") == bos
    return None


def _steps(file: JsonFile, key: str) -> Iterator[Mapping[str, Any]]:
    """The parts of a pipeline, whether it is one or a sequence of them."""
    part = file.part(key)
    if part is None:
        return
    if part.get("type") != "Sequence":
        yield part.values
        return
    for name in ("pretokenizers", "normalizers", "decoders", "processors"):
        for step in part.list(name):
            if not isinstance(step, dict):
                raise part.bad(name, "a list of objects")
            yield step


def _family(file: JsonFile, model: JsonFile) -> str:
    name = recognize(list(_steps(file, "pre_tokenizer")), whole_words=bool(model.flag("ignore_merges")))
    if name is None:
        raise UnsupportedFileError(
            f"{file.path}: the way its texts are cut before merging is none that selfee knows; expected that of "
            f"{', '.join(sorted(PRE_TOKENIZERS))}; if it is one of these in other words, add --pre NAME"
        )
    return name


def _by_id(model: JsonFile, limit: int) -> list[str | None]:
    vocab = model.part("vocab")
    if vocab is None or not vocab.values:
        raise model.bad("vocab", "texts with their ids")
    texts: list[str | None] = []
    for text, token in vocab.values.items():
        if type(token) is not int or not 0 <= token < limit:
            raise BadFileError(
                f"{model.path}: token '{printable(text, 40)}' has id {printable(repr(token), 30)}; expected 0 to "
                f"{limit - 1}, the rows of the embedding; the tokenizer belongs to another model: name its own "
                "(--vocab-from FOLDER)"
            )
        if token >= len(texts):
            texts.extend([None] * (token + 1 - len(texts)))
        if texts[token] is not None:
            raise BadFileError(
                f"{model.path}: tokens '{printable(texts[token] or '', 40)}' and '{printable(text, 40)}' share id "
                f"{token}; expected one each; the file is damaged; fetch it again"
            )
        texts[token] = refuse_surrogates(model.path, text, f"token {token}")
    return texts


def _merges(model: JsonFile, texts: Sequence[str | None]) -> list[str]:
    merges = []
    known = set(texts)
    for index, merge in enumerate(model.list("merges")):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(half, str) and half for half in pair)):
            raise BadFileError(
                f"{model.path}: merge {index} is {printable(repr(merge), 40)}; expected two pieces; the file is "
                "damaged; fetch it again"
            )
        if not known.issuperset((*pair, "".join(pair))):
            raise BadFileError(
                f"{model.path}: merge {index} is {printable(repr(merge), 40)}; expected pieces, and their joined text, "
                "that "
                "are tokens; the file is damaged; fetch it again"
            )
        merges.append(refuse_surrogates(model.path, " ".join(pair), f"merge {index}"))
    return merges


def _sentencepieces(file: JsonFile, texts: Sequence[str | None], merges: Sequence[str]) -> Pieces:
    ranks: dict[str, int] = {}
    for merge in merges:
        ranks.setdefault(merge.replace(" ", "", 1), len(ranks))
    scores, types = [], []
    for token, text in enumerate(texts):
        is_byte = text is not None and len(text) == 6 and text.startswith("<0x") and text.endswith(">")
        types.append(BYTE if is_byte else NORMAL)
        if text in ranks:
            scores.append(-1.0 - ranks[text])
        else:
            scores.append(
                0.0 if is_byte or token < 3 else float(-len(ranks) - token) if _is_one(text) else _NEVER_MERGED
            )
    names = {str(step.get("type")): step for step in (*_steps(file, "normalizer"), *_steps(file, "pre_tokenizer"))}
    metaspace = names.get("Metaspace", {})
    scheme = metaspace.get("prepend_scheme", "always" if metaspace.get("add_prefix_space", True) else "never")
    adds_space = "Prepend" in names or ("Metaspace" in names and scheme != "never")
    notes = []
    if not _has_all_splits(ranks, merges, texts):
        notes.append(
            "its merges are not those of a SentencePiece vocabulary, so some texts may be cut into other tokens; a "
            "tokenizer.model beside it would be exact"
        )
    return Pieces("llama", "default", texts, scores, types, [], adds_space, notes)


def _is_one(text: str | None) -> bool:
    return text is not None and len(text) == 1


def _has_all_splits(ranks: Mapping[str, int], merges: Sequence[str], texts: Sequence[str | None]) -> bool:
    """Whether every way to put a piece together from two is among the merges: then scores say the same."""
    known = {text for text in texts if text}
    possible = sum(
        piece[:cut] in known and piece[cut:] in known
        for piece in ranks
        for cut in range(1, min(len(piece), _LONGEST_SPLIT))
    )
    return possible <= len(set(merges))
