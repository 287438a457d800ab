"""The RPC DescribeModel: what a model's callers must send, and which versions answer."""

from collections.abc import Mapping

from gateway.caller import Caller
from gateway.models.routes import Participant, Routes, RouteTable
from gateway.status import Code, Refusal, RefusedError
from gateway.transport.decode import parse_message
from gateway.transport.server import UnaryMethod
from protos.predict_pb2 import DescribeRequest, ModelDescription


class DescribeModelService:
    """Answers DescribeModel from the route table of this worker."""

    def __init__(self, route_table: RouteTable) -> None:
        self._route_table = route_table

    def methods(self) -> Mapping[str, UnaryMethod]:
        """Return the method by its path on the wire."""
        return {"/turnout.v1.Predictor/DescribeModel": self.describe}

    async def describe(self, message: bytes, caller: Caller) -> bytes:
        """Answer one DescribeRequest; RefusedError NOT_FOUND for a model that is not served."""
        request = parse_message(DescribeRequest, message)
        caller.check_model(request.model)
        routes = self._route_table.get(request.model)
        if routes is None:
            raise RefusedError(Refusal(Code.NOT_FOUND, "that model is not served here"))
        return describe_model(routes).SerializeToString()


def describe_model(routes: Routes) -> ModelDescription:
    """Return a model's inputs, limits and versions with their shares, at the routes' revision."""
    contract = routes.production.version.bundle.contract
    deployment, shape = routes.deployment, routes.shape
    # What a caller must send, and within which limits.
    reply = ModelDescription(
        model=routes.model,
        entities=contract.entities,
        input_contract=bytes.fromhex(contract.input_contract),
        outputs=contract.outputs,
        revision=deployment.revision,
        rows_max=shape.rows_max,
        deadline_ms_default=shape.deadline_ns_default // 1_000_000,
    )
    for model_input in contract.inputs:
        reply.inputs.add(
            name=model_input.name,
            dictionary=model_input.dictionary,
            default_value=model_input.default_value,
        )
    # Which versions answer or score, with their share in basis points.
    shares: list[tuple[Participant | None, str, int]] = [
        (routes.production, "production", 10_000 - deployment.canary_bp - deployment.standby_bp),
        (routes.standby, "standby", deployment.standby_bp),
        (routes.canary, "canary", deployment.canary_bp),
        *((shadow, "shadow", sample_bp) for shadow, sample_bp in routes.shadows),
    ]
    for participant, role, share_bp in shares:
        if participant is not None:
            bundle = participant.version.bundle
            reply.versions.add(
                version=participant.version.label,
                digest=bundle.digest,
                role=role,
                share_bp=share_bp,
                model_contract=bundle.contract.model_contract,
            )
    return reply
