"""Images, compose and the Helm chart: each fits its schema, and what it starts is what this driftline can be told."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer.main
import yaml
from jsonschema import Draft202012Validator

from contracts.config.settings import Settings, parse
from driftline.cli.app import app
from driftline.processes.flink import LOGGING

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "driftline"
SCHEMAS = Path(__file__).parent / "schemas"
DOCKERFILES = sorted((DEPLOY / "docker").glob("*.Dockerfile"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
KUBERNETES = ("1.30", "1.34")  # the oldest that Chart.yaml takes, and one of today
EXPERIMENT = {
    "name": "week",
    "salt": "s",
    "start": "2030-01-01T00:00:00+00:00",
    "end": "2030-01-08T00:00:00+00:00",
    "arms": {"control": {"weight": 1, "model": "two_tower"}, "treatment": {"weight": 1, "model": "t2diff"}},
    "control": "control",
}
SECURED = {
    "secret": "driftline",
    "files": "driftline-files",
    "serviceAccount": "driftline",
    "redis": "redis:6379,password=${REDIS_PASSWORD}",
    "settings": {
        "experiment": EXPERIMENT,
        "serving": {"unprotected": False, "token_file": "/run/secrets/driftline/tokens"},
    },
    "podAnnotations": {"example.org/team": "recall"},
}
FLINK = {"flink": {"enabled": True}, "stream": {"replicas": 0}, "files": "driftline-files", "secret": "driftline"}
FEW = {"archive": {"replicas": 0}, "collector": {"replicas": 0}, "replica": {"autoscaling": {"enabled": False}}}
NAMES = ("as it is", "secured", "few", "flink")
VALUES: tuple[dict[str, Any], ...] = ({}, SECURED, FEW, FLINK)


def tool(name: str) -> str:
    """A tool that the dev extra brings, where its package has a wheel for this machine."""
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not here: its package has no wheel for this machine")
    return path


def rendered(tmp_path: Path, values: dict[str, Any]) -> list[dict[str, Any]]:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    done = subprocess.run(
        [tool("helm"), "template", "week", str(CHART), "--values", str(file)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def pods(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The specification of each workload's pod, by its component; claims are among its volumes."""
    found = {}
    for each in documents:
        if each["kind"] in {"Deployment", "StatefulSet"}:
            template = each["spec"]["template"]
            claims = [{"name": claim["metadata"]["name"]} for claim in each["spec"].get("volumeClaimTemplates", ())]
            name = template["metadata"]["labels"]["app.kubernetes.io/component"]
            found[name] = template["spec"] | {"volumes": template["spec"]["volumes"] + claims}
    return found


