"""Real servers that follow metrics, thrown away afterwards: Prometheus, VictoriaMetrics, the Pushgateway, InfluxDB."""

import json
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STARTS_WITHIN_S = 60.0


@dataclass(frozen=True)
class Follower:
    """A server that follows metrics."""

    address: str

    def get(self, path: str, **query: str) -> str:
        """Return what an address of it answers."""
        asked = f"?{urllib.parse.urlencode(query)}" if query else ""
        with urllib.request.urlopen(f"{self.address}{path}{asked}", timeout=30) as answer:  # noqa: S310 - our own server
            text: str = answer.read().decode()
            return text

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """Return the answer to a query in PromQL, at this moment."""
        found: list[dict[str, Any]] = json.loads(self.get("/api/v1/query", query=expr))["data"]["result"]
        return found

    def select(self, database: str, statement: str) -> list[dict[str, Any]]:
        """Return the series that a statement of InfluxQL finds."""
        answer = json.loads(self.get("/query", db=database, q=statement))["results"][0]
        if "error" in answer:
            raise ValueError(answer["error"])
        found: list[dict[str, Any]] = answer.get("series", [])
        return found


@contextmanager
def prometheus(scraped: str, rules: Path) -> Iterator[Follower]:
    """Start Prometheus, which asks ``scraped`` (HOST:PORT) every second, with alert rules."""
    with tempfile.TemporaryDirectory(prefix="icestream-prometheus-") as folder:
        config = _scrape_config(Path(folder), scraped, rules)

        def command(port: int) -> list[str]:
            listen = f"--web.listen-address=127.0.0.1:{port}"
            return ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data", listen]

        with _started(command, "/-/ready") as address:
            yield Follower(address)


@contextmanager
def victoria_metrics(scraped: str) -> Iterator[Follower]:
    """Start VictoriaMetrics, which asks ``scraped`` (HOST:PORT) every second."""
    with tempfile.TemporaryDirectory(prefix="icestream-victoria-") as folder:
        config = _scrape_config(Path(folder), scraped, None)

        def command(port: int) -> list[str]:
            fresh = "-search.latencyOffset=0s"  # what has just come is answered too
            listen = f"-httpListenAddr=127.0.0.1:{port}"
            return ["victoria-metrics", f"-promscrape.config={config}", f"-storageDataPath={folder}/data", listen, fresh]

        with _started(command, "/health") as address:
            yield Follower(address)


@contextmanager
def pushgateway() -> Iterator[Follower]:
    """Start the Pushgateway."""
    with _started(lambda port: ["prometheus-pushgateway", f"--web.listen-address=127.0.0.1:{port}"], "/-/ready") as address:
        yield Follower(address)


@contextmanager
def influxdb(database: str) -> Iterator[Follower]:
    """Start InfluxDB with a database."""
    with tempfile.TemporaryDirectory(prefix="icestream-influxdb-") as folder:

        def command(port: int) -> list[str]:
            config = Path(folder) / "influxdb.conf"
            config.write_text(
                f'reporting-disabled = true\nbind-address = "127.0.0.1:{_free_port()}"\n[meta]\ndir = "{folder}/meta"\n'
                f'[data]\ndir = "{folder}/data"\nwal-dir = "{folder}/wal"\n[http]\nbind-address = "127.0.0.1:{port}"\n',
                encoding="utf-8",
            )
            return ["influxd", "run", "-config", str(config)]

        with _started(command, "/ping") as address:
            create = urllib.parse.urlencode({"q": f"CREATE DATABASE {database}"}).encode()
            with urllib.request.urlopen(f"{address}/query", data=create, timeout=30) as answer:  # noqa: S310 - our own server
                answer.read()
            yield Follower(address)


def _scrape_config(folder: Path, scraped: str, rules: Path | None) -> Path:
    job = {"job_name": "icestream", "static_configs": [{"targets": [scraped]}]}
    config: dict[str, Any] = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [job],
    }
    if rules is not None:
        config["rule_files"] = [str(rules)]
        config["global"]["evaluation_interval"] = "1s"  # VictoriaMetrics refuses what is for rules
    path = folder / "scrape.yml"
    path.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    return path


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def _started(command: Callable[[int], Sequence[str]], ready: str) -> Iterator[str]:
    """Run a server while the context lasts, and give its address once it answers."""
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    words = command(port)
    with tempfile.TemporaryFile() as log, subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT) as process:
        try:
            deadline = time.monotonic() + _STARTS_WITHIN_S
            while not _answers(f"{address}{ready}"):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{words[0]} does not start: {log.read().decode()[-2000:]}")
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()
            process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310 - our own server
            return bool(answer.status < 300)
    except (urllib.error.URLError, OSError):
        return False
