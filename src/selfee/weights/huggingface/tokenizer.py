"""The tokenizer of a Hugging Face or Meta folder as a ``Vocab``.

The pieces come from tokenizer.model (SentencePiece), tokenizer.json or vocab.json with merges.txt; what was added
after training from added_tokens.json, tokenizer_config.json and tokenizer.json; the chat template from
chat_template.jinja or tokenizer_config.json. Nothing of them is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfee.errors import BadFileError, UsageError
from selfee.weights.checkpoint import Vocab
from selfee.weights.huggingface.config import read_generation_ends
from selfee.weights.huggingface.json_file import JsonFile, read_json_if_there, read_small, refuse_surrogates
from selfee.weights.huggingface.pretokenizers import PRE_TOKENIZERS
from selfee.weights.huggingface.sentencepiece_model import read_sentencepiece
from selfee.weights.huggingface.tokenizer_json import Pieces, begins_texts, is_byte_level, pieces_of, pieces_of_pair
from selfee.weights.mapped import StringArray
from selfee.weights.printable import printable
from selfee.weights.vocab_keys import CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED

_ADDED_SCORE = -1000.0  # as llama.cpp's converter has had it since 2023
_PADDING_SCORE = -10000.0
_LARGEST_TEMPLATE = 1 << 20
_ROLES = (("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token"))
# Folders of before tokenizer.json name the tokenizer's class instead of its cuts.
_CLASSES = {
    "Qwen2Tokenizer": "qwen2",
    "Qwen2TokenizerFast": "qwen2",
    "GPT2Tokenizer": "gpt-2",
    "GPT2TokenizerFast": "gpt-2",
}


@dataclass(frozen=True)
class FolderVocab:
    """A folder's vocabulary, and what to tell whoever converts it."""

    vocab: Vocab
    notes: Sequence[str] = field(default_factory=tuple)


def read_tokenizer(
    folder: Path, rows: int, *, special_ids: Mapping[str, int] | None = None, pre: str | None = None
) -> FolderVocab:
    """Read the tokenizer of a folder for a model whose embedding has ``rows`` rows.

    Rows without a token get unused ones, [PAD32000] and so on. ``special_ids`` are those of config.json, for roles
    that the tokenizer's own files leave open. ``pre`` names the cuts of a byte-level vocabulary (llama.cpp's names).
    Raises BadFileError and UnsupportedFileError as the files deserve, UsageError for an unknown ``pre``.
    """
    if pre is not None and pre not in PRE_TOKENIZERS:
        raise UsageError(f"--pre '{printable(pre, 40)}': unknown; choose one of {', '.join(sorted(PRE_TOKENIZERS))}")
    return _Reader(folder, rows, special_ids or {}, pre).read()


