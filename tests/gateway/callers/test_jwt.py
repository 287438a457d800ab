"""JWTs of an issuer, on either server: signature, algorithm, audience, expiry and keys."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey

from gateway.settings import Settings
from protos.predict_pb2 import StreamReply
from tests.gateway.callers.test_callers import (
    CALL,
    DEPLOYMENT,
    PREFIX,
    bearer,
    caller_table,
    callers_file,
    predict_status,
)
from tests.gateway.gateway_fixture import gateway_fixture
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.walk

ISSUER, AUDIENCE, SUBJECT = "https://login.example", "turnout", "service-crm"
TABLES = (
    f'[[issuers]]\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\nalgorithm = "ES256"\n'
    'keys = "jwks.json"\n',
    f'[[callers]]\nname = "crm"\nissuer = "{ISSUER}"\nsubject = "{SUBJECT}"\n',
    caller_table("nba"),
)


def write_keys(folder: Path, key: ECKey) -> None:
    """Write the issuer's JWKS."""
    path = folder / "jwks.new"
    path.write_text(json.dumps(KeySet([key]).as_dict(private=False)))
    path.rename(folder / "jwks.json")


def token(key: Any, algorithm: str = "ES256", **claims: object) -> str:  # noqa: ANN401  any JWK
    """Return a token that is valid for a minute, with other *claims*; None leaves one out."""
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "exp": int(time.time()) + 60}
    given = {name: value for name, value in (usual | claims).items() if value is not None}
    header = {"alg": algorithm, "kid": key.kid} if key.kid else {"alg": algorithm}
    return jwt.encode(header, given, key, algorithms=[algorithm])


def jwt_settings(folder: Path, key: ECKey) -> Settings:
    """Write callers file and keys; return the settings."""
    write_keys(folder, key)
    return callers_file(folder, *TABLES)


def test_jwt_of_the_issuer_identifies_its_caller_and_others_do_not(tmp_path: Path) -> None:
    """Each claim and the signature is checked; so is a token that expires between two calls."""
    key, stranger = ECKey.generate_key("P-256", auto_kid=True), ECKey.generate_key("P-256")
    public = json.dumps(key.as_dict(private=False)).encode()
    now_s = int(time.time())
    wrong = {
        "expired": token(key, exp=now_s - 1),
        "without expiry": token(key, exp=None),
        "another audience": token(key, aud="other"),
        "without audience": token(key, aud=None),
        "another issuer": token(key, iss="https://evil.example"),
        "another subject": token(key, sub="service-ghost"),
        "not yet valid": token(key, nbf=now_s + 60),
        "another key": token(stranger),
        "the public key as a secret": token(OctKey.import_key(public), "HS256"),
        "no signature": token(key).rpartition(".")[0] + ".",
        "no JSON": "a.b.c",
    }

    async def walk() -> None:
        settings = jwt_settings(tmp_path, key)
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT, settings=settings) as gateway:
            good = bearer(token(key, aud=["more", AUDIENCE]))
            for _ in range(2):
                assert (await predict_status(gateway.channel, good))[0] == grpc.StatusCode.OK
            for name, text in wrong.items():
                code, _ = await predict_status(gateway.channel, bearer(text))
                assert code == grpc.StatusCode.UNAUTHENTICATED, name
            # A fixed token beside the issuers still works.
            assert (await predict_status(gateway.channel, bearer("nba")))[0] == grpc.StatusCode.OK
            # A token that was believed expires.
            short = bearer(token(key, exp=int(time.time()) + 2))
            assert (await predict_status(gateway.channel, short))[0] == grpc.StatusCode.OK
            async with asyncio.timeout(10.0):
                while not (await predict_status(gateway.channel, short))[0].value[0]:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)

    asyncio.run(walk())


def test_first_calls_with_one_new_jwt_are_all_answered(tmp_path: Path) -> None:
    """Unary calls and a stream come together, before the token was ever verified."""
    key = ECKey.generate_key("P-256", auto_kid=True)

    async def walk() -> None:
        settings = jwt_settings(tmp_path, key)
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT, settings=settings) as gateway:
            good = bearer(token(key))
            stream = gateway.channel.stream_stream(PREFIX + "PredictStream")(metadata=good)
            for _ in range(3):
                await stream.write(CALL.SerializeToString())
            await stream.done_writing()
            codes = await asyncio.gather(*(predict_status(gateway.channel, good) for _ in range(9)))
            assert {code for code, _ in codes} == {grpc.StatusCode.OK}
            replies = [StreamReply.FromString(raw).reply.version async for raw in stream]
            assert replies == ["1"] * 3

    asyncio.run(walk())


def test_keys_are_read_again_and_the_last_good_ones_kept(tmp_path: Path) -> None:
    """A file that is half written changes nothing; new keys end the old key's tokens."""
    old, new = (
        ECKey.generate_key("P-256", auto_kid=True),
        ECKey.generate_key("P-256", auto_kid=True),
    )

    async def walk() -> None:
        settings = jwt_settings(tmp_path, old)
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT, settings=settings) as gateway:
            before = bearer(token(old))
            assert (await predict_status(gateway.channel, before))[0] == grpc.StatusCode.OK
            (tmp_path / "jwks.json").write_text('{"keys": [')
            other = bearer(token(old, jti="again"))
            assert (await predict_status(gateway.channel, other))[0] == grpc.StatusCode.OK
            write_keys(tmp_path, new)
            async with asyncio.timeout(10.0):
                while not (await predict_status(gateway.channel, before))[0].value[0]:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            after = await predict_status(gateway.channel, bearer(token(new)))
            assert after[0] == grpc.StatusCode.OK

    asyncio.run(walk())
