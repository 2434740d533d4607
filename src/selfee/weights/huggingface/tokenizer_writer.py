"""The tokenizer's files of a Hugging Face folder, written from a ``Vocab``.

tokenizer.json says everything to today's programs; a SentencePiece vocabulary also gets its tokenizer.model, which
holds the scores. Rows of the embedding without a token ([PAD32000] …) are left out: whoever reads the folder counts
them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from selfee.errors import UnsupportedFileError
from selfee.weights.checkpoint import Vocab
from selfee.weights.huggingface.pretokenizers import pre_tokenizer, written_expression
from selfee.weights.huggingface.sentencepiece_model import SentencePieceModel, sentencepiece_bytes
from selfee.weights.printable import printable
from selfee.weights.vocab_keys import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED

_SPACE = "\u2581"
_PADDING_SCORE = -10000.0
_NO_LENGTH = int(1e30)  # what Hugging Face writes where a tokenizer sets no bound
_ROLES = (("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token"))
_LONGEST_SPLIT = 256  # characters of a piece whose splits are looked for; longer ones are rows of one character


def tokenizer_files(where: str, vocab: Vocab, context: int) -> dict[str, bytes]:
    """File name -> content. ``context`` is the longest text; raises UnsupportedFileError for a vocabulary without a
    form there.
    """
    return _Writer(where, vocab).files(context)


class _Writer:
    def __init__(self, where: str, vocab: Vocab) -> None:
        if vocab.model not in ("llama", "gpt2") or not len(vocab.tokens):
            raise UnsupportedFileError(
                f"{where}: its vocabulary is of kind '{printable(vocab.model, 30)}'; expected SentencePiece ('llama') "
                "or byte-level BPE ('gpt2'); name a folder that has the tokenizer (--vocab-from FOLDER)"
            )
        self.where = where
        self.vocab = vocab
        self.is_spm = vocab.model == "llama"
        types = list(vocab.types) if vocab.types is not None else [NORMAL] * len(vocab.tokens)
        count = self.without_padding(vocab, types)
        self.types = types[:count]
        self.texts = [self.text(index) for index in range(count)]

    def without_padding(self, vocab: Vocab, types: Sequence[int]) -> int:
        count = len(vocab.tokens)
        while count and types[count - 1] == UNUSED and bytes(vocab.tokens[count - 1]) == f"[PAD{count - 1}]".encode():
            if vocab.scores is not None and vocab.scores[count - 1] != _PADDING_SCORE:
                break
            count -= 1
        return count

    def text(self, index: int) -> str:
        try:
            text = bytes(self.vocab.tokens[index]).decode("utf-8")
        except UnicodeDecodeError:
            text = ""
        if not text:
            raise UnsupportedFileError(
                f"{self.where}: token {index} is empty or no UTF-8; expected a text for each; name a folder that has "
                "the tokenizer (--vocab-from FOLDER)"
            )
        return text

    def files(self, context: int) -> dict[str, bytes]:
        files = {"tokenizer_config.json": json_bytes(self.config(context))}
        files["special_tokens_map.json"] = json_bytes(self.roles())
        model = self.sentencepiece_json() if self.is_spm else self.byte_level_json()
        whole = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": self.added_tokens(),
            **model,
        }
        files["tokenizer.json"] = json_bytes(whole)
        if self.is_spm:
            files["tokenizer.model"] = sentencepiece_bytes(self.sentencepiece_model())
        return files

    def roles(self) -> dict[str, str]:
        ids = {key: getattr(self.vocab, role) for role, key in _ROLES}
        return {key: self.texts[token] for key, token in ids.items() if token is not None and token < len(self.texts)}

    def added_tokens(self) -> list[dict[str, Any]]:
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        return [
            {"id": token, "content": self.texts[token], **plain, "special": type != USER_DEFINED}
            for token, type in enumerate(self.types)
            if type in (UNKNOWN, CONTROL, USER_DEFINED)
        ]

    def config(self, context: int) -> dict[str, Any]:
        decoder = {str(entry.pop("id")): entry for entry in self.added_tokens()}
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is
            "add_bos_token": self.vocab.add_bos,
            "add_eos_token": self.vocab.add_eos,
            "added_tokens_decoder": decoder,
            "clean_up_tokenization_spaces": False,
            "model_max_length": context or _NO_LENGTH,
            **self.roles(),
        }
        if self.vocab.chat_template is not None:
            config["chat_template"] = self.vocab.chat_template
        return config

    def post_processor(self) -> dict[str, Any] | None:
        """What puts the beginning (and end) token around a text."""
        before = self.vocab.bos if self.vocab.add_bos else None
        after = self.vocab.eos if self.vocab.add_eos else None
        if before is None and after is None:
            return None

        def special(token: int | None, type_id: int) -> list[dict[str, Any]]:
            return [] if token is None else [{"SpecialToken": {"id": self.texts[token], "type_id": type_id}}]

        def around(sequence: str, type_id: int) -> list[dict[str, Any]]:
            text = {"Sequence": {"id": sequence, "type_id": type_id}}
            return [*special(before, type_id), text, *special(after, type_id)]

        tokens = {self.texts[token]: token for token in (before, after) if token is not None}
        return {
            "type": "TemplateProcessing",
            "single": around("A", 0),
            "pair": around("A", 0) + around("B", 1),
            "special_tokens": {text: {"id": text, "ids": [id], "tokens": [text]} for text, id in tokens.items()},
        }

    def byte_level_json(self) -> dict[str, Any]:
        family = pre_tokenizer(self.vocab.pre)
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        cuts = [
            {
                "type": "Split",
                "pattern": {"Regex": written_expression(expression)},
                "behavior": "Isolated",
                "invert": False,
            }
            for expression in family.expressions
        ]
        # Qwen composes characters first; GGUF files have no word for it.
        normalizer = {"type": "NFC"} if self.vocab.pre == "qwen2" else None
        return {
            "normalizer": normalizer,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*cuts, level]},
            "post_processor": self.post_processor(),
            "decoder": level,
            "model": self.model_json(list(self.vocab.merges), whole_words=family.whole_words, byte_fallback=False),
        }

    def sentencepiece_json(self) -> dict[str, Any]:
        escape = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
        prefix = [{"type": "Prepend", "prepend": _SPACE}] if self.vocab.add_space_prefix else []
        strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if self.vocab.add_space_prefix else []
        unescape = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
        return {
            "normalizer": {"type": "Sequence", "normalizers": [*prefix, escape]},
            "pre_tokenizer": None,
            "post_processor": self.post_processor(),
            "decoder": {
                "type": "Sequence",
                "decoders": [unescape, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip],
            },
            "model": self.model_json(self.merges_of_scores(), whole_words=False, byte_fallback=True),
        }

    def model_json(self, merges: Sequence[str], *, whole_words: bool, byte_fallback: bool) -> dict[str, Any]:
        return {
            "type": "BPE",
            "dropout": None,
            "unk_token": self.roles().get("unk_token") if byte_fallback else None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": byte_fallback,
            "byte_fallback": byte_fallback,
            "ignore_merges": whole_words,
            "vocab": {text: token for token, text in enumerate(self.texts)},
            "merges": list(merges),
        }

    def merges_of_scores(self) -> list[str]:
        """Every way to put a piece together from two pieces, best score first: what SentencePiece would join."""
        scores = self.vocab.scores or []
        known = {text for text, type in zip(self.texts, self.types, strict=True) if type in (NORMAL, UNUSED, 0)}
        ids = {text: token for token, text in enumerate(self.texts)}
        ranked = sorted((text for text in known if len(text) > 1), key=lambda text: (-scores[ids[text]], ids[text]))
        merges = []
        for text in ranked:
            if len(text) > _LONGEST_SPLIT:
                continue
            splits = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
            found = [(left, right) for left, right in splits if left in known and right in known]
            merges += [
                f"{left} {right}" for left, right in sorted(found, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
            ]
        return merges

    def sentencepiece_model(self) -> SentencePieceModel:
        vocab, count = self.vocab, len(self.texts)
        scores = list(vocab.scores or [0.0] * len(vocab.tokens))[:count]

        def id(token: int | None) -> int:
            return -1 if token is None or token >= count else token

        return SentencePieceModel(
            self.texts,
            scores,
            [type if NORMAL <= type <= BYTE else NORMAL for type in self.types],
            unk=max(id(vocab.unknown), 0),
            bos=id(vocab.bos),
            eos=id(vocab.eos),
            pad=id(vocab.padding),
            add_dummy_prefix=vocab.add_space_prefix,
        )


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """JSON as Hugging Face's files have it."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
