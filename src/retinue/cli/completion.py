"""Completion scripts for shells, made from the verbs and options that the parser knows."""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
_retinue() {{
    local list word=${{COMP_WORDS[COMP_CWORD]}}
    if [ "$COMP_CWORD" -eq 1 ]; then
        list="{verbs}"
    else
        case ${{COMP_WORDS[1]}} in
{cases}
        *) list="" ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$list" -- "$word"))
}}
complete -o default -F _retinue retinue"""

_ZSH_HEAD = "#compdef retinue\nautoload -U +X bashcompinit && bashcompinit\n"


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The script for one of `SHELLS`; put it where the shell looks for completions, or `eval` it."""
    if shell == "fish":
        return _fish(parser)
    verbs = _verbs(parser).items()
    cases = "\n".join(f'        {name}) list="{" ".join(_words(verb))}" ;;' for name, (_, verb) in verbs)
    bash = _BASH.format(verbs=" ".join(_words(parser)), cases=cases)
    return _ZSH_HEAD + bash if shell == "zsh" else bash


def _fish(parser: argparse.ArgumentParser) -> str:
    lines = []
    for name, (help_text, verb) in _verbs(parser).items():
        lines.append(f"complete -c retinue -n __fish_use_subcommand -a {name} -d '{_quoted(help_text)}'")
        condition = f"-n '__fish_seen_subcommand_from {name}'"
        for action in _actions(verb):
            lines.extend(
                f"complete -c retinue {condition} -l {option[2:]} -d '{_quoted(action.help or '')}'"
                for option in action.option_strings
                if option.startswith("--")
            )
        lines.extend(f"complete -c retinue {condition} -a {word}" for word in _verbs(verb))
    return "\n".join(lines)


def _words(parser: argparse.ArgumentParser) -> list[str]:
    return [*_verbs(parser), *_options(parser)]


def _verbs(parser: argparse.ArgumentParser) -> dict[str, tuple[str, argparse.ArgumentParser]]:
    """The verbs below a parser: their help texts and parsers."""
    found: dict[str, tuple[str, argparse.ArgumentParser]] = {}
    for action in _actions(parser):
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            found |= {name: (helps.get(name, ""), child) for name, child in action.choices.items()}
    return found


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [option for action in _actions(parser) for option in action.option_strings if option.startswith("--")]


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return parser._actions


def _quoted(text: str) -> str:
    return text.replace("%%", "%").replace("\\", "\\\\").replace("'", "\\'")
