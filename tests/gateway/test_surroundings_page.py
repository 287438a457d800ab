"""docs/surroundings.md shows the files in deploy/; their numbers fit each other and the code."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from access.rules import PAGES
from gateway.__main__ import DESCRIPTORS_RESERVED
from gateway.settings import Settings
from tests.simple_yaml import read_yaml
from turnout.control import _control_options

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
PAGE = (REPOSITORY / "docs" / "surroundings.md").read_text(encoding="utf-8")
SHOWN = re.compile(r"`deploy/([\w./-]+)`:\n\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STOP_MARGIN_S = 2.0


def settings_of_container() -> Settings:
    """Return the settings that the container and the pods have."""
    return Settings.read(DEPLOY / "container" / "gateway.json")


def stop_s(settings: Settings) -> float:
    """Return the seconds from SIGTERM to the end, at most."""
    return settings.stop_accept_s + settings.stop_handover_s + settings.drain_grace_s


def stateful_set() -> dict[str, Any]:
    """Return the gateways' StatefulSet."""
    documents = read_yaml((DEPLOY / "kubernetes" / "gateway.yaml").read_text(encoding="utf-8"))
    (found,) = (document for document in documents if document["kind"] == "StatefulSet")
    assert isinstance(found, dict)
    return found


def test_page_shows_each_file_as_it_is() -> None:
    """A file that is changed is changed on the page too."""
    shown = dict(SHOWN.findall(PAGE))
    folders = [DEPLOY / name for name in ("container", "kubernetes", "systemd")]
    files = [file for folder in folders for file in sorted(folder.iterdir())]
    files.append(DEPLOY / "prometheus" / "kubernetes.yml")
    for file in files:
        name = file.relative_to(DEPLOY).as_posix()
        assert shown.get(name) == file.read_text(encoding="utf-8"), name


