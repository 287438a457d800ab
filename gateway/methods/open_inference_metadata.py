"""The Open Inference Protocol besides ModelInfer: is it alive, is it ready, what does it take."""

import json
from collections.abc import Awaitable, Callable, Mapping

from gateway.models.routes import Routes, RouteTable
from gateway.status import Code, Refusal, RefusedError
from gateway.transport.decode import parse_message
from gateway.transport.open_inference import DATATYPES, SCORES, tensor_widths
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
"""<project>_<format>, as the protocol has it: an ONNX graph behind our features."""

UNKNOWN_MODEL = Refusal(Code.NOT_FOUND, "that model is not served here")
UNKNOWN_VERSION = Refusal(
    Code.NOT_FOUND,
    "that version is not in the model's deployment; ModelMetadata without one lists those that are",
)


class OpenInferenceService:
    """The five methods that score nothing; a model is ready while it is deployed.

    serving  whether this worker takes calls now.
    version  of this software.
    """

    def __init__(self, route_table: RouteTable, serving: Callable[[], bool], version: str) -> None:
        self._route_table = route_table
        self._serving = serving
        self._version = version

    def methods(self) -> Mapping[str, Callable[[bytes], Awaitable[bytes]]]:
        """Return each method by its path on the wire."""
        return {
            f"/{SERVICE}/ServerLive": self.server_live,
            f"/{SERVICE}/ServerReady": self.server_ready,
            f"/{SERVICE}/ModelReady": self.model_ready,
            f"/{SERVICE}/ServerMetadata": self.server_metadata,
            f"/{SERVICE}/ModelMetadata": self.model_metadata,
        }

    async def server_live(self, message: bytes) -> bytes:
        """Who answers is alive."""
        parse_message(ServerLiveRequest, message)
        return ServerLiveResponse(live=True).SerializeToString()

    async def server_ready(self, message: bytes) -> bytes:
        """Whether calls are taken; as health says for ""."""
        parse_message(ServerReadyRequest, message)
        return ServerReadyResponse(ready=self._serving()).SerializeToString()

    async def model_ready(self, message: bytes) -> bytes:
        """Whether a model, or one version of it, answers; an unknown one is not ready."""
        request = parse_message(ModelReadyRequest, message)
        routes = self._route_table.get(request.name)
        known = routes is not None and (
            not request.version or bool(routes.resolve_pin(request.version))
        )
        return ModelReadyResponse(ready=known and self._serving()).SerializeToString()

    async def server_metadata(self, message: bytes) -> bytes:
        """Name, version; no extensions."""
        parse_message(ServerMetadataRequest, message)
        return ServerMetadataResponse(name="turnout", version=self._version).SerializeToString()

    async def model_metadata(self, message: bytes) -> bytes:
        """What ModelInfer takes and gives; RefusedError NOT_FOUND for what is not deployed."""
        request = parse_message(ModelMetadataRequest, message)
        routes = self._route_table.get(request.name)
        if routes is None:
            raise RefusedError(UNKNOWN_MODEL)
        if request.version and routes.resolve_pin(request.version) is None:
            raise RefusedError(UNKNOWN_VERSION)
        return build_metadata(routes).SerializeToString()


def build_metadata(routes: Routes) -> ModelMetadataResponse:
    """Describe one model's tensors; what their columns mean stands in the properties, as JSON."""
    contract = routes.production.version.bundle.contract
    participants = [routes.production, routes.standby, routes.canary]
    participants += [shadow for shadow, _ in routes.shadows]
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
