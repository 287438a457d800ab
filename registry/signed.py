"""Deployments that the registry has signed, so that a gateway needs to trust neither wire nor disk.

The signature covers the bytes of the message as they travel. They are kept and passed on as they
are, because the same deployment may have other bytes when it is serialised anew.
"""

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from google.protobuf.message import DecodeError

from protos import registry_pb2 as pb
from registry.types import Deployment, DeploymentError

DEPLOYMENT_DOMAIN = b"turnout deployment v1\x00"
"""Stands before the signed bytes. The same key also signs manifests and the history's head, and no
signature of one kind may pass for another kind."""


@dataclass(frozen=True, slots=True)
class SignedDeployment:
    """A deployment, and the signed message that it was read from."""

    deployment: Deployment
    message: pb.SignedDeployment


def sign_deployment(deployment: Deployment, key: Ed25519PrivateKey) -> SignedDeployment:
    """Return *deployment* signed by the registry's *key*."""
    content = deployment.to_proto().SerializeToString(deterministic=True)
    signature = key.sign(DEPLOYMENT_DOMAIN + content)
    return SignedDeployment(deployment, pb.SignedDeployment(content=content, signature=signature))


def open_deployment(message: pb.SignedDeployment, trusted_key: bytes) -> SignedDeployment:
    """Return the deployment in *message* if the owner of *trusted_key* has signed it.

    trusted_key  the registry's Ed25519 public key, 32 bytes.

    Raises DeploymentError for any other signature, and for a deployment that contradicts itself.
    """
    try:
        public_key = Ed25519PublicKey.from_public_bytes(trusted_key)
        public_key.verify(message.signature, DEPLOYMENT_DOMAIN + message.content)
    except (InvalidSignature, ValueError) as error:
        raise DeploymentError(
            "a deployment is not signed by the registry whose key this gateway knows "
            f"({trusted_key.hex()[:16]})"
        ) from error
    return SignedDeployment(read_deployment(message), message)


def read_deployment(message: pb.SignedDeployment) -> Deployment:
    """Return the deployment in *message* without a check of its signature.

    This is for readers who have it from the registry itself. Raises DeploymentError when it
    contradicts itself.
    """
    try:
        return Deployment.from_proto(pb.Deployment.FromString(message.content))
    except DecodeError as error:
        raise DeploymentError("the content of a signed deployment is no deployment") from error
