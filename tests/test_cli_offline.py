"""The command where no node is needed: tokens, wrong settings, completion, what a terminal is shown."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from retinue import cli, errors, tokens
from retinue.cli import completion, output


def test_tokens_are_shown_once_and_stored_as_hashes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tokens"
    for role in ("read", "admin"):
        assert cli.main(["token", "create", "--role", role, "--file", str(file), "--json"]) == 0
    out = capsys.readouterr().out
    made = [json.loads(part + "}") for part in out.split("}") if part.strip()]
    assert file.stat().st_mode & 0o777 == 0o600
    assert all(len(entry["token"]) >= 43 and entry["token"] not in file.read_text() for entry in made)
    known = tokens.load(file)
    assert [tokens.role_of(known, entry["token"]) for entry in made] == ["read", "admin"]
    assert tokens.role_of(known, "guess") is None
    file.chmod(0o644)
    assert cli.main(["token", "create", "--role", "read", "--file", str(file)]) == 2
    with pytest.raises(errors.SettingsError, match="chmod 600"):
        tokens.load(file)


@pytest.mark.parametrize("content", ["root abc", "read xyz", "read " + "0" * 63, "\u00e9"])
def test_a_token_file_with_other_content_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# comment\n\n{content}\n")
    file.chmod(0o600)
    with pytest.raises(errors.SettingsError, match="token create"):
        tokens.load(file)
    with pytest.raises(errors.SettingsError, match="cannot be read"):
        tokens.load(tmp_path / "missing")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["serve", "--write-quorum", "2"], "--write-quorum=2"),
        (["start", "--follower-count", "100"], "--follower-count=100"),
        (["start", "--port", "0"], "--port=0"),
        (["start", "--port", "64532"], "PORT=64532"),
        (["start", "--write-quorum", "6"], "--write-quorum=6"),
        (["start", "--min-delay-ms", "3"], "--min-delay-ms=3"),
        (["start", "leader9", "--port", "20000"], "leader9"),
        (["restart", "--follower-count", "2", "--write-quorum", "3"], "--write-quorum=3"),
        (["up", "--loss", "2"], "--loss=2"),
        (["logs", "--data-dir", "x\0y"], "use a path"),
    ],
)
def test_wrong_settings_stop_the_start(
    arguments: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([arguments[0], "--data-dir", str(tmp_path / "d"), *arguments[1:]]) in (1, 2)
    assert part in capsys.readouterr().err


def test_where_there_is_no_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--data-dir", str(tmp_path / "none")]
    assert cli.main(["nodes", "--json", *place]) == 0
    assert json.loads(capsys.readouterr().out) == {"nodes": []}
    assert cli.main(["stop", *place]) == 0
    assert cli.main(["logs", *place]) == 1
    assert not (tmp_path / "none").exists()


def test_settings_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["settings", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["settings"]) > 30
    assert cli.main(["settings"]) == 0
    assert cli.main(["version", "--json"]) == 0
    assert cli.main([]) == 0
    assert "Exit codes" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["fly"], ["get"], ["get", "k", "--read", "dirty"], ["token"], ["scan", "--limit", "x"]]
)
def test_argparse_refuses_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_knows_every_verb_and_option(shell: str) -> None:
    script = completion.script(shell, cli.build_parser())
    for word in ("serve", "up", "put", "promote", "token", "simulate", "if-absent", "write-quorum"):
        assert word in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_completion_in_bash() -> None:
    script = completion.script("bash", cli.build_parser())
    ask = 'COMP_WORDS=({words}); COMP_CWORD={count}; _retinue; echo "${{COMPREPLY[*]}}"\n'
    asked = ask.format(words="retinue sta", count=1) + ask.format(words="retinue put --if", count=2)
    done = subprocess.run(["bash"], input=f"{script}\n{asked}", text=True, capture_output=True, check=True)
    assert done.stdout == "start status\n--if-absent --if-version\n"


def test_output_escapes() -> None:
    assert output.safe("a\x1b\x7f\u202e\u2028\ud800b") == "a\\x1b\\x7f\\u202e\\u2028\\ud800b"
    assert output.safe_json({"k": "\x9b\u202e\u00e9"}, indent=None) == '{"k": "\\u009b\\u202e\u00e9"}'
    family = "\U0001f468\u200d\U0001f469"
    assert output.safe(family) == family
    assert [output.plain(value) for value in (None, True, "x", 1.5, [1])] == ["-", "yes", "x", "1.5", "[1]"]


def test_every_verb_has_help() -> None:
    parser = cli.build_parser()
    verbs = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices
    assert all(verb.description for verb in verbs.values())
