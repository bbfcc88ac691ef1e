"""PostgreSQL: a primary and three standbys, a commit waits for any two of them (`ANY 2`), loaded with pgbench.

The write is an upsert by key, prepared, one a transaction, into a table with room on its pages, so that an update stays
on its page and touches no index. PostgreSQL does not run as root; then the user `postgres` runs it.
"""

from __future__ import annotations

import math
import os
import pwd
import re
import shutil
import signal
import subprocess

from bench.generator import LoadResult
from bench.installing import NotAvailable, debian_program
from bench.systems.contract import HOST, System, Tools, Work
from retinue.errors import ClusterError
from retinue.ports import free_ports

STANDBYS = 3
PLACES = ("usr/lib/postgresql/*/bin",)
_SETUP_TIMEOUT_S = 120.0
_CONNECT_S = 0.02
_TABLE = """
CREATE TABLE kv (key text PRIMARY KEY, value text NOT NULL) WITH (fillfactor = 50);
INSERT INTO kv SELECT 'key:' || lpad(n::text, 12, '0'), repeat('x', 100) FROM generate_series(0, 9999) AS n;
VACUUM ANALYZE kv;
"""
_UPSERT = """\\set n random(0, 9999)
INSERT INTO kv VALUES ('key:' || lpad((:n)::text, 12, '0'), lpad((:n)::text, {value_bytes}, 'v'))
ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value;
"""


