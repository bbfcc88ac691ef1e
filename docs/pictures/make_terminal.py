"""Make docs/pictures/terminal.svg: a real cluster, real commands, recorded.

.venv/bin/python docs/pictures/make_terminal.py, after any ./run.sh command has made .venv.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from retinue.cluster import Cluster
from retinue.ports import free_ports

WIDTH = 108
PICTURE = Path(__file__).parent / "terminal.svg"


def main() -> None:
    """Record the session and write the picture."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    with tempfile.TemporaryDirectory() as folder:
        settings = {"min_delay_ms": "0", "max_delay_ms": "1000", "seed": "7"}
        with Cluster(Path(folder), free_ports(6), settings) as cluster:
            _prompt(console, "MAX_DELAY=1000 ./run.sh start")
            _show_nodes(console, cluster)
            _prompt(console, 'curl -X PUT localhost:8000/kv/color -d \'{"value": "blue"}\' ...')
            _show_receipt(console, cluster, "blue")
            cluster.kill("follower2")
            cluster.kill("follower5")
            _prompt(console, "kill -9 the processes of follower2 and follower5; write again")
            _show_receipt(console, cluster, "green")
            cluster.kill("follower1")
            _prompt(console, "kill -9 the process of follower1; write again")
            _show_refusal(console, cluster)
    PICTURE.write_text(_without_foreign_fonts(console.export_svg(title="retinue")), encoding="utf-8")


def _without_foreign_fonts(svg: str) -> str:
    """The picture must not fetch anything from elsewhere; any fixed-width font of the reader does."""
    return re.sub(r"@font-face {.*?}\s*|<!-- Generated.*?-->\s*", "", svg, flags=re.DOTALL)


def _prompt(console: Console, command: str) -> None:
    console.print(Text(f"\n$ {command}", style="bold cyan"))


def _show_nodes(console: Console, cluster: Cluster) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for number, node in enumerate(cluster.status()):
        table.add_row(node.name, node.role, f"http://127.0.0.1:{8000 + number}", Text("healthy", style="green"))
    console.print(table)


def _show_receipt(console: Console, cluster: Cluster, value: str) -> None:
    receipt = cluster.request("leader", "PUT", "/kv/color", {"value": value}, timeout_s=10).checked().json()
    names = ("outcome", "version", "acks", "required_quorum", "acked_by", "replication_time_ms")
    console.print(Text(json.dumps({name: receipt[name] for name in names}, indent=None), style="green"))


def _show_refusal(console: Console, cluster: Cluster) -> None:
    problem = cluster.request("leader", "PUT", "/kv/color", {"value": "red"}, timeout_s=10).json()
    names = ("status", "outcome", "detail")
    console.print(Text(json.dumps({name: problem[name] for name in names}, indent=None), style="yellow"))


if __name__ == "__main__":
    main()
