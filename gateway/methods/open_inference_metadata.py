"""The Open Inference Protocol without ModelInfer: liveness, readiness and metadata."""

import json
from collections.abc import Callable, Mapping

from gateway.caller import Caller
from gateway.models.routes import Participant, Routes, RouteTable
from gateway.status import Code, Refusal, RefusedError
from gateway.transport.decode import parse_message
from gateway.transport.open_inference import DATATYPES, SCORES, tensor_widths
from gateway.transport.server import UnaryMethod
from protos.open_inference_pb2 import (
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)

SERVICE = "inference.GRPCInferenceService"
PLATFORM = "turnout_onnx"
"""The protocol's <project>_<format>: an ONNX model with Turnout's features before it."""

UNKNOWN_MODEL = Refusal(Code.NOT_FOUND, "that model is not served here")
UNKNOWN_VERSION = Refusal(
    Code.NOT_FOUND,
    "that version answers no pinned call; ModelMetadata without a version lists those that do",
)


class OpenInferenceService:
    """Answers the five methods that score nothing. A model is ready while it is deployed.

    serving  returns whether this worker takes calls now.
    version  the version of this software.
    """

    def __init__(self, route_table: RouteTable, serving: Callable[[], bool], version: str) -> None:
        self._route_table = route_table
        self._serving = serving
        self._version = version

    def methods(self) -> Mapping[str, UnaryMethod]:
        """Return each method by its path on the wire."""
        return {
            f"/{SERVICE}/ServerLive": self.server_live,
            f"/{SERVICE}/ServerReady": self.server_ready,
            f"/{SERVICE}/ModelReady": self.model_ready,
            f"/{SERVICE}/ServerMetadata": self.server_metadata,
            f"/{SERVICE}/ModelMetadata": self.model_metadata,
        }

    async def server_live(self, message: bytes, caller: Caller) -> bytes:
        """Answer live: a worker that answers is alive."""
        del caller
        parse_message(ServerLiveRequest, message)
        return ServerLiveResponse(live=True).SerializeToString()

    async def server_ready(self, message: bytes, caller: Caller) -> bytes:
        """Answer whether this worker takes calls, as the health service does for ""."""
        del caller
        parse_message(ServerReadyRequest, message)
        return ServerReadyResponse(ready=self._serving()).SerializeToString()

    async def model_ready(self, message: bytes, caller: Caller) -> bytes:
        """Answer whether a model, or one of its versions, is served; an unknown one is not."""
        request = parse_message(ModelReadyRequest, message)
        caller.check_model(request.name)
        routes = self._route_table.get(request.name)
        known = routes is not None and (
            not request.version or _pinned(routes, request.version, caller) is not None
        )
        return ModelReadyResponse(ready=known and self._serving()).SerializeToString()

    async def server_metadata(self, message: bytes, caller: Caller) -> bytes:
        """Answer with name and version of the server; it has no extensions."""
        del caller
        parse_message(ServerMetadataRequest, message)
        return ServerMetadataResponse(name="turnout", version=self._version).SerializeToString()

    async def model_metadata(self, message: bytes, caller: Caller) -> bytes:
        """Answer with a model's tensors; RefusedError NOT_FOUND for what is not deployed."""
        request = parse_message(ModelMetadataRequest, message)
        caller.check_model(request.name)
        routes = self._route_table.get(request.name)
        if routes is None:
            raise RefusedError(UNKNOWN_MODEL)
        if request.version and _pinned(routes, request.version, caller) is None:
            raise RefusedError(UNKNOWN_VERSION)
        return build_metadata(routes).SerializeToString()


def _pinned(routes: Routes, version: str, caller: Caller) -> Participant | None:
    return routes.resolve_pin(version, any_version=caller.may_pin(routes.model))


def build_metadata(routes: Routes) -> ModelMetadataResponse:
    """Return one model's tensors. The properties say as JSON what the columns mean."""
    contract = routes.production.version.bundle.contract
    participants = [routes.production, routes.standby, routes.canary]
    reply = ModelMetadataResponse(
        name=routes.model,
        versions=[p.version.label for p in participants if p is not None],
        platform=PLATFORM,
    )
    for name, width in tensor_widths(routes.shape).items():
        reply.inputs.add(name=name, datatype=DATATYPES[name], shape=[-1, width])
    reply.outputs.add(name=SCORES, datatype="FP32", shape=[-1, routes.shape.outputs])
    reply.properties["keys"] = json.dumps(list(contract.entities))
    reply.properties["inputs"] = json.dumps(list(routes.shape.input_names))
    reply.properties["scores"] = json.dumps(list(contract.outputs))
    reply.properties["input_contract"] = contract.input_contract
    reply.properties["revision"] = str(routes.deployment.revision)
    return reply
