"""Settings: where values come from, what is refused and how that is told."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.errors import SettingsError
from retinue.settings import DEFINITIONS, Settings, load, peer_address

FIVE = "127.0.0.1:8001,127.0.0.1:8002,127.0.0.1:8003,127.0.0.1:8004,127.0.0.1:8005"


def refusal(environ: dict[str, str], **flags: object) -> str:
    with pytest.raises(SettingsError) as caught:
        load(flags, environ)
    assert caught.value.exit_code == 2
    assert caught.value.detail.endswith(".")
    return caught.value.detail


def test_defaults_of_a_leader() -> None:
    settings = load({}, {"FOLLOWERS": FIVE})
    assert (settings.role, settings.name, settings.host, settings.port) == ("leader", "leader", "127.0.0.1", 8000)
    assert (settings.peer_port, settings.write_quorum, settings.data_dir) == (9000, 3, Path(".retinue/leader"))
    assert settings.advertise_url == "http://127.0.0.1:8000"
    assert settings.members == ("leader", "follower1", "follower2", "follower3", "follower4", "follower5")
    assert settings.explicit == {"followers"}


def test_defaults_of_a_follower() -> None:
    settings = load({}, {"ROLE": "follower", "FOLLOWER_ID": "3"})
    assert (settings.name, settings.port, settings.peer_port) == ("follower3", 8001, 9001)
    assert settings.data_dir == Path(".retinue/follower3")
    assert load({}, {"ROLE": "follower", "PORT": "8004"}).name == "follower-8004"


@pytest.mark.parametrize(("count", "quorum"), [(0, 0), (1, 1), (2, 2), (3, 3), (5, 3)])
def test_default_quorum_fits_the_followers(count: int, quorum: int) -> None:
    assert load({}, {"FOLLOWERS": ",".join(FIVE.split(",")[:count])}).write_quorum == quorum


@pytest.mark.parametrize(
    ("names", "field", "text", "value"),
    [
        (("RETINUE_ROLE", "ROLE", "NODE_ROLE"), "role", "Follower", "follower"),
        (("RETINUE_PORT", "PORT"), "port", "8100", 8100),
        (("RETINUE_WRITE_QUORUM", "WRITE_QUORUM", "QUORUM_SIZE"), "write_quorum", "2", 2),
        (("RETINUE_MIN_DELAY_MS", "RETINUE_MIN_DELAY", "MIN_DELAY", "MIN_DELAY_MS"), "min_delay_ms", "0.5", 0.5),
        (("RETINUE_MAX_DELAY_MS", "RETINUE_MAX_DELAY", "MAX_DELAY", "MAX_DELAY_MS"), "max_delay_ms", "7", 7.0),
        (
            ("FOLLOWERS", "FOLLOWER_HOSTS", "FOLLOWER_URLS"),
            "followers",
            "a:1,http://b:2/",
            ("http://a:1", "http://b:2"),
        ),
        (("FOLLOWERS",), "followers", '["a:1", "http://b:2"]', ("http://a:1", "http://b:2")),
        (("FOLLOWER_ID", "RETINUE_FOLLOWER_ID"), "follower_id", "3", "follower3"),
        (("DATA_DIR", "RETINUE_DATA_DIR"), "data_dir", "/somewhere", Path("/somewhere")),
        (("RETINUE_MEMORY",), "memory", "yes", True),
        (("RETINUE_SEED",), "seed", "7", 7),
        (("RETINUE_SYNCHRONOUS",), "synchronous", "off", "OFF"),
        (("RETINUE_ALLOWED_HOSTS",), "allowed_hosts", "a.example, b.example", ("a.example", "b.example")),
    ],
)
def test_every_name_of_a_setting_means_the_same(names: tuple[str, ...], field: str, text: str, value: object) -> None:
    others = {"MAX_DELAY": "9"} if field == "min_delay_ms" else {} if field == "followers" else {"FOLLOWERS": FIVE}
    for name in names:
        settings = load({}, others | {name: text})
        assert getattr(settings, field) == value
        assert settings.sources[field] == name


def test_flags_win_over_environment_and_environment_over_file(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('port = 8100\nheartbeat_ms = 50\nwrite_timeout_ms = 1.5\nfollowers = ["a:1"]\nmemory = true\n')
    settings = load({"port": "8300"}, {"PORT": "8200", "RETINUE_HEARTBEAT_MS": "70"}, file)
    assert (settings.port, settings.heartbeat_ms, settings.write_timeout_ms) == (8300, 70.0, 1.5)
    assert (settings.followers, settings.memory) == (("http://a:1",), True)


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load({}, {"PORT": " ", "RETINUE_PORT": "", "SEED": ""}).explicit == frozenset()


def test_two_names_may_agree_but_not_contradict() -> None:
    agreeing = {"FOLLOWERS": FIVE, "MIN_DELAY": "5", "MIN_DELAY_MS": "5.0", "MAX_DELAY": "5"}
    assert load({}, agreeing).min_delay_ms == 5
    sentence = refusal({"FOLLOWERS": FIVE, "WRITE_QUORUM": "2", "QUORUM_SIZE": "3"})
    assert "WRITE_QUORUM=2" in sentence
    assert "QUORUM_SIZE=3" in sentence


@pytest.mark.parametrize(
    ("environ", "parts"),
    [
        ({"FOLLOWERS": FIVE, "WRITE_QUORUM": "6"}, ("WRITE_QUORUM=6", "use 0 to 5")),
        ({"FOLLOWERS": FIVE, "QUORUM_SIZE": "-1"}, ("QUORUM_SIZE=-1", "use a whole number")),
        ({"WRITE_QUORUM": "1"}, ("WRITE_QUORUM=1", "use 0,")),
        ({"MIN_DELAY": "10", "MAX_DELAY": "5"}, ("MIN_DELAY=10", "MAX_DELAY=5", "smaller")),
        ({"MIN_DELAY": "nan"}, ("MIN_DELAY=nan", "use a number")),
        ({"MAX_DELAY": "inf"}, ("MAX_DELAY=inf", "use a number")),
        ({"ROLE": "king"}, ("ROLE=king", "leader, follower")),
        ({"PORT": "eighty"}, ("PORT=eighty", "use a whole number")),
        ({"PORT": "65000"}, ("PORT=65000", "64535")),
        ({"PORT": "8000", "RETINUE_PEER_PORT": "8000"}, ("RETINUE_PEER_PORT=8000", "HTTP port")),
        ({"FOLLOWERS": "a:1,a:1"}, ("FOLLOWERS=", "twice")),
        ({"FOLLOWERS": "127.0.0.1:8000"}, ("FOLLOWERS=", "this node itself")),
        ({"FOLLOWERS": "a:65000"}, ("FOLLOWERS=", "64535")),
        ({"FOLLOWERS": "a:0"}, ("FOLLOWERS=", "64535")),
        ({"FOLLOWERS": "a:x"}, ("FOLLOWERS=a:x", "such as")),
        ({"FOLLOWERS": "http://u:p@a:1"}, ("FOLLOWERS=", "password")),
        ({"FOLLOWERS": "ftp://a:1"}, ("FOLLOWERS=", "such as")),
        ({"FOLLOWERS": "[1]"}, ("FOLLOWERS=", "list")),
        ({"FOLLOWERS": "[oops"}, ("FOLLOWERS=", "JSON")),
        ({"FOLLOWER_ID": "../x"}, ("FOLLOWER_ID=../x", "letters")),
        ({"RETINUE_HOST": "a b"}, ("RETINUE_HOST=a b", "host name")),
        ({"RETINUE_HOST": "127.0.0.1:8000"}, ("without a port",)),
        ({"RETINUE_HOST": "0.0.0.0"}, ("RETINUE_HOST=0.0.0.0", "token_file", "--insecure")),
        ({"RETINUE_MEMORY": "perhaps"}, ("RETINUE_MEMORY=perhaps", "true or false")),
        ({"RETINUE_LOSS": "1.5"}, ("RETINUE_LOSS=1.5", "0 to 1")),
    ],
)
def test_refusals_name_setting_value_and_cure(environ: dict[str, str], parts: tuple[str, ...]) -> None:
    sentence = refusal(environ)
    for part in parts:
        assert part in sentence


def test_a_flag_is_named_as_a_flag() -> None:
    assert "--write-quorum=9" in refusal({"FOLLOWERS": FIVE}, write_quorum="9")


def test_a_follower_may_be_told_a_quorum_for_the_day_it_leads() -> None:
    assert load({}, {"ROLE": "follower", "WRITE_QUORUM": "3"}).write_quorum == 3


def test_other_addresses_need_token_and_secret_or_the_word_insecure(tmp_path: Path) -> None:
    token_file = str(tmp_path / "tokens")
    assert "peer_secret_file" in refusal({"RETINUE_HOST": "10.0.0.1", "RETINUE_TOKEN_FILE": token_file})
    both = {"RETINUE_HOST": "10.0.0.1", "RETINUE_TOKEN_FILE": token_file, "RETINUE_PEER_SECRET_FILE": token_file}
    assert load({}, both).advertise_url == "http://10.0.0.1:8000"
    open_to_all = load({"insecure": True}, {"RETINUE_HOST": "0.0.0.0"})
    assert "0.0.0.0" not in open_to_all.advertise_url + open_to_all.peer_host
    assert load({}, {"RETINUE_HOST": "::1"}).advertise_url == "http://[::1]:8000"


def test_a_settings_file_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    for content, part in (
        ("prot = 1", "prot"),
        ("port = ", "TOML"),
        ('port = "x"', "port=x"),
        ("port = true", "port="),
    ):
        file.write_text(content)
        with pytest.raises(SettingsError, match=part):
            load({}, {}, file)
    with pytest.raises(SettingsError, match="cannot be read"):
        load({}, {}, tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (True, 6400)),
        ({"port": 8003}, (True, 6403)),
        ({"port": 2624}, (True, 1024)),
        ({"port": 2623}, (False, 0)),
        ({"port": 80, "resp_port": 7000, "sources": {"resp_port": "resp_port"}}, (True, 7000)),
        ({"port": 80, "resp": True}, (True, 0)),
        ({"port": 0}, (True, 0)),
        ({"host": "0.0.0.0", "insecure": True}, (False, 6400)),
        ({"host": "0.0.0.0", "insecure": True, "resp": True}, (True, 6400)),
        ({"resp": False}, (False, 6400)),
    ],
)
def test_the_redis_port_follows_the_http_port(given: dict[str, Any], expected: tuple[bool, int]) -> None:
    settings = Settings(memory=True, **given)
    assert (settings.resp, settings.resp_port) == expected


def test_the_redis_port_is_no_other_port_of_the_node() -> None:
    with pytest.raises(SettingsError, match="resp_port=9000"):
        Settings(resp_port=9000)


def test_settings_can_be_made_directly_and_are_checked() -> None:
    assert Settings(port=0, memory=True).peer_port == 0
    with pytest.raises(SettingsError, match="loss=2"):
        Settings(loss=2)


def test_peer_addresses() -> None:
    assert peer_address("http://a:8001") == ("a", 9001)
    assert peer_address("http://[::1]:8001") == ("::1", 9001)
    assert peer_address("http://a") == ("a", 1080)


def test_all_settings_are_plain_json() -> None:
    plain = load({}, {"FOLLOWERS": FIVE}).to_plain()
    assert list(plain) == [definition.name for definition in DEFINITIONS]
    assert all(isinstance(value, str | int | float | bool | list | None) for value in plain.values())


def test_no_environment_name_means_two_settings() -> None:
    names = [name for definition in DEFINITIONS for name in definition.environment]
    assert len(set(names)) == len(names)


@given(name=st.sampled_from([d.name for d in DEFINITIONS]), text=st.text(max_size=20))
def test_no_text_is_more_than_refused(name: str, text: str) -> None:
    with contextlib.suppress(SettingsError):
        settings = load({name: text}, {})
        assert Settings(**{name: getattr(settings, name)}, sources=settings.sources) == settings