def understood(args: list[str]) -> str:
    """See that the command line takes these arguments; the command's name."""
    command: Any = typer.main.get_command(app)
    words: list[str] = []
    while hasattr(command, "resolve_command") and not args[0].startswith("-"):
        name, command, args = command.resolve_command(command.context_class(command), list(args))
        words.append(name)
    command.make_context(words[-1], list(args), resilient_parsing=False)
    return " ".join(words)


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    done = subprocess.run([tool("hadolint"), str(file)], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_an_image_runs_as_nobody_special_and_from_what_is_pinned(file: Path) -> None:
    words = [line.split() for line in file.read_text().splitlines() if line and line[0].isupper()]
    for instruction, image, *_ in words:
        if instruction == "FROM":
            assert image.partition(":")[2][:1].isdigit(), f"{image} is any version"
    assert [rest[0] for instruction, *rest in words if instruction == "USER"][-1].split(":")[0].isdigit()


def test_the_image_has_all_packages_and_they_are_in_the_context(tmp_path: Path) -> None:
    packages = set(PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    lines = (DEPLOY / "docker" / "driftline.Dockerfile").read_text().splitlines()
    copied = {
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    }
    assert packages <= copied
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert copied <= {line[1:] for line in ignored if line.startswith("!")}
    (extras,) = (line.split("=")[1].split(",") for line in lines if line.startswith("ARG EXTRAS="))
    assert set(extras) <= set(PYPROJECT["project"]["optional-dependencies"])


def test_of_what_the_image_copies_a_wheel_can_be_made(tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    for name in (*PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"], "pyproject.toml", "README.md"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, context / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, context / name)
    uv = tool("uv")
    done = subprocess.run(
        [uv, "build", "-q", "--wheel", "-o", str(tmp_path), str(context)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [*tmp_path.glob("driftline-*.whl")]


def test_compose_fits_its_schema() -> None:
    schema = json.loads((SCHEMAS / "compose-spec.json").read_text())
    assert [error.message for error in Draft202012Validator(schema).iter_errors(COMPOSE)] == []


def test_compose_starts_what_there_is_on_settings_that_are_right() -> None:
    text = (DEPLOY / "settings.yaml").read_text()
    assert isinstance(parse(yaml.safe_load(text)), Settings)
    ours = {name: each for name, each in COMPOSE["services"].items() if each["image"].startswith("driftline:")}
    started = {understood(each["command"]) for each in ours.values()}
    assert started == {"init", "stream", "trainer", "serve", "experiment collect", "archive"}
    for name, each in COMPOSE["services"].items():
        assert each["cap_drop"] == ["ALL"], name
        assert each["image"].partition(":")[2][0].isdigit(), name
        assert all(port.startswith("127.0.0.1:") for port in each.get("ports", ())), name
    assert all(each["read_only"] for each in ours.values())


def closed(schema: Any) -> Any:
    """A custom resource's schema that refuses what it does not name: Kubernetes drops that without a word."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    out = {name: closed(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        out.setdefault("additionalProperties", False)
    return out


@pytest.mark.parametrize("values", VALUES, ids=NAMES)
def test_what_the_chart_makes_is_what_kubernetes_takes(tmp_path: Path, values: dict[str, Any]) -> None:
    documents = rendered(tmp_path, values)
    schema = json.loads((SCHEMAS / "flinkdeployment-v1beta1.json").read_text())
    flink = Draft202012Validator(closed(schema["properties"]["spec"]))
    for document in documents:
        if document["kind"] == "FlinkDeployment":
            assert [f"{error.json_path}: {error.message}" for error in flink.iter_errors(document["spec"])] == []
            continue
        for version in KUBERNETES:
            kubernetes_validate.validate(document, version, strict=True)
    assert any(document["kind"] == "FlinkDeployment" for document in documents) == (values is FLINK)
    names = [(each["kind"], each["metadata"]["name"]) for each in documents]
    assert len(names) == len(set(names))


def test_beam_logs_no_environment_on_kubernetes_either(tmp_path: Path) -> None:
    """It has the store's keys in it. On a cluster of this machine tests/stream/test_flink.py looks into the logs."""
    (job,) = (each for each in rendered(tmp_path, FLINK) if each["kind"] == "FlinkDeployment")
    lines = job["spec"]["logConfiguration"]["log4j-console.properties"].splitlines()
    assert {line for line in LOGGING.splitlines() if "beam" in line} <= {*lines}


@pytest.mark.parametrize("values", VALUES, ids=NAMES)
def test_every_pod_is_bounded_unprivileged_and_runs_what_there_is(tmp_path: Path, values: dict[str, Any]) -> None:
    documents = rendered(tmp_path, values)
    specifications = pods(documents)
    assert {"replica", "trainer", "rows" if values is FLINK else "stream"} <= specifications.keys()
    for name, pod in specifications.items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert not pod["enableServiceLinks"]
        volumes = {volume["name"] for volume in pod["volumes"]} | (
            {"data"} - {volume["name"] for volume in pod["volumes"]}
        )
        for container in pod["initContainers"] + pod["containers"]:
            assert container["image"] == "driftline:0.1.0"
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"], name
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert understood(container["args"])
        (container,) = pod["containers"]
        if name == "rows":  # it serves nothing
            continue
        ports = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] in ports


@pytest.mark.parametrize("values", VALUES, ids=NAMES)
def test_the_charts_settings_are_right_and_its_ports_are_theirs(tmp_path: Path, values: dict[str, Any]) -> None:
    documents = rendered(tmp_path, values)
    (text,) = (each["data"]["settings.yaml"] for each in documents if each["kind"] == "ConfigMap")
    settings = parse(yaml.safe_load(text))
    ports = settings.metrics.ports.model_dump()
    for name, pod in pods(documents).items():
        if name == "rows":
            continue
        by_name = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
        assert by_name["metrics"] == ports[name]
        assert by_name.get("grpc", settings.serving.port) == settings.serving.port


@pytest.mark.parametrize("name", ["trainer", "stream", "collector", "archive"])
def test_two_of_what_has_a_disk_are_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        rendered(tmp_path, {name: {"replicas": 2}})
    assert f"{name}.replicas is 2, and one {name} alone may run" in caught.value.stderr


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"replica": {"replicas": 9}}, "replica.replicas is 9 and replica.autoscaling.max 8"),
        ({"replica": {"replicas": 0}}, "replica.replicas is 0 and replica.autoscaling.max 8"),
        ({"settings": {"snapshots": "/var/lib/driftline/snapshots"}}, "pods share no disk, so a store is wanted"),
        ({"settings": {"serving": {"port": 0}}}, "the port of serving.port is 0"),
        ({"settings": {"metrics": {"ports": {"trainer": 0}}}}, "the port of trainer is 0"),
    ],
)
def test_what_a_cluster_would_refuse_later_is_refused_in_a_sentence(
    tmp_path: Path, values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        rendered(tmp_path, values)
    assert sentence in caught.value.stderr


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"replcia": {"replicas": 3}}, "Additional property replcia is not allowed"),
        ({"trainer": {"replica": 1}}, "trainer: Additional property replica is not allowed"),
        ({"trainer": {"replicas": "one"}}, "trainer.replicas: Invalid type. Expected: integer, given: string"),
        (
            {"flink": {"configuration": {"taskmanager.memory": 1}}},
            "flink.configuration.taskmanager.memory: Invalid type. Expected: string, given: integer",
        ),
        ({"podAnnotations": ["a"]}, "podAnnotations: Invalid type. Expected: object, given: array"),
    ],
)
def test_a_value_that_the_chart_does_not_have_is_refused_by_its_name(
    tmp_path: Path, values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        rendered(tmp_path, values)
    assert sentence in caught.value.stderr


def test_a_stream_twice_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        rendered(tmp_path, {"flink": {"enabled": True}})
    assert (
        "flink.enabled is true and stream.replicas is not 0: every example would be made twice" in caught.value.stderr
    )


def test_helm_has_nothing_against_the_chart() -> None:
    done = subprocess.run([tool("helm"), "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