class _Reader:
    def __init__(self, folder: Path, rows: int, special_ids: Mapping[str, int], pre: str | None) -> None:
        self.folder = folder
        self.rows = rows
        self.special_ids = special_ids
        self.pre = pre
        self.config = read_json_if_there(folder / "tokenizer_config.json")
        self.roles = read_json_if_there(folder / "special_tokens_map.json")
        self.whole = read_json_if_there(folder / "tokenizer.json")

    def read(self) -> FolderVocab:
        pieces = self.pieces()
        texts: list[str | None] = list(pieces.texts)
        types = list(pieces.types)
        scores = None if pieces.scores is None else list(pieces.scores)
        for token, (added, is_special) in sorted(self.added().items()):
            while len(texts) <= token:
                texts.append(None)
                types.append(UNUSED)
                if scores is not None:
                    scores.append(_ADDED_SCORE)
            old = texts[token]
            if old is not None and old != added:
                raise self.conflict(token, old, added)
            texts[token] = added
            if types[token] in (NORMAL, UNUSED):
                types[token] = CONTROL if is_special else USER_DEFINED
        while len(texts) < self.rows:
            texts.append(None)
            types.append(UNUSED)
            if scores is not None:
                scores.append(_PADDING_SCORE)
        for token, text in enumerate(texts):
            if text is None:
                texts[token], types[token] = f"[PAD{token}]", UNUSED
        tokens = [(text or "").encode() for text in texts]
        return FolderVocab(self.vocab(pieces, tokens, types, scores), tuple(pieces.notes))

    def pieces(self) -> Pieces:
        folder = self.folder
        if self.whole.values and is_byte_level(self.whole):
            return pieces_of(self.whole, self.rows, self.pre)
        for name in ("tokenizer.model", "../tokenizer.model"):  # Meta puts LLaMA's beside the folders of all sizes
            if (folder / name).exists() and (name == "tokenizer.model" or (folder / "params.json").exists()):
                return self.sentencepieces(folder / name)
        if self.whole.values:
            return pieces_of(self.whole, self.rows, self.pre)
        if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
            known = _CLASSES.get(str(self.config.get("tokenizer_class")))
            return pieces_of_pair(folder / "vocab.json", folder / "merges.txt", self.rows, self.pre or known)
        raise BadFileError(
            f"{folder}: has no tokenizer.model, tokenizer.json, or vocab.json with merges.txt; expected one of them; "
            "fetch the rest of the model, or name a folder that has it (--vocab-from FOLDER)"
        )

    def sentencepieces(self, path: Path) -> Pieces:
        model = read_sentencepiece(path)
        if len(model.pieces) > self.rows:
            raise self.too_many(path, len(model.pieces))
        prefix = self.config.flag("add_prefix_space") is not False and model.add_dummy_prefix
        for role, token in (("unknown", model.unk), ("bos", model.bos), ("eos", model.eos), ("padding", model.pad)):
            if token >= 0:
                self.special_ids = {role: token} | dict(self.special_ids)
        return Pieces("llama", "default", model.pieces, model.scores, model.types, [], prefix, model.notes)

    def added(self) -> dict[int, tuple[str, bool]]:
        """Id -> text and whether it is special, from every file that tells of added tokens."""
        special = {text for _, key in _ROLES if (text := self.role_text(key))}
        for entry in self.roles.list("additional_special_tokens"):
            if text := _content(entry):
                special.add(text)
        found: dict[int, tuple[str, bool]] = {}

        def add(file: JsonFile, token: Any, text: Any, is_special: bool) -> None:
            if type(token) is not int or token < 0 or not isinstance(text, str) or not text:
                raise BadFileError(
                    f"{file.path}: added token {printable(repr(text), 40)} with id {printable(repr(token), 30)}; "
                    "expected a text and a whole number; the file is damaged; fetch it again"
                )
            if token >= self.rows:
                raise self.too_many(file.path, token + 1)
            refuse_surrogates(file.path, text, f"added token {token}")
            old = found.get(token)
            if old is not None and old[0] != text:
                raise self.conflict(token, old[0], text)
            found[token] = (text, is_special or text in special or (old is not None and old[1]))

        for entry in self.whole.list("added_tokens"):
            if not isinstance(entry, dict):
                raise self.whole.bad("added_tokens", "a list of objects")
            add(self.whole, entry.get("id"), entry.get("content"), entry.get("special") is True)
        decoder = self.config.part("added_tokens_decoder")
        for token, entry in (decoder.values if decoder else {}).items():
            if not isinstance(entry, dict) or not token.isascii() or not token.isdigit() or len(token) > 9:
                raise self.config.bad("added_tokens_decoder", "ids with objects")
            add(self.config, int(token), entry.get("content"), entry.get("special") is True)
        plain = read_json_if_there(self.folder / "added_tokens.json")
        for text, token in plain.values.items():
            add(plain, token, text, False)
        return found

    def conflict(self, token: int, old: str, new: str) -> BadFileError:
        return BadFileError(
            f"{self.folder}: token {token} is '{printable(old, 40)}' in one file and '{printable(new, 40)}' in "
            "another; expected one text; fetch the tokenizer's files again"
        )

    def too_many(self, path: Path, count: int) -> BadFileError:
        return BadFileError(
            f"{path}: {count} tokens; the embedding has {self.rows} rows; expected no more tokens than rows; remove "
            "the tokens that were added without training them (added_tokens.json, tokenizer_config.json), or name the "
            "tokenizer of this very model (--vocab-from FOLDER)"
        )

    def role_text(self, key: str) -> str | None:
        return _content(self.config.get(key)) or _content(self.roles.get(key))

    def vocab(self, pieces: Pieces, tokens: list[bytes], types: list[int], scores: list[float] | None) -> Vocab:
        ids = {token: index for index, token in enumerate(tokens)}
        if len(ids) != len(tokens):
            self.refuse_twins(tokens)
        roles: dict[str, int | None] = {}
        for role, key in _ROLES:
            text = self.role_text(key)
            named = None if text is None else ids.get(text.encode(errors="replace"))
            stated = self.special_ids.get(role)
            roles[role] = (
                named if named is not None else stated if stated is not None and stated < len(tokens) else None
            )
        unknown = roles["unknown"]
        if unknown is not None and pieces.model == "llama":
            types[unknown] = UNKNOWN
        for role in ("bos", "eos"):  # also where no file calls them added
            token = roles[role]
            if token is not None and types[token] == NORMAL:
                types[token] = CONTROL
        bos = roles["bos"]
        return Vocab(
            model=pieces.model,
            pre=pieces.pre,
            tokens=tokens,
            scores=scores,
            types=types,
            merges=StringArray([merge.encode() for merge in pieces.merges]),
            bos=bos,
            eos=roles["eos"],
            unknown=unknown,
            padding=roles["padding"],
            eot=self.end_of_turn(roles["eos"], len(tokens)),
            add_bos=bos is not None and self.adds_bos(pieces, tokens[bos].decode()),
            add_eos=self.config.flag("add_eos_token") or False,
            add_space_prefix=pieces.add_space_prefix,
            chat_template=self.chat_template(),
            raw_pieces=False,
        )

    def adds_bos(self, pieces: Pieces, bos: str) -> bool:
        stated = self.config.flag("add_bos_token")
        if stated is None:
            stated = begins_texts(self.whole, bos)
        return (pieces.model == "llama") if stated is None else stated

    def end_of_turn(self, eos: int | None, count: int) -> int | None:
        """The other token that ends an answer, where generation_config.json names several."""
        ends = read_generation_ends(read_json_if_there(self.folder / "generation_config.json"))
        others = [token for token in ends if token != eos and token < count]
        return others[0] if others else None

    def chat_template(self) -> str | None:
        path = self.folder / "chat_template.jinja"
        if path.exists():
            try:
                return read_small(path, _LARGEST_TEMPLATE, "a chat template").decode("utf-8")
            except UnicodeDecodeError:
                raise BadFileError(f"{path}: is no UTF-8; expected a chat template; fetch it again") from None
        value = self.config.get("chat_template")
        if isinstance(value, list):  # several by name
            named = {str(item.get("name")): item.get("template") for item in value if isinstance(item, dict)}
            value = named.get("default")
        if value is not None and not isinstance(value, str):
            raise self.config.bad("chat_template", "a text")
        return value and refuse_surrogates(self.config.path, value, "the chat template")

    def refuse_twins(self, tokens: Sequence[bytes]) -> None:
        seen: dict[bytes, int] = {}
        for index, token in enumerate(tokens):
            first = seen.setdefault(token, index)
            if first != index:
                raise BadFileError(
                    f"{self.folder}: tokens {first} and {index} are both '{printable(token, 40)}'; expected different "
                    "texts; fetch the tokenizer's files again"
                )


def _content(value: Any) -> str | None:
    """The text of a special token: it stands there as a text, or as an object with its settings."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None
