"""The benchmark of the parts: it measures what it says, on few writes."""

from __future__ import annotations

import pytest

from bench import parts


def test_every_part_is_timed_at_every_size_of_group(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parts, "WRITES", 128)
    monkeypatch.setattr(parts, "ROUNDS", 1)
    parts.main()
    rows = [
        line.split() for line in capsys.readouterr().out.splitlines() if line.startswith((" core", "  core", "  store"))
    ]
    assert len(rows) == len(parts.PARTS)
    assert all(float(cell) > 0 for row in rows for cell in row[-len(parts.GROUPS) :])
