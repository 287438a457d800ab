"""The examples in other languages: what can be checked without their tools."""

import json
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor

from protos import explain_pb2, features_pb2, predict_pb2
from turnout_client.retry import SERVICE, SERVICE_CONFIG

CLIENTS = Path(__file__).parents[2] / "clients"
CONFIGS = [
    CLIENTS / "go" / "service_config.json",
    CLIENTS / "node" / "service_config.json",
    CLIENTS / "java" / "src" / "main" / "resources" / "example" / "service_config.json",
]
GRPC_NAMES = {"Status", "Metadata", "Channel", "Context", "Server", "Code", "StatusCode"}
"""Classes that a program imports from gRPC's library in Java, C# or Python."""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(CLIENTS).parts[0])
def test_example_repeats_calls_as_the_python_client_does(path: Path) -> None:
    """Its service config is the Python client's, without the methods that push features."""
    expected = {
        **SERVICE_CONFIG,
        "methodConfig": [
            entry
            for entry in json.loads(json.dumps(SERVICE_CONFIG["methodConfig"]))
            if all(name["service"] == SERVICE for name in entry["name"])
        ],
    }
    assert json.loads(path.read_text(encoding="utf-8")) == expected


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("node/package-lock.json", ["resolved", "registry"]),
        ("java/pom.xml", ["<repositor", "<pluginRepositor", "<url>"]),
        ("go/go.mod", ["replace"]),
    ],
)
def test_lock_of_an_example_names_no_address(file: str, words: list[str]) -> None:
    """Versions and checksums only."""
    text = (CLIENTS / file).read_text(encoding="utf-8")
    assert [word for word in words if word in text] == []


@pytest.mark.parametrize(
    "file",
    [predict_pb2.DESCRIPTOR, explain_pb2.DESCRIPTOR, features_pb2.DESCRIPTOR],
    ids=lambda file: file.name,
)
def test_public_proto_has_names_for_other_languages(file: FileDescriptor) -> None:
    """Its options are set, and no message or enum at its top is called as a class of gRPC."""
    options = file.GetOptions()
    assert (options.go_package, options.java_package, options.csharp_namespace) == (
        "turnout/turnoutv1",
        "turnout.v1",
        "Turnout.V1",
    )
    assert options.java_multiple_files
    assert GRPC_NAMES & {*file.message_types_by_name, *file.enum_types_by_name} == set()
