"""F1, F2: without a token, nothing of a system with identities can be changed."""

import grpc
import pytest

from protos import registry_pb2, registry_pb2_grpc
from tests.walks.identified_system import MODEL, IdentifiedSystem

pytestmark = pytest.mark.walk


@pytest.mark.attack("F1")
def test_deployment_is_not_written_without_a_token(attacked_system: IdentifiedSystem) -> None:
    """A stranger writes a deployment."""
    with attacked_system.system.registry_channel() as channel:
        registry = registry_pb2_grpc.RegistryStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.RpcError) as refused:
            registry.GetDeployment(registry_pb2.ModelName(model=MODEL), timeout=5)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
