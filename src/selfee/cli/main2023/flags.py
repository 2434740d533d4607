"""All flags of llama.cpp's ``main`` of June 2023: their names, what they mean here, and what cannot be."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints


@dataclass(frozen=True)
class MainOptions:
    """What was asked for; the defaults are those of June 2023."""

    model: str | None = None  # None: SELFEE_MODEL, the file of 2023, or the built-in model
    threads: int | None = None
    ctx_size: int = 512
    batch_size: int = 512
    seed: int = -1
    prompt: str | None = None
    file: str | None = None
    escape: bool = False
    no_escape: bool = False
    random_prompt: bool = False
    verbose_prompt: bool = False
    n_predict: int = -1
    keep: int = 0
    interactive: bool = False
    interactive_first: bool = False
    instruct: bool = False
    multiline_input: bool = False
    reverse_prompt: Sequence[str] = ()
    in_prefix: str = ""
    in_suffix: str = ""
    color: str = "never"
    prompt_cache: str | None = None
    prompt_cache_all: bool = False
    prompt_cache_ro: bool = False
    temp: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    tfs: float = 1.0
    typical: float = 1.0
    repeat_last_n: int = 64
    repeat_penalty: float = 1.1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_penalize_nl: bool = False
    mirostat: int = 0
    mirostat_lr: float = 0.1
    mirostat_ent: float = 5.0
    logit_bias: Sequence[str] = ()
    ignore_eos: bool = False
    mtest: bool = False
    compat: str = "now"


@dataclass(frozen=True)
class Flag:
    """One flag. ``takes`` names its value ("" for none). What has no effect here says why in ``no_effect``, what cannot
    be done says in ``refused`` what to do instead; both have no field in MainOptions.
    """

    names: tuple[str, ...]
    help: str
    takes: str = ""
    default: str = ""  # as shown, where the field's own default does not say it
    no_effect: str = ""
    refused: str = ""

    @property
    def field(self) -> str:
        """The field of MainOptions, or the parameter's name: the long name."""
        longest = max(self.names, key=lambda name: (name.startswith("--"), len(name)))
        return FIELDS.get(longest, longest.lstrip("-").replace("-", "_"))


FIELDS = {"--n-gpu-layers": "gpu_layers", "--gpu-layers": "gpu_layers"}
"""Fields whose name is not the flag's longest."""

