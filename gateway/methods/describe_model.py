"""What a model takes and who answers: DescribeModel, raw bytes in and out behind either door."""

from collections.abc import Awaitable, Callable, Mapping

from gateway.models.routes import Participant, Routes, RouteTable
from gateway.status import Code, Refusal, RefusedError
from gateway.transport.decode import parse_message
from protos.predict_pb2 import DescribeRequest, ModelDescription


class DescribeModelService:
    """DescribeModel."""

    def __init__(self, route_table: RouteTable) -> None:
        self._route_table = route_table

    def methods(self) -> Mapping[str, Callable[[bytes], Awaitable[bytes]]]:
        """Return the method by its path on the wire."""
        return {"/turnout.v1.Predictor/DescribeModel": self.describe}

    async def describe(self, message: bytes) -> bytes:
        """What a caller must send to a model, and who would answer."""
        request = parse_message(DescribeRequest, message)
        routes = self._route_table.get(request.model)
        if routes is None:
            raise RefusedError(Refusal(Code.NOT_FOUND, "that model is not served here"))
        return describe_model(routes).SerializeToString()


def describe_model(routes: Routes) -> ModelDescription:
    """Describe one model at one revision."""
    contract = routes.production.version.bundle.contract
    deployment, shape = routes.deployment, routes.shape
    reply = ModelDescription(
        model=routes.model,
        entities=contract.entities,
        input_contract=bytes.fromhex(contract.input_contract),
        outputs=contract.outputs,
        revision=deployment.revision,
        rows_max=shape.rows_max,
        deadline_ms_default=shape.deadline_ns_default // 1_000_000,
    )
    for item in contract.inputs:
        reply.inputs.add(
            name=item.name, dictionary=item.dictionary, default_value=item.default_value
        )
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
