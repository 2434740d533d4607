"""What a shell reads to complete command lines: one short script a shell, which asks selfee itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "_SELFEE_COMPLETE"
"""Set by the scripts: the words are then a command line to complete, not one to run."""

_BASH = """# bash completion for selfee; made by: selfee completion bash
_selfee() {
    local IFS=$'\\n' kind line
    local -a found=()
    COMPREPLY=()
    {
        read -r kind
        while read -r line; do found+=("${line%%$'\\t'*}"); done
    } < <(_SELFEE_COMPLETE=1 "${COMP_WORDS[0]}" "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    local current="${COMP_WORDS[COMP_CWORD]}"
    if [[ $kind == files ]]; then
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -f -- "$current"))
    fi
    for line in "${found[@]}"; do
        # bash has parted the word at "=": what stands before it is there already
        if [[ ${COMP_WORDS[COMP_CWORD-1]} == "=" || $current == "=" ]]; then line="${line#*=}"; fi
        COMPREPLY+=("$line")
    done
}
complete -F _selfee selfee
"""

_ZSH = """#compdef selfee
# zsh completion for selfee; made by: selfee completion zsh
_selfee() {
    local kind line
    local -a found names described
    found=("${(@f)$(_SELFEE_COMPLETE=1 ${words[1]} "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    kind=$found[1]
    for line in "${(@)found[2,-1]}"; do
        names+=("${line%%$'\\t'*}")
        described+=("${line%%$'\\t'*}  ${line#*$'\\t'}")
    done
    (( $#names )) && compadd -l -d described -- "${(@)names}"
    [[ $kind == files ]] && _files
    return 0
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _selfee "$@"; else compdef _selfee selfee; fi
"""

_FISH = """# fish completion for selfee; made by: selfee completion fish
function __selfee_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found (_SELFEE_COMPLETE=1 $words[1] $words[2..] 2>/dev/null)
    string join \\n -- $found[2..]
    test "$found[1]" = files; and __fish_complete_path (commandline -ct)
end
complete -c selfee -f -a '(__selfee_complete)'
"""


@dataclass(frozen=True)
class Script:
    """A shell's script. ``place`` is where that shell looks for it, below the user's own folder."""

    text: str
    place: str
    then: str  # what is left to do


SCRIPTS: Mapping[str, Script] = {
    "bash": Script(
        _BASH,
        ".local/share/bash-completion/completions/selfee",
        "it works in a new shell, where the package bash-completion is installed; without it: "
        "source {path} in ~/.bashrc",
    ),
    "zsh": Script(
        _ZSH,
        ".zfunc/_selfee",
        "it works in a new shell with these two lines in ~/.zshrc: fpath+=~/.zfunc; autoload -Uz compinit && compinit",
    ),
    "fish": Script(_FISH, ".config/fish/completions/selfee.fish", "it works in a new shell"),
}


def install(shell: str, home: Path) -> tuple[Path, str]:
    """Write a shell's script where it looks for it; returns the file, and what is left to do. Raises ResourceError."""
    from selfee.weights.disk import disk_error

    script = SCRIPTS[shell]
    path = home / script.place
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script.text, encoding="utf-8")
    except OSError as error:
        raise disk_error(error, path, None) from error
    return path, script.then.format(path=path)