FLAGS = (
    Flag(
        ("-m", "--model"),
        "The model: a file of any kind and age, a name or an address, as for `selfee ask`.",
        "MODEL",
        "models/7B/ggml-model.bin if it is there, else the built-in model",
    ),
    Flag(("-p", "--prompt"), "The text to continue.", "TEXT"),
    Flag(("-f", "--file"), "Read it from this file; one line break at its end is dropped.", "FILE"),
    Flag(("-e", "--escape"), r"Read \n, \r, \t, \', \" and \\ as what they stand for, also in a file."),
    Flag(("--no-escape",), "Leave them as typed; without either, they are read in -p and not in a file."),
    Flag(("-n", "--n-predict"), "Tokens to write; -1 = no end, -2 = until the context is full.", "N"),
    Flag(("-c", "--ctx-size"), "Tokens of context.", "N"),
    Flag(("--keep",), "Tokens of the prompt to keep when the context is full; -1 = all.", "N"),
    Flag(("-b", "--batch-size"), "Tokens of a prompt to take at a time, 512 at most; results are the same.", "N"),
    Flag(("-t", "--threads"), "Threads to compute with.", "N", "the cores"),
    Flag(("-s", "--seed"), "The same seed and settings give the same text; -1 = another each time.", "N"),
    Flag(("-i", "--interactive"), "Take turns: Ctrl-C, a reverse prompt or -n give the word to you."),
    Flag(("--interactive-first",), "The same, and you begin."),
    Flag(("-ins", "--instruct"), "Chat in Alpaca's form, with ### Instruction: and ### Response:."),
    Flag(("--multiline-input",), r"An entry goes on over line ends; \ or / at the end of a line ends it."),
    Flag(("-r", "--reverse-prompt"), "Give the word to you, or end, after this text; may be repeated.", "TEXT"),
    Flag(("--in-prefix",), "Put this text before what you type.", "TEXT"),
    Flag(("--in-suffix",), "Put this text after it.", "TEXT"),
    Flag(
        ("--color",),
        "Colour the prompt and what you type; alone it means auto, `--color=always` and `never` are the others.",
        "[=WHEN]",
    ),
    Flag(("--random-prompt",), "Begin with one of ten words."),
    Flag(("--verbose-prompt",), "Show the tokens of the prompt on stderr."),
    Flag(("--prompt-cache",), "Keep what the model has read in this file, and begin from it.", "FILE"),
    Flag(("--prompt-cache-all",), "Keep what is written and typed as well."),
    Flag(("--prompt-cache-ro",), "Begin from the file, but never change it."),
    Flag(("--temp",), "Temperature; 0 = always the most likely token.", "X"),
    Flag(("--top-k",), "Keep the k most likely tokens; 0 = all.", "N"),
    Flag(("--top-p",), "Keep the smallest set with this total probability; 1 = all.", "X"),
    Flag(("--tfs",), "Tail-free sampling, parameter z; 1 = off.", "X"),
    Flag(("--typical",), "Locally typical sampling, parameter p; 1 = off.", "X"),
    Flag(("--repeat-last-n",), "How many recent tokens the penalties look at; 0 = none, -1 = the context.", "N"),
    Flag(("--repeat-penalty",), "Divide (multiply) positive (negative) logits of recent tokens; 1 = off.", "X"),
    Flag(("--presence-penalty",), "Subtract this once if a token occurred recently.", "X"),
    Flag(("--frequency-penalty",), "Subtract this for each recent occurrence.", "X"),
    Flag(("--no-penalize-nl",), "Never penalise the line break."),
    Flag(("--mirostat",), "1 or 2: mirostat instead of top-k, tail-free, typical and top-p; 0 = off.", "N"),
    Flag(("--mirostat-lr",), "Mirostat's learning rate, eta.", "X"),
    Flag(("--mirostat-ent",), "Mirostat's target surprise in bits, tau.", "X"),
    Flag(("-l", "--logit-bias"), "Make a token likelier or less likely, as in 15043+1 or 2-5.", "TOKEN(+/-)BIAS"),
    Flag(("--ignore-eos",), "Never end by itself: the end token is banned."),
    Flag(("--mtest",), "Evaluate one full batch, show the memory it took, and end."),
    Flag(("--compat",), "2023: also what was wrong in June 2023, see the guide.", "now|2023"),
    Flag(
        ("-ngl", "--n-gpu-layers", "--gpu-layers"),
        "Layers to put on a GPU.",
        "N",
        no_effect="this engine computes on processors",
    ),
    Flag(("--memory-f32",), "Keys and values in float32.", no_effect="keys and values are kept in float16"),
    Flag(("--mlock",), "Keep the weights in memory.", no_effect="the system decides which pages stay in memory"),
    Flag(("--no-mmap",), "Read the file instead of mapping it.", no_effect="files are mapped, and copied as they load"),
    Flag(("-a", "--alias"), "Another name for the model.", "NAME", no_effect="only a server shows a model's name"),
    Flag(("-lv", "--low-vram"), "Spare the GPU's memory.", no_effect="this engine computes on processors"),
    Flag(("-mg", "--main-gpu"), "The GPU to use.", "N", no_effect="this engine computes on processors"),
    Flag(("-ts", "--tensor-split"), "Shares of several GPUs.", "X,X", no_effect="this engine computes on processors"),
    Flag(
        ("--perplexity",),
        "Measure perplexity.",
        refused="a command of its own measures it: selfee perplexity MODEL TEXT-FILE (--definition 2023 as then)",
    ),
    Flag(
        ("--embedding",),
        "Print the prompt's embedding.",
        refused="selfee makes no embeddings, as main itself made none; use an embedding model and its own tool",
    ),
    Flag(
        ("--lora",),
        "Apply an adapter to the model.",
        "FILE",
        refused="adapters are not applied while running; merge it into the model where it was trained (PEFT: "
        "merge_and_unload), then selfee convert FOLDER",
    ),
    Flag(
        ("--lora-base",),
        "The model to which the adapter's changes are added.",
        "FILE",
        refused="adapters are not applied while running; merge it into the model where it was trained (PEFT: "
        "merge_and_unload), then selfee convert FOLDER",
    ),
    Flag(
        ("--export",),
        "Export the computation graph.",
        refused="there is no graph to export: the forward pass is compiled; selfee convert exports the weights",
    ),
    Flag(("--host",), "The server's address.", "IP", refused="a flag of llama.cpp's server, not of main; leave it out"),
    Flag(("--port",), "The server's port.", "N", refused="a flag of llama.cpp's server, not of main; leave it out"),
)
"""The table. Order is that of ``--help``: what is asked for most often comes first."""


def parameter_type(flag: Flag) -> Any:
    """The type of a flag's value as a command line parses it."""
    if flag.no_effect or flag.refused:
        return str if flag.takes else bool
    hint = get_type_hints(MainOptions)[flag.field]
    if hint == Sequence[str]:
        return list[str]
    return {str | None: str, int | None: int}.get(hint, hint)


def shown_default(flag: Flag) -> str:
    """A flag's default for its help; "" where there is none to speak of."""
    if flag.default or flag.no_effect or flag.refused:
        return flag.default
    value = next(field.default for field in dataclasses.fields(MainOptions) if field.name == flag.field)
    return "" if value in (None, "", ()) or isinstance(value, bool) else str(value)


def options_of(values: Mapping[str, Any]) -> MainOptions:
    """The options that were given; all others keep their defaults."""
    names = {field.name for field in dataclasses.fields(MainOptions)}
    return MainOptions(**{name: value for name, value in values.items() if name in names and value is not None})


_SWITCHES = ("auto", "always", "never", "on", "off")


def plain_words(words: Sequence[str]) -> list[str]:
    """The words of a command line as they are parsed: ``--repeat_penalty`` is ``--repeat-penalty``, and a ``--color``
    that stands alone has a value.
    """
    takes_value = {name for flag in FLAGS for name in flag.names if flag.takes and name != "--color"}
    result: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            word = name.replace("_", "-") + equals + value
        if word == "--color":
            word += "=" + (rest.pop(0) if rest and rest[0] in _SWITCHES else "auto")
        result.append(word)
        if word in takes_value and rest:
            result.append(rest.pop(0))
    return result
