"""What monitoring said last about a model or one of its versions."""

from protos import registry_pb2


class Findings:
    """The newest finding of each model and version: "hold" holds it, "clear" ends that."""

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str], registry_pb2.Finding] = {}

    def see(self, finding: registry_pb2.Finding) -> None:
        """Take what monitoring wrote; without a version it is about the whole model."""
        self._newest[finding.model, finding.version] = finding

    def hold(self, model: str, version: str) -> str:
        """Return why *version* must be held; empty: nothing."""
        said = [self._newest.get((model, one)) for one in ("", version)]
        return "; ".join(one.text for one in said if one is not None and one.kind == "hold")
