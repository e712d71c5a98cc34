"""Every client of ours reaches the platform's hosts directly, whatever the environment says; a proxy is the source's alone."""

import contextlib
import functools
import hashlib
import importlib.util
import os
import ssl
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import ansible.module_utils
import pytest

from millrace import http, offline_source, source
from millrace.checks import airflow, cluster, spark
from millrace.connections import Connections, Registry, Source
from millrace.errors import MillraceError
from millrace.registry import RegistryClient

LOGIN = {"username": "admin", "password": "of-the-tests"}


class Recorder(ThreadingHTTPServer):
    """Notes each request line's verb and target and the login to a proxy, then forwards a GET of a whole URL, or refuses."""

    def __init__(self) -> None:
        recorder = self
        self.came: list[str] = []
        self.logins: list[str | None] = []

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                recorder.came.append(f"{self.command} {self.path}")
                recorder.logins.append(self.headers["Proxy-Authorization"])
                status, body = 503, b"{}"
                if self.command == "GET" and self.path.startswith("http://"):
                    with http.session() as session:
                        forwarded = session.get(self.path, timeout=10)
                    status, body = forwarded.status_code, forwarded.content
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = do_CONNECT = answer

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def host():
    """A host of the platform."""
    with serving(Recorder()) as server:
        yield server


@pytest.fixture
def proxy(monkeypatch, tmp_path: Path):
    """A proxy that the environment names for everything but `localhost`, beside other ways to lead a client astray."""
    with serving(Recorder()) as server:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, server.url)
            monkeypatch.setenv(name.upper(), server.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "localhost")
        netrc = tmp_path / "netrc"
        netrc.write_text("default login stranger password of-the-shell\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.setenv(name, str(tmp_path / "none.pem"))
        yield server


def connections(url: str) -> Connections:
    page = {"url": url, **LOGIN}
    return Connections(
        {
            "registry": page,
            "source": {"url": f"{url}/api/1.4/", "name": "randomuser", "control_token": "token"},
            "spark_cluster": {**page, "workers": [], "checkpoint": ""},
            "airflow": page,
        },
        "of-the-tests.json",
    )


def lookup(url: str) -> None:
    with RegistryClient(Registry(url=url, **LOGIN)) as client:
        client.lookup("subject", "{}")


@pytest.mark.parametrize(
    "ask",
    [
        lookup,
        lambda url: cluster.schema_registry(connections(url)),
        lambda url: cluster.offline_source(connections(url)),
        lambda url: offline_source.control(connections(url).source, "503"),
        lambda url: spark.spark_worker(connections(url)),
        lambda url: airflow.airflow(connections(url)),
        lambda url: airflow.airflow_api(connections(url)),
        lambda url: source.fetch(url, "randomuser", "seed-", 1, patience=source.Patience(deadline=0.1)),
    ],
    ids=["registry", "registry health", "source health", "source fault", "spark", "airflow", "api", "source"],
)
def test_a_host_of_the_platform_is_reached_directly(host: Recorder, proxy: Recorder, ask) -> None:
    with pytest.raises(MillraceError):
        ask(host.url)
    assert host.came
    assert proxy.came == []


def test_a_login_is_the_connections_own(host: Recorder, proxy: Recorder) -> None:
    with http.session() as session:
        assert "Authorization" not in session.get(host.url, timeout=5).request.headers


def test_the_masters_page_is_asked_without_a_login_too(proxy: Recorder, source_url: str) -> None:
    """The offline source knows no such page, and says so: it was asked."""
    with pytest.raises(MillraceError, match="404"):
        spark.spark_master(connections(source_url.removesuffix("/api/1.4/")))
    assert proxy.came == []


def test_a_proxy_of_its_own_leads_to_the_source(proxy: Recorder, source_url: str, monkeypatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    way = proxy.url.replace("//", "//somebody:pass%40word@")
    batch = source.fetch(source_url, "randomuser", "by-proxy-", 3, proxy=way)
    assert len(batch.users) == 3
    assert [entry.partition("?")[0] for entry in proxy.came] == [f"GET {source_url}"]
    assert proxy.logins == ["Basic c29tZWJvZHk6cGFzc0B3b3Jk"]


def test_a_proxy_that_refuses_is_named_and_its_login_is_not(proxy: Recorder) -> None:
    way = proxy.url.replace("//", "//somebody:pass%40word@")
    patience = source.Patience(deadline=0.1)
    with pytest.raises(source.SourceError, match="the proxy does not lead there") as caught:
        source.fetch("https://source.test/", "randomuser", "seed-", 1, proxy=way, patience=patience)
    assert proxy.came == ["CONNECT source.test:443"]
    with pytest.raises(
        source.SourceError, match="the proxy does not lead there: ConnectionRefused"
    ) as refused:
        source.fetch(
            "http://source.test/",
            "randomuser",
            "seed-",
            1,
            proxy="http://somebody:pass%40word@127.0.0.1:9",
            patience=patience,
        )
    for text in (
        str(caught.value),
        str(refused.value),
        repr(Source("http://source.test/", "randomuser", proxy=way)),
    ):
        assert "pass" not in text


def test_the_systems_store_vouches_for_a_source_outside(
    proxy: Recorder, source_server, tmp_path, monkeypatch
) -> None:
    """A corporate authority is known there, and neither to the list of requests nor by a variable."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-subj",
                "/CN=test",
                "-days",
                "1",
            ),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = offline_source.Server("127.0.0.1", 0, control_token=None, rate_limit=0)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    patience = source.Patience(deadline=0.5)
    with serving(server):
        url = f"https://127.0.0.1:{server.server_port}/api/1.4/"
        with pytest.raises(source.SourceError, match="CERTIFICATE_VERIFY_FAILED"):
            source.fetch(url, "randomuser", "seed-", 1, patience=patience)
        monkeypatch.setattr(http, "SYSTEM_CERTIFICATES", str(certificate))
        assert len(source.fetch(url, "randomuser", "seed-", 1).users) == 1


def module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        Path(path).stem, Path(__file__).parents[2] / "ansible/plugins" / path
    )
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_the_depot_is_reached_directly(proxy: Recorder, tmp_path: Path) -> None:
    """By uv, which installs what hosts run from; it is taken from this environment."""
    name = "ansible.module_utils.installations"
    ansible.module_utils.installations = sys.modules[name] = module("module_utils/installations.py")
    depot, lock = tmp_path / "depot", "probe==1"
    wheels = depot / "wheels" / f"probe-{hashlib.sha256(lock.encode()).hexdigest()[:10]}"
    wheels.mkdir(parents=True)
    wheel = wheels / "probe-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("probe.py", "")
        archive.writestr("probe-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: probe\nVersion: 1\n")
        archive.writestr(
            "probe-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("probe-1.dist-info/RECORD", "")
    target = tmp_path / "target"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", target], check=True)
    (target / "bin" / "uv").symlink_to(Path(sys.executable).with_name("uv"))
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(depot))
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        parameters = {"depot": {"url": url, **LOGIN}, "requirements": lock, "requirements_name": "probe"}
        installer = module("modules/python_environment.py").Installer(parameters, target)
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        installer.install_locked(f"{lock} --hash=sha256:{digest}\n")
    assert list(target.glob("lib/*/site-packages/probe.py"))
    assert proxy.came == []