def test_settings_of_the_container_are_whole() -> None:
    """They are read as the gateway reads them, and every path is below a mounted folder."""
    settings, pod = settings_of_container(), stateful_set()["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    values = json.loads((DEPLOY / "container" / "gateway.json").read_text(encoding="utf-8"))
    paths = [value for value in values.values() if str(value).startswith("/")]
    assert len(paths) >= 4
    assert all(any(Path(path).is_relative_to(mount) for mount in mounts) for path in paths)
    containerfile = (DEPLOY / "container" / "Containerfile").read_text(encoding="utf-8")
    assert f"EXPOSE {settings.port} {settings.metrics_port}\n" in containerfile
    assert f"VOLUME {settings.folder}\n" in containerfile
    user = pod["securityContext"]["runAsUser"]
    assert f"USER {user}:{pod['securityContext']['runAsGroup']}\n" in containerfile


def test_pods_are_probed_and_stopped_as_the_gateway_does_it() -> None:
    """Ports and pages exist, and the grace is enough for the stop."""
    settings, whole = settings_of_container(), stateful_set()
    pod = whole["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": settings.port, "metrics": settings.metrics_port}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["port"] == "metrics"
        assert PAGES[asked["path"]].open, "kubelet has no token"
    # Kubernetes sees 503 before new connections are refused.
    ready = container["readinessProbe"]
    assert ready["periodSeconds"] * ready["failureThreshold"] < settings.stop_accept_s
    assert pod["terminationGracePeriodSeconds"] >= stop_s(settings) + STOP_MARGIN_S
    assert settings.stop_handover_s >= 1.1 * settings.connection_age_s_max
    # A rolling restart needs all workers and the spare twice.
    limit_mb = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 1_024
    assert limit_mb >= 2 * settings.workers * settings.worker_rss_mb_max
    # Everything that is named is there.
    labels = whole["spec"]["template"]["metadata"]["labels"]
    assert whole["spec"]["selector"]["matchLabels"] == labels
    volumes = {volume["name"] for volume in pod["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in whole["spec"]["volumeClaimTemplates"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_kubernetes_reads_the_manifest() -> None:
    """As kubectl does, without a cluster; nothing is lost, as a field that it does not know is."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    file = DEPLOY / "kubernetes" / "gateway.yaml"
    line = [kubectl, "label", "--local", "--dry-run=client", "-f", str(file), "turnout=x"]
    read = subprocess.run([*line, "-o", "json"], capture_output=True, text=True, check=True).stdout
    decoder, found = json.JSONDecoder(), []
    while read.strip():
        document, end = decoder.raw_decode(read.lstrip())
        found.append(document)
        read = read.lstrip()[end:]
    assert len(found) == 3
    for written, decoded in zip(read_yaml(file.read_text(encoding="utf-8")), found, strict=True):
        assert missing(written, decoded) == []


def missing(written: Any, decoded: Any, path: str = "") -> list[str]:  # noqa: ANN401  any JSON
    """Return the paths of values of *written* that are not in *decoded*."""
    if isinstance(written, dict):
        return [
            lost
            for key, value in written.items()
            for lost in missing(value, (decoded or {}).get(key), f"{path}.{key}")
        ]
    if isinstance(written, list):
        pairs = zip(written, decoded or [None] * len(written), strict=True)
        return [lost for pair in pairs for lost in missing(*pair, path)]
    return [] if written == decoded else [f"{path}: {written!r} became {decoded!r}"]


def unit_values(name: str) -> dict[str, str]:
    """Return the settings of a systemd unit; each has one value but those of [Unit]."""
    text = (DEPLOY / "systemd" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


@pytest.mark.parametrize("name", ["turnout-gateway.service", "turnout-control.service"])
def test_systemd_accepts_the_unit(name: str, tmp_path: Path) -> None:
    """As `systemd-analyze verify` says, with a Python that exists here."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    text = (DEPLOY / "systemd" / name).read_text(encoding="utf-8")
    (tmp_path / name).write_text(text.replace("/opt/turnout/bin/python", sys.executable))
    verified = subprocess.run(
        [program, "verify", str(tmp_path / name)], capture_output=True, text=True
    )
    assert (verified.returncode, verified.stderr) == (0, "")


def test_units_start_what_exists_and_stop_it_in_time() -> None:
    """The commands have options that exist, and the bounds are those of the settings."""
    gateway, settings = unit_values("turnout-gateway.service"), settings_of_container()
    assert shlex.split(gateway["ExecStart"])[1:3] == ["-m", "gateway"]
    assert float(gateway["TimeoutStopSec"]) >= stop_s(settings) + STOP_MARGIN_S
    assert int(gateway["LimitNOFILE"]) >= settings.connections_max + DESCRIPTORS_RESERVED
    assert gateway["RestartPreventExitStatus"] == "2"
    control = shlex.split(unit_values("turnout-control.service")["ExecStart"])
    assert control[1:3] == ["-m", "turnout.control"]
    _control_options().parse_args(control[3:])


@pytest.mark.parametrize("name", ["prometheus.yml", "kubernetes.yml"])
def test_prometheus_reads_the_configuration(name: str) -> None:
    """As promtool does where it is, and by the settings' port and token in any case."""
    file = DEPLOY / "prometheus" / name
    (config,) = read_yaml(file.read_text(encoding="utf-8"))
    assert config["rule_files"] == ["turnout.rules.yml"]
    scrape, *others = config["scrape_configs"]
    assert scrape["job_name"] == "turnout"  # the alerts ask for it
    settings = settings_of_container()
    if name == "kubernetes.yml":
        assert scrape["authorization"]["credentials_file"] == settings.observe_token_file
        assert others == []
        (labels, _) = scrape["relabel_configs"]
        pod = stateful_set()["spec"]["template"]
        assert labels["regex"] == f"{pod['metadata']['labels']['app']};metrics"
    else:
        assert scrape["static_configs"] == [{"targets": [f"127.0.0.1:{settings.metrics_port}"]}]
        assert [job["job_name"] for job in others] == ["turnout-control"]
    promtool = shutil.which("promtool")
    if promtool is not None:
        subprocess.run([promtool, "check", "config", "--syntax-only", str(file)], check=True)


@pytest.mark.walk
def test_commands_of_the_page_have_options_that_exist() -> None:
    """Docker's client says which it knows, without a daemon; ours are read as the command reads."""
    text = re.search(r"`turnout --folder /state (up [^`]*)`", PAGE)
    assert text is not None
    shown = help_of([sys.executable, "-m", "turnout", "up"])
    assert {option for option in shlex.split(text[1]) if option.startswith("--")} <= shown
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("docker is not installed")
    (block,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines():
        _, command, *options = shlex.split(line)
        used = {option for option in options if option.startswith("--")}
        assert used <= help_of([docker, command]), command


def help_of(command: list[str]) -> set[str]:
    """Return the options that a command's help names."""
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"--[a-z-]+", shown))
