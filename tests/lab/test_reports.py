"""The folder of a run: files that round-trip, a page that needs nothing else, two runs side by side."""

from __future__ import annotations

import base64
import csv
import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from retinue.errors import SettingsError
from retinue.lab.experiments.contract import Summary, Table
from retinue.lab.experiments.quorum import QuorumSettings
from retinue.lab.experiments.quorum_sample import WRITE, QuorumSample
from retinue.lab.reports import compare, folder, html, text
from retinue.lab.reports.figures import look, new_axes, new_figure, png

EVIL = "</pre><script>alert(1)</script>\x1b[31m"
SAMPLES = [
    QuorumSample(kind=WRITE, quorum=1, begun_ms=0.5, latency_ms=2.0, acked_by=["a", "b"], acked_ms=[1.0, 2.0]),
    QuorumSample(kind=WRITE, quorum=1, begun_ms=1.0, latency_ms=3.0, drawn_ms=1.5, detail='said "no", twice'),
]


def record(**changes: Any) -> folder.Record:
    fields: dict[str, Any] = {
        "experiment": "quorum",
        "title": "A title",
        "question": "A question?",
        "command": "retinue lab quorum",
        "settings": msgspec.to_builtins(QuorumSettings()),
        "seed": 1,
        "target": "6 nodes",
        "begun": folder.utc_now(),
        "ended": folder.utc_now(),
        "state": folder.COMPLETE,
        "samples": folder.as_table(QuorumSample, SAMPLES),
        "summary": Summary(tables=[], reading=["It was fine."]),
        "versions": {"python": "3.11"},
        "host": {"cores": 2, "memory_mib": None},
    }
    return folder.Record(**(fields | changes))


