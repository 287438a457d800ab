"""Makes the environment `.venv-triton`, which has tritonclient.

tritonclient and this repository both define inference.ModelInferRequest. The protobuf pool of a
process accepts one definition only, so programs with tritonclient run in this environment.
"""

from pathlib import Path

from tests.own_environment import environment_python


def triton_python() -> Path:
    """Return the interpreter with tritonclient; the first call makes the environment."""
    return environment_python("triton", ("tritonclient[grpc]==2.73.0",))
