"""Commands that describe the node: INFO, ROLE, CONFIG GET, COMMAND, TIME."""

from __future__ import annotations

import os
import resource
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from retinue import __version__
from retinue.resp.arguments import word_of
from retinue.resp.outcomes import leader_address
from retinue.resp.replies import CommandError, array, integer, mapping, page, strings, text
from retinue.resp.session import REDIS_VERSION, unknown_subcommand

if TYPE_CHECKING:
    from collections.abc import Callable

    from retinue.resp.client import Client

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

Section = dict[str, object]


def time_(client: Client, arguments: list[bytes]) -> bytes:
    """TIME: seconds since 1970, and microseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return strings([str(seconds), str(nanoseconds // 1000)])


# --- ROLE and INFO ---


def _replicas(client: Client) -> list[tuple[str, int, int, str]]:
    """Host, port, offset and state of each linked follower; an offset is the version up to which it has everything."""
    leadership = client.node.replica.leadership
    assert leadership is not None, "only the leader has replicas"
    distance = (client.node.resp_port or 0) - client.node.settings.port
    found = []
    for member in client.node.members:
        progress = leadership.progress.get(member.name)
        if progress is not None and progress.linked:
            host, _, port = member.http_url.partition("://")[2].rpartition(":")
            state = "online" if progress.live else "wait_bgsave" if progress.snapshot else "send_bulk"
            found.append((host, int(port) + distance, progress.contiguous, state))
    return found


def role(client: Client, arguments: list[bytes]) -> bytes:
    """ROLE."""
    replica = client.node.replica
    if replica.leadership is not None:
        shown = [strings([host, str(port), str(offset)]) for host, port, offset, _ in _replicas(client)]
        return array([text("master"), integer(replica.log.trusted), array(shown)])
    host, port = leader_address(client.node) or ("", 0)
    state = text("connected" if replica.leader is not None else "connect")
    return array([text("slave"), text(host), integer(port), state, integer(replica.log.trusted)])


def _server(client: Client) -> Section:
    uptime_s = int(time.monotonic() - client.node.overview.started_s)
    return {
        "redis_version": REDIS_VERSION,
        "redis_mode": "standalone",
        "retinue_version": __version__,
        "process_id": os.getpid(),
        "run_id": client.node.replica.node_id,
        "tcp_port": client.statistics.port,
        "server_time_usec": time.time_ns() // 1000,
        "uptime_in_seconds": uptime_s,
        "uptime_in_days": uptime_s // 86_400,
    }


def _clients(client: Client) -> Section:
    return {
        "connected_clients": len(client.statistics.connections),
        "maxclients": client.node.settings.max_connections,
        "blocked_clients": client.statistics.blocked,
    }


def _memory(client: Client) -> Section:
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "used_memory": used,
        "used_memory_human": f"{used / 1_048_576:.2f}M",
        "used_memory_rss": used,
        "used_memory_peak": max(peak, used),
        "maxmemory": 0,
        "maxmemory_policy": "noeviction",
    }


def _persistence(client: Client) -> Section:
    return {
        "loading": 0,
        "rdb_bgsave_in_progress": 0,
        "aof_enabled": 0 if client.node.settings.memory else 1,
        "aof_rewrite_in_progress": 0,
        "aof_last_write_status": "err" if client.node.driver.disk_full else "ok",
    }


def _stats(client: Client) -> Section:
    statistics = client.statistics
    return {
        "total_connections_received": int(statistics.accepted.value),
        "total_commands_processed": statistics.commands_processed,
        "instantaneous_ops_per_sec": round(statistics.commands_per_s),
        "rejected_connections": int(statistics.refused.value),
        "expired_keys": client.node.expiry.deleted,
    }


def _replication(client: Client) -> Section:
    node, replica = client.node, client.node.replica
    if replica.leadership is not None:
        replicas = _replicas(client)
        shown: Section = {"role": "master", "connected_slaves": len(replicas)}
        for number, (host, port, offset, state) in enumerate(replicas):
            shown[f"slave{number}"] = f"ip={host},port={port},state={state},offset={offset},lag=0"
    else:
        host, port = leader_address(node) or ("", 0)
        linked = replica.leader is not None
        shown = {
            "role": "slave",
            "master_host": host,
            "master_port": port,
            "master_link_status": "up" if linked else "down",
            "slave_repl_offset": replica.log.trusted,
            "slave_read_only": 1,
        }
    return shown | {
        "master_replid": replica.cluster_id,
        "master_repl_offset": replica.log.trusted,
        "retinue_node": node.name,
        "retinue_epoch": replica.epoch,
        "retinue_write_quorum": node.write_quorum,
    }


def _cpu(client: Client) -> Section:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"used_cpu_sys": f"{usage.ru_stime:.6f}", "used_cpu_user": f"{usage.ru_utime:.6f}"}


def _keyspace(client: Client) -> Section:
    keys = client.view.count()
    return {"db0": f"keys={keys},expires={len(client.node.expiry)},avg_ttl=0"} if keys else {}


_SECTIONS: dict[str, Callable[[Client], Section]] = {
    "server": _server,
    "clients": _clients,
    "memory": _memory,
    "persistence": _persistence,
    "stats": _stats,
    "replication": _replication,
    "cpu": _cpu,
    "keyspace": _keyspace,
}


def info(client: Client, arguments: list[bytes]) -> bytes:
    """INFO [section ...]."""
    wanted = {word_of(raw).lower() for raw in arguments[1:]}
    if not wanted or wanted & {"all", "default", "everything"}:
        wanted = set(_SECTIONS)
    pages = []
    for name, section in _SECTIONS.items():
        if name in wanted:
            lines = [f"{field}:{value}\r\n" for field, value in section(client).items()]
            title = name.upper() if name == "cpu" else name.capitalize()
            pages.append(f"# {title}\r\n{''.join(lines)}")
    return page(client.version, "\r\n".join(pages))


# --- CONFIG ---


def config(client: Client, arguments: list[bytes]) -> bytes:
    """CONFIG GET pattern [pattern ...]: what clients of Redis ask for, as it is here."""
    if word_of(arguments[1]) != "GET" or len(arguments) < 3:
        raise CommandError(unknown_subcommand("CONFIG", arguments[1]))
    settings = client.node.settings
    known = {
        "appendfsync": {"FULL": "always", "NORMAL": "everysec", "OFF": "no"}[settings.synchronous],
        "appendonly": "no" if settings.memory else "yes",
        "bind": settings.host,
        "databases": "1",
        "dir": "" if settings.memory else str(settings.data_dir),
        "maxclients": str(settings.max_connections),
        "maxmemory": "0",
        "maxmemory-policy": "noeviction",
        "min-replicas-to-write": str(client.node.write_quorum),
        "port": str(client.statistics.port),
        "proto-max-bulk-len": str(settings.value_limit_bytes),
        "save": "",
        "slave-read-only": "yes",
        "replica-read-only": "yes",
        "timeout": "0",
    }
    patterns = [raw.decode("latin-1").lower() for raw in arguments[2:]]
    shown = [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return mapping(client.version, [(text(name), text(known[name])) for name in shown])
