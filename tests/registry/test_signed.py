"""A signed deployment is opened only as the registry signed it."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protos.registry_pb2 import SignedDeployment as SignedMessage
from registry.signed import DEPLOYMENT_DOMAIN, open_deployment, read_deployment, sign_deployment
from registry.types import Deployment, DeploymentError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRUSTED = KEY.public_key().public_bytes_raw()
DEPLOYMENT = Deployment(
    model="churn", revision=7, production="1", digests=(("1", "ab" * 32),), why="the first"
)


def test_signed_deployment_is_opened_as_it_was_signed() -> None:
    """The bytes travel as they are, also through a message."""
    message = sign_deployment(DEPLOYMENT, KEY).message
    received = SignedMessage.FromString(message.SerializeToString())
    opened = open_deployment(received, TRUSTED)
    assert (opened.deployment, opened.message) == (DEPLOYMENT, message)
    assert read_deployment(received) == DEPLOYMENT


def test_altered_deployment_is_refused() -> None:
    """Every flipped bit, another deployment under the signature, and another key."""
    message = sign_deployment(DEPLOYMENT, KEY).message
    for position in range(len(message.content)):
        content = bytearray(message.content)
        content[position] ^= 1
        with pytest.raises(DeploymentError, match="not signed"):
            open_deployment(
                SignedMessage(content=bytes(content), signature=message.signature), TRUSTED
            )
    later = sign_deployment(replace(DEPLOYMENT, revision=8), KEY).message
    with pytest.raises(DeploymentError, match="not signed"):
        open_deployment(SignedMessage(content=later.content, signature=message.signature), TRUSTED)
    stranger = Ed25519PrivateKey.generate()
    with pytest.raises(DeploymentError, match="not signed"):
        open_deployment(sign_deployment(DEPLOYMENT, stranger).message, TRUSTED)
    with pytest.raises(DeploymentError, match="not signed"):
        open_deployment(SignedMessage(content=message.content), TRUSTED)


def test_signature_of_another_kind_is_refused() -> None:
    """The registry's key signs other things too; none of them passes for a deployment."""
    content = sign_deployment(DEPLOYMENT, KEY).message.content
    for signed_bytes in (content, DEPLOYMENT_DOMAIN[:-1] + content):
        message = SignedMessage(content=content, signature=KEY.sign(signed_bytes))
        with pytest.raises(DeploymentError, match="not signed"):
            open_deployment(message, TRUSTED)


def test_signed_bytes_that_are_no_deployment_are_refused() -> None:
    """The message says so, instead of a DecodeError."""
    content = b"\xff\xff"
    message = SignedMessage(content=content, signature=KEY.sign(DEPLOYMENT_DOMAIN + content))
    with pytest.raises(DeploymentError, match="no deployment"):
        open_deployment(message, TRUSTED)
