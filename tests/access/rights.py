"""Every RPC of every service and every page, from the descriptors, and who may call it."""

import importlib
import pkgutil
from collections.abc import Mapping

from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import protos
from access.identities import (
    APPROVER,
    AUTHOR,
    CONTROLLER,
    GATEWAY,
    MONITORING,
    OPERATOR,
    PUSHER,
    ROLES,
)
from access.rules import AccessRule

REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
"""Its descriptor is that of v1alpha with another name."""

CONTROL_SERVICES = (
    "turnout.v1.Registry",
    "turnout.v1.Rollouts",
    "turnout.v1.WindowSink",
    "turnout.v1.CellSink",
    "turnout.v1.Monitoring",
    "turnout.v1.Explainer",
)
"""The services of the control process."""

FEATURES_SERVICE = "turnout.v1.Features"
"""The service of the process that takes pushed rows."""

NOT_EVERY_ROLE = {
    "/turnout.v1.Registry/RegisterVersion": {AUTHOR},
    "/turnout.v1.Registry/SetStatus": {AUTHOR, OPERATOR},
    "/turnout.v1.Registry/Approve": {APPROVER},
    "/turnout.v1.Registry/ApproveSettings": {APPROVER},
    "/turnout.v1.Registry/CloseReview": {APPROVER, OPERATOR},
    "/turnout.v1.Registry/Deploy": {OPERATOR, CONTROLLER},
    "/turnout.v1.Registry/ReportState": {GATEWAY},
    "/turnout.v1.Registry/AcquireLease": {CONTROLLER},
    "/turnout.v1.Registry/SaveCheckpoint": {CONTROLLER},
    "/turnout.v1.Registry/LoadCheckpoint": {CONTROLLER},
    "/turnout.v1.Registry/WriteFinding": {CONTROLLER, OPERATOR, MONITORING},
    "/turnout.v1.Registry/ApplyProject": {AUTHOR, OPERATOR},
    "/turnout.v1.Registry/BeginRun": {AUTHOR},
    "/turnout.v1.Registry/AppendRunLog": {AUTHOR},
    "/turnout.v1.Registry/EndRun": {AUTHOR},
    "/turnout.v1.Registry/QueueRun": {AUTHOR, OPERATOR, CONTROLLER},
    "/turnout.v1.Registry/CancelRun": {AUTHOR, OPERATOR},
    "/turnout.v1.Rollouts/Start": {OPERATOR},
    "/turnout.v1.Rollouts/Abort": {OPERATOR},
    "/turnout.v1.Rollouts/Promote": {OPERATOR},
    "/turnout.v1.Rollouts/Pause": {OPERATOR},
    "/turnout.v1.Rollouts/Resume": {OPERATOR},
    "/turnout.v1.Rollouts/Retry": {OPERATOR},
    "/turnout.v1.Registry/OpenIncident": {AUTHOR, APPROVER, OPERATOR, MONITORING, CONTROLLER},
    "/turnout.v1.Registry/ChangeIncident": {AUTHOR, APPROVER, OPERATOR, MONITORING, CONTROLLER},
    "/turnout.v1.Registry/AddOutsideModel": {AUTHOR, OPERATOR},
    "/turnout.v1.Rollouts/Undo": {OPERATOR},
    "/turnout.v1.Rollouts/SetWeight": {OPERATOR},
    "/turnout.v1.WindowSink/Push": {GATEWAY},
    "/turnout.v1.CellSink/OpenReader": {GATEWAY},
    "/turnout.v1.CellSink/GetVersionBins": {GATEWAY},
    "/turnout.v1.CellSink/PushCells": {GATEWAY},
    "/turnout.v1.Monitoring/Forget": {OPERATOR},
    "/turnout.v1.Monitoring/ImportScores": {OPERATOR},
    "/turnout.v1.Monitoring/ImportOutcomes": {OPERATOR},
    "/turnout.v1.Explainer/Explain": {APPROVER, AUTHOR, OPERATOR},
    "/turnout.v1.Features/Push": {PUSHER},
}
"""What not every reader may call, said a second time beside the rules."""
READERS = ROLES - {PUSHER}
"""A program that pushes rows need not read what the registry has."""


def all_methods() -> dict[str, MethodDescriptor]:
    """Return full method name -> descriptor, of every service in protos/ and of gRPC's own."""
    files: list[FileDescriptor] = [health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR]
    files += [
        importlib.import_module(f"protos.{module.name}").DESCRIPTOR
        for module in pkgutil.iter_modules(protos.__path__)
        if module.name.endswith("_pb2")
    ]
    methods = {
        f"/{service.full_name}/{method.name}": method
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
    }
    v1alpha = next(iter(reflection_pb2.DESCRIPTOR.services_by_name.values())).methods[0]
    return methods | {f"/{REFLECTION_V1}/{v1alpha.name}": v1alpha}


def methods_of(*services: str) -> dict[str, MethodDescriptor]:
    """Return the methods of some services."""
    return {
        name: method for name, method in all_methods().items() if name.split("/")[1] in services
    }


def without_rule(rules: Mapping[str, AccessRule]) -> set[str]:
    """Return the methods that *rules* forget."""
    return set(all_methods()) - set(rules)


def may_call(method: str, role: str) -> bool:
    """Return whether a token with *role* alone may call *method* of a service with roles."""
    return role in NOT_EVERY_ROLE.get(method, READERS)