class Page(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def a_picture() -> html.Drawn:
    figure = new_figure(3, 2)
    axes = new_axes(figure, "time (s)", "writes")
    axes.plot([1, 2], [3, 4], look(0).marker)
    return html.Drawn("made", "A <caption>.", png(figure))


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = record()
    folder.write_record(tmp_path, made)
    read = folder.read_record(tmp_path)
    assert msgspec.to_builtins(read) == msgspec.json.decode(msgspec.json.encode(made))
    assert folder.from_table(QuorumSample, read.samples) == SAMPLES
    assert folder.settings_from(QuorumSettings, read.settings) == QuorumSettings()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["results.csv", "results.json"]


def test_the_csv_has_a_row_for_each_sample() -> None:
    rows = list(csv.DictReader(io.StringIO(folder.as_csv(record().samples).decode(), newline="")))
    assert [row["latency_ms"] for row in rows] == ["2.0", "3.0"]
    assert [row["acked_by"] for row in rows] == ["a b", ""]
    assert [row["drawn_ms"] for row in rows] == ["", "1.5"]
    assert rows[1]["detail"] == 'said "no", twice'


def test_no_run_gets_the_folder_of_another(tmp_path: Path) -> None:
    made = {folder.create(tmp_path / "results", "quorum") for _ in range(5)}
    assert len(made) == 5
    assert all(place.is_dir() and "-quorum" in place.name for place in made)


def test_a_place_that_cannot_be_written_to_is_told_before_the_run(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for place in (file, file / "below", Path("/proc/nowhere")):
        with pytest.raises(SettingsError, match=f"--out={place}"):
            folder.create(place, "quorum")


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(SettingsError, match="cannot be written"):
        folder.write_file(tmp_path, "taken", b"content")
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]


def test_folders_without_a_run_are_told_plainly(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="lab list"):
        folder.read_record(tmp_path)
    (tmp_path / "results.json").write_text('{"experiment": "quorum"')
    with pytest.raises(SettingsError, match="not the result of a run"):
        folder.read_record(tmp_path)
    folder.write_record(tmp_path, record(format=99))
    with pytest.raises(SettingsError, match="format 99"):
        folder.read_record(tmp_path)


def test_samples_and_settings_of_another_version_are_told_plainly() -> None:
    with pytest.raises(SettingsError, match="samples are of another version"):
        folder.from_table(QuorumSample, folder.Samples(["kind"], [[3]]))
    with pytest.raises(SettingsError, match="settings are of another version"):
        folder.settings_from(QuorumSettings, {"writes": "many"})


def test_the_page_needs_nothing_but_itself() -> None:
    picture = a_picture()
    page = Page(html.page(record(), [picture]))
    assert [tag for tag in ("script", "iframe", "object", "form", "base") if page.all(tag)] == []
    policies = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policies[0] is not None
    assert policies[0].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    (image,) = page.all("img")
    assert base64.b64decode(str(image["src"]).removeprefix("data:image/png;base64,")) == picture.content
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = [str(link["href"]) for link in page.all("a")]
    assert links
    assert {link[:1] for link in links} == {"#"}
    assert {link[1:] for link in links} <= anchors
    assert all(str(link["href"]).startswith("data:") for link in page.all("link"))


def test_whatever_a_server_said_stays_text() -> None:
    table = Table(title=EVIL, columns=[EVIL], rows=[[EVIL]], notes=[EVIL])
    made = record(
        title=EVIL,
        target=EVIL,
        command=EVIL,
        note=EVIL,
        state=folder.FAILED,
        host={EVIL: EVIL},
        summary=Summary(tables=[table], reading=[EVIL], violations=[EVIL]),
    )
    assert Page(html.page(made, [])).all("script") == []
    assert "\x1b" not in text.shown(table)[0][0]


def test_the_verdict_says_what_was_broken_and_what_is_missing() -> None:
    complete = html.page(record(), [])
    assert "No broken promise" in complete
    broken = html.page(record(summary=Summary(tables=[], reading=[], violations=["Key x was lost."])), [])
    assert "Key x was lost." in broken
    assert "No broken promise" not in broken
    partial = html.page(record(state=folder.INTERRUPTED, note="interrupted after 3 % of the run."), [])
    assert "interrupted after 3 % of the run." in partial
    assert "No broken promise" not in partial


def test_numbers_of_a_column_are_written_alike(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(
        title="T",
        columns=["a", "b", "c", "d"],
        rows=[[1, 2.0, 1234567.5, "x"], [12345, None, 1.0, None]],
        notes=["A note."],
    )
    assert text.shown(table) == [["1", "2", "1,234,567.50", "x"], ["12,345", "-", "1.00", "-"]]
    assert text.numeric(table) == [True, True, True, False]
    text.print_table(table)
    printed = capsys.readouterr().out
    assert "1,234,567.50" in printed
    assert "A note." in printed


def runs(a: dict[str, float], b: dict[str, float], **changes: Any) -> tuple[compare.Run, compare.Run]:
    first, second = (record(summary=Summary(tables=[], reading=[], key_figures=figures)) for figures in (a, b))
    for name, value in changes.items():
        setattr(second, name, value)
    return compare.Run("A", Path("one"), first), compare.Run("B", Path("two"), second)


def test_two_runs_are_compared_figure_by_figure(tmp_path: Path) -> None:
    a, b = runs(
        {"mean latency at quorum 1 (ms)": 100, "mean latency at quorum 2 (ms)": 200, "lost": 0, "only here": 1},
        {"mean latency at quorum 1 (ms)": 150, "mean latency at quorum 2 (ms)": 100, "lost": 0},
        settings=msgspec.to_builtins(QuorumSettings(writes=7)),
    )
    how, figures = compare.tables(a, b)
    assert ["setting writes", "100", "7"] in how.rows
    assert figures.rows == [
        ["mean latency at quorum 1 (ms)", 100, 150, 1.5],
        ["mean latency at quorum 2 (ms)", 200, 100, 0.5],
        ["lost", 0, 0, None],
    ]
    assert figures.notes == ["1 key figures are only in A."]
    compare.write(tmp_path, a, b, [how, figures])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["comparison.png", "report.html"]
    page = Page((tmp_path / "report.html").read_text())
    assert str(page.all("img")[0]["src"]).startswith("data:image/png;base64,")


def test_figures_that_form_no_curve_are_drawn_as_ratios() -> None:
    a, b = runs({"catch-up (ms)": 10, "availability (%)": 99}, {"catch-up (ms)": 20, "availability (%)": 98})
    picture = compare.picture(a, b)
    assert picture is not None
    assert "divided" in picture.caption
    assert png(picture.figure).startswith(b"\x89PNG")


def test_runs_of_different_experiments_have_no_common_picture() -> None:
    a, b = runs({"x": 1}, {"x": 2}, experiment="ordering")
    assert compare.picture(a, b) is None
    a, b = runs({"x": 1}, {"y": 2})
    with pytest.raises(SettingsError, match="no key figure in common"):
        compare.tables(a, b)
