"""Opens the ONNX file of a verified version and scores with it.

No other module of the registry imports ONNX Runtime. The registry's process does not import this
module: a version is opened in a child process first (registry.api.proving).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host.onnx_runtime import onnxruntime
from registry.bundle import Bundle
from registry.golden import ScoreTolerance
from registry.types import ScoringError, VersionRefusedError

_runtime: Any = onnxruntime
"""onnxruntime as Any, because its type hints lack names that the package has."""

GOLDEN_TOLERANCE = ScoreTolerance(absolute=1e-5, relative=0.0)
"""How far a golden row's score may be from the certified one, unless the version states more or
less."""
CONTRACT_PROPERTY = "turnout.contract"
RUNTIMES_REFUSED = {"1.26.0": "it scores forests wrongly (microsoft/onnxruntime#28557)"}
SCORES = "scores"
NOWHERE = "/dev/null/nowhere"
"""Where ONNX Runtime looks for external tensors: a folder below a file, which cannot exist."""


class Session:
    """A version that is loaded in ONNX Runtime: (B, F) float32 in, (B, K) float32 out."""

    def __init__(self, session: Any, width: int, outputs: int, output: str = SCORES) -> None:  # noqa: ANN401  _runtime
        # The package's Python wrapper would repeat checks of `load_session`, for 10 us a run.
        self._run = getattr(session, "_sess", session).run
        self.width = width
        self.outputs = outputs
        self._output = [output]

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score *matrix*, (B, F) float32 in C order, and return (B, K) float32.

        Raises ScoringError for any error of ONNX Runtime. One bad row fails the whole batch.
        """
        try:
            scores: NDArray[np.float32] = self._run(self._output, {"inputs": matrix}, None)[0]
        except Exception as error:
            raise ScoringError(f"ONNX Runtime: {error}") from error
        if scores.shape != (len(matrix), self.outputs):
            raise ScoringError(
                f"{len(matrix)} rows in, scores {scores.shape} out; the contract promises "
                f"({len(matrix)}, {self.outputs})"
            )
        return scores


def refuse_runtime(version: str) -> None:
    """Raise VersionRefusedError for an ONNX Runtime version that scores wrongly."""
    if version in RUNTIMES_REFUSED:
        raise VersionRefusedError(
            f"onnxruntime {version} is installed, and {RUNTIMES_REFUSED[version]}; install another "
            "version"
        )


def load_session(bundle: Bundle, *, threads: int = 1) -> Session:
    """Load the verified bytes of a version into ONNX Runtime.

    threads  threads within one run. The default is 1, because calls are many and rows are few, and
             the spinning thread pools of several sessions would compete for the cores.

    Raises VersionRefusedError when the model does not load, refers to other files, or does not map
    `inputs` float32 (B, F) to `scores` float32 (B, K) under its contract.
    """
    refuse_runtime(onnxruntime.__version__)
    session = open_onnx(bundle.onnx, threads=threads)
    # The model must have been converted for the contract beside it, and have its shapes.
    stated = session.get_modelmeta().custom_metadata_map.get(CONTRACT_PROPERTY, "")
    if stated != bundle.contract.model_contract:
        raise VersionRefusedError(
            f"model.onnx was made for contract {stated[:16] or 'none'!r}; contract.json is "
            f"{bundle.contract.model_contract[:16]!r}"
        )
    width, outputs = bundle.contract.width, len(bundle.contract.outputs)
    _check_tensors("input", session.get_inputs(), "inputs", width)
    _check_tensors("output", session.get_outputs(), "scores", outputs)
    return Session(session, width, outputs)


def open_onnx(onnx: bytes, *, threads: int = 1) -> Any:  # noqa: ANN401  _runtime
    """Return ONNX Runtime's session of a file. Raises VersionRefusedError when it does not load."""
    # Load without spinning, without external files and without a memory arena.
    options = _runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.graph_optimization_level = _runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # A canary that fails must not fill the log. ScoringError has the message.
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # ONNX Runtime would look for external tensors in the working directory.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", NOWHERE
    )
    try:
        return _runtime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise VersionRefusedError(f"model.onnx does not load: {error}") from error


def _check_tensors(kind: str, tensors: Sequence[Any], name: str, width: int) -> None:
    present = [(tensor.name, tensor.type, list(tensor.shape)) for tensor in tensors]
    fits = (
        len(present) == 1 and present[0][:2] == (name, "tensor(float)") and len(present[0][2]) == 2
    )
    # The first dimension is the batch size, which must not be fixed.
    if not fits or isinstance(present[0][2][0], int) or present[0][2][1] != width:
        raise VersionRefusedError(
            f"model.onnx has {kind} {present}; contract.json asks for one {kind} {name!r}, float32 "
            f"[None, {width}]"
        )


def golden_test(bundle: Bundle, session: Session) -> float:
    """Score the golden rows in this process and return the largest difference.

    Raises VersionRefusedError when a score differs by more than the tolerance, or when only one of
    the two scores is NaN or infinite.
    """
    try:
        scores = session.run(bundle.golden_inputs)
    except ScoringError as error:
        raise VersionRefusedError(f"golden.npz cannot be scored: {error}") from error
    differences = score_differences(scores, bundle.golden_outputs)
    tolerance = bundle.tolerance or GOLDEN_TOLERANCE
    allowed = allowed_differences(tolerance, bundle.golden_outputs)
    worst = int(np.argmax(differences - allowed))
    if differences.flat[worst] > allowed.flat[worst]:
        row = worst // session.outputs
        raise VersionRefusedError(
            f"golden row {row} of {len(scores)} scores {scores.flat[worst]} here, and "
            f"{bundle.golden_outputs.flat[worst]} when certified; the difference may be at most "
            f"{allowed.flat[worst]:.3g}. onnxruntime {onnxruntime.__version__} or this file is not "
            "the certified one"
        )
    return float(differences.max())


def score_differences(
    scores: NDArray[np.float32], others: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return |scores - others|: 0 where both are NaN, infinite where only one of them is."""
    with np.errstate(invalid="ignore"):
        differences = np.abs(scores.astype(np.float64) - others)
    # Scores that are equal differ by 0, also if both are infinite: inf - inf is NaN.
    differences[(scores == others) | (np.isnan(scores) & np.isnan(others))] = 0
    return np.nan_to_num(differences, nan=np.inf, posinf=np.inf)


def allowed_differences(
    tolerance: ScoreTolerance, scores: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return how far another score of the same row may be from each of *scores*."""
    sizes = np.abs(np.nan_to_num(scores.astype(np.float64)))
    return tolerance.absolute + tolerance.relative * sizes


def warm_up(bundle: Bundle, session: Session, rows: Sequence[int] = (1, 2, 8, 64, 256)) -> None:
    """Score batches of these sizes once, on golden rows, because the first run is slow."""
    for count in rows:
        session.run(np.resize(bundle.golden_inputs, (count, session.width)))