class Postgres(System):
    """The newest PostgreSQL of this machine, or Debian's."""

    configuration = (
        "primary and 3 standbys, synchronous_standby_names 'ANY 2 (s1, s2, s3)', synchronous_commit on, fsync on, "
        "shared_buffers 256MB, max_wal_size 8GB, no checkpoint during a run, autovacuum on, table with fillfactor 50; "
        "pgbench -M prepared, one upsert by key a transaction, over TCP"
    )

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools, "PostgreSQL ANY 2")
        self._stop_signal = signal.SIGINT  # the fast shutdown: it does not wait for clients

    def start(self) -> None:
        """Make the primary and its standbys, and wait until two of them are taken for the quorum."""
        postgres, self.environment = debian_program("initdb", "postgresql-15", self.tools.packages, PLACES)
        self.bin = postgres.resolve().parent
        self.pgbench = debian_program("pgbench", "postgresql-15", self.tools.packages, PLACES)[0]
        self.ports = free_ports(1 + STANDBYS)
        self.folder.mkdir(parents=True)
        self.user = self._user()
        self._call("initdb", "-D", str(self.folder / "primary"), "-U", "bench", "-A", "trust", "--no-sync")
        self._serve("primary", self.ports[0], {})
        self.wait_for(lambda: self._answers(self.ports[0]), "the start of the primary")
        for number, port in enumerate(self.ports[1:], start=1):
            data, source = str(self.folder / f"s{number}"), f"host={HOST} port={self.ports[0]} user=bench"
            self._call("pg_basebackup", "-D", data, "-d", source, "-R", "-X", "stream", "-c", "fast", "--no-sync")
            self._serve(f"s{number}", port, {"cluster_name": f"s{number}"})
        self._sql(_TABLE)
        names = ", ".join(f"s{number}" for number in range(1, STANDBYS + 1))
        self._sql(f"ALTER SYSTEM SET synchronous_standby_names = 'ANY 2 ({names})'; SELECT pg_reload_conf();")
        count = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum' AND state = 'streaming'"
        self.wait_for(lambda: self._sql(count + ";") == str(STANDBYS), "the first sync of the standbys")

    def measure(self, work: Work) -> LoadResult:
        """Upsert with pgbench; what it logs of each transaction gives the latencies."""
        script = self.folder / f"upsert-{work.value_bytes}.sql"
        script.write_text(_UPSERT.format(value_bytes=work.value_bytes))
        for old in self.folder.glob("transactions.*"):
            old.unlink()
        # pgbench counts the time of connecting too.
        whole_s = math.ceil(work.warm_up + work.seconds + _CONNECT_S * work.connections)
        before = os.times()
        output = self._call(
            *("pgbench", "-n", "-M", "prepared", "-f", str(script), "-T", str(whole_s), "-c", str(work.connections)),
            *("-j", "1", "-h", HOST, "-p", str(self.ports[0]), "-U", "bench", "-l"),
            *("--log-prefix", str(self.folder / "transactions"), "postgres"),
            timeout_s=whole_s + _SETUP_TIMEOUT_S,
        )
        after = os.times()
        failed = re.search(r"number of failed transactions: (\d+)", output)
        errors = {"failed": int(failed[1])} if failed and int(failed[1]) else {}
        cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
        return self._result(work, errors, cpu_s * work.seconds / whole_s)

    def _result(self, work: Work, errors: dict[str, int], cpu_s: float) -> LoadResult:
        """The transactions of `work.seconds` after the warm-up, which begins with the first of all."""
        ended: list[tuple[float, int]] = []
        for log in self.folder.glob("transactions.*"):
            for line in log.read_text(encoding="ascii").splitlines():
                taken_us, _, seconds, microseconds = line.split()[2:6]
                ended.append((int(seconds) + int(microseconds) / 1e6, int(taken_us)))
        begin_s = min((at_s for at_s, _ in ended), default=0.0) + work.warm_up
        end_s = begin_s + work.seconds
        if max((at_s for at_s, _ in ended), default=0.0) < end_s - 0.1:
            raise ClusterError("pgbench took so long to connect that too little was measured: try again.")
        taken = sorted(taken_us for at_s, taken_us in ended if begin_s < at_s <= end_s)
        p50, p95, p99 = (float(taken[min(int(p * len(taken)), len(taken) - 1)]) for p in (0.5, 0.95, 0.99))
        return LoadResult(
            connections=work.connections,
            count=len(taken),
            all=len(ended),
            seconds=work.seconds,
            per_second=len(taken) / work.seconds,
            mean_us=sum(taken) / len(taken),
            p50_us=p50,
            p95_us=p95,
            p99_us=p99,
            max_us=float(taken[-1]),
            generator_cpu_s=cpu_s,
            errors=errors,
        )

    # --- processes ---

    def _serve(self, name: str, port: int, more: dict[str, str]) -> None:
        settings = {
            "port": str(port),
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "max_connections": "300",
            "shared_buffers": "256MB",
            "max_wal_size": "8GB",
            "wal_keep_size": "1GB",
            "checkpoint_timeout": "1h",
            "synchronous_commit": "on",
            "fsync": "on",
            "max_wal_senders": "10",
            "wal_level": "replica",
            "jit": "off",
            **more,
        }
        words = [word for setting, value in settings.items() for word in ("-c", f"{setting}={value}")]
        command = self._as_user(self._program("postgres"), "-D", str(self.folder / name), *words)
        self.launch(command, name, self.environment)

    def _user(self) -> str | None:
        """Whom PostgreSQL runs as: the caller, or `postgres` when that is root, who then owns the folder."""
        if os.geteuid():
            return None
        if not shutil.which("setpriv"):
            raise NotAvailable("PostgreSQL does not run as root, and there is no setpriv to run it as another user.")
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            raise NotAvailable(
                "PostgreSQL does not run as root: make a user `postgres`, or call this as one."
            ) from None
        os.chown(self.folder, user.pw_uid, user.pw_gid)
        return user.pw_name

    def _as_user(self, *command: str) -> list[str]:
        if self.user is None:
            return list(command)
        setpriv = shutil.which("setpriv") or "setpriv"
        return [setpriv, f"--reuid={self.user}", f"--regid={self.user}", "--init-groups", "--", *command]

    def _program(self, name: str) -> str:
        return str(self.pgbench if name == "pgbench" else self.bin / name)

    def _call(self, program: str, *words: str, given: str = "", timeout_s: float = _SETUP_TIMEOUT_S) -> str:
        """Run one of PostgreSQL's programs to its end. Raises `ClusterError` with its last words."""
        command = self._as_user(self._program(program), *words)
        environment = {**os.environ, **self.environment, "LC_ALL": "C"}
        try:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=environment,
                input=given,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ClusterError(f"{program} did not end within {timeout_s:.0f} s.") from None
        if done.returncode:
            raise ClusterError(f"{program} failed: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}")
        return done.stdout

    def _sql(self, statements: str) -> str:
        where = ("-h", HOST, "-p", str(self.ports[0]), "-U", "bench", "-d", "postgres")
        return self._call("psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", *where, given=statements).strip()

    def _answers(self, port: int) -> bool:
        done = subprocess.run(
            [self._program("pg_isready"), "-h", HOST, "-p", str(port)],
            env={**os.environ, **self.environment},
            capture_output=True,
            check=False,
        )
        return done.returncode == 0
