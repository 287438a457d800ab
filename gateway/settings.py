"""Every number an operator may set: its unit in the name, its reason beside it (docs/limits.md)."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from gateway.errors import SettingsError
from gateway.ingress_choice import IngressChoice
from registry.types import UnknownActorError, read_token


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Read once, at start; passed on as plain arguments, never looked up later."""

    # Who and where
    gateway: str = "gateway-1"
    """This host's name in windows and states; one a host."""
    folder: str = ".turnout/gateway"
    """Last good deployments, version files and the journal live here."""
    host: str = "127.0.0.1"
    port: int = 0
    """gRPC; 0: the supervisor picks a free one, the same for all workers."""
    metrics_port: int = 0
    """HTTP for /metrics, /healthz, /workers, by the supervisor, on loopback; 0: a free one."""
    registry: str = ""
    """host:port; empty: serve what the folder holds."""
    registry_token_file: str = ""
    """Holds the gateway's bearer token, where the registry has an identities file (role gateway);
    empty: none is sent, and the name is taken on trust."""
    redis_url: str = ""
    """redis:// or unix://; empty: models with stored features answer with defaults."""
    window_sinks: tuple[str, ...] = ()
    """host:port of each WindowSink: rollout, monitoring."""
    ingress: str = "auto"
    """auto, native or grpcio; auto: native where it is built, else grpcio."""
    unix_folder: str = ""
    """Each worker also listens at worker-<slot>.sock in it; empty: nowhere."""
    tls_certificate: str = ""
    """PEM, with those that lead to the authority; read anew when it changes. Empty: no TLS."""
    tls_key: str = ""
    """Its private key."""
    tls_client_authority: str = ""
    """Whose certificates clients must show (mTLS); empty: clients need none."""

    # Processes
    workers: int = 2
    """One a core. Each loads every deployed version."""
    heartbeat_ms: int = 100
    """A worker's event loop says so this often that it turns."""
    heartbeat_timeout_ms: int = 2_000
    """No heartbeat for this long: the worker is stopped or hung, and killed."""
    worker_rss_mb_max: int = 2_048
    """Memory mark: a worker above it is drained and replaced before the host runs out."""
    restart_backoff_ms_max: int = 5_000
    """Between starts of a worker that keeps dying; begins at 100 ms and doubles."""
    drain_grace_s: float = 10.0
    """In-flight calls may take this long after a drain began; then the worker exits."""
    stop_handover_s: float = 0.0
    """On SIGTERM, before the grace: how long clients that are connected may go on calling, so that
    they move to other hosts as their connections come of age. 0 where there is no other host."""
    connection_age_s_max: float = 30.0
    """Clients are asked to reconnect after this, +- 10 %, so that new workers get their share."""

    # Batches
    batch_rows_max: int = 512
    """Rows in one ONNX run. 100 trees score 256 rows in about .3 ms here."""
    batches_in_flight_max: int = 3
    """One waits for Redis while another scores; a third keeps both busy."""
    batch_wait_us: int = 0
    """How long the first row waits for company. 0: greedy, no added delay."""
    batch_gap_us: int = 700
    """Native door: with 16 calls and more inside, between a batch and a next one of fewer than 32
    rows, or than half of who is inside: a batch costs some 200 us, so at half of saturation small
    ones alone fill a core."""

    # Limits
    rows_inside_max: int = 8_192
    """Rows admitted and not yet answered: 32 full batches. Past that, refuse."""
    default_rows_pct: int = 90
    """Of rows_inside_max, for all but CRITICAL calls: the rest is kept for those."""
    sheddable_rows_pct: int = 50
    """Of rows_inside_max, for SHEDDABLE calls: the first to be refused."""
    rows_call_max: int = 1_024
    """Rows in one call, where the model's policy does not say less."""
    message_bytes_max: int = 4 * 1024 * 1024
    """A larger request is RESOURCE_EXHAUSTED. 1,024 rows of 500 inputs are 2 MB."""
    name_bytes_max: int = 128
    """Model and version names; entity ids and sticky keys have the same bound."""
    request_id_bytes_max: int = 128
    calls_waiting_max: int = 2_048
    """Calls that a worker has been sent and has not looked at: half a second's work. One more is
    CANCELLED by grpc, whatever its criticality; connections and streams_max keep it from that."""
    connections_max: int = 4_096
    """Connections a worker holds; one more is closed at once. Each idle one costs some 20 kB."""
    streams_max: int = 32
    """Concurrent calls a connection; more wait in their client. With connections, it bounds how
    many calls wait here, and so for how long (docs/operating.md)."""
    metadata_bytes_max: int = 8 * 1024
    typed_contents_bytes_max: int = 64 * 1024
    """Of a ModelInfer outside raw_input_contents: more typed numbers cost a third of a second."""
    stream_calls_max: int = 64
    """Messages of one PredictStream read and not yet answered; then it is read no further."""
    message_ms_max: int = 1_000
    """A call whose message has not arrived by then is ended: half-open streams hold nothing."""
    deadline_left_us_min: int = 200
    """No answer has taken less; a call with less time left is refused before it costs anything."""
    deadline_ms_default: int = 1_000
    """For calls that name none, where the model's policy does not say."""
    deadline_ms_max: int = 60_000
    """A later deadline is read as this one."""

    # Outcomes
    outcome_keys_max: int = 200_000
    """Newest idempotency keys remembered, and records read back at start: 30 MB, about .5 s."""
    outcome_late_days: int = 90
    """An outcome further behind its prediction is kept, and counted as late."""

    # Features
    feature_budget_ms: int = 30
    """For one batch's online read, where the model's policy does not say less."""

    # First opening of a version, in a child
    probe_s_max: float = 60.0
    """From start to proof; on a busy host a child of this may wait long for its turn."""
    probe_cpu_s_max: int = 20
    """CPU time for loading, golden rows and warming: a forest of 500 trees takes under one."""
    probe_memory_mb_max: int = 2_048
    """Address space, of which interpreter and onnxruntime take some 250 MB."""
    probe_run_ms_max: int = 1_000
    """One row, at best: what takes longer would only ever be late."""

    # Candidates
    canary_budget_ms: int = 50
    """How much later than production a canary may be; then production's answer goes out."""
    breaker_faulty_runs: int = 3
    """A canary that failed in this many runs ..."""
    breaker_faulty_keys: int = 5
    """... on this many different keys, while production was fine on them, is not run again here."""
    shadow_rows_waiting_max: int = 4_096
    """Copies waiting to be scored by shadows; past that they are dropped and counted."""
    shadow_memory_mb_max: int = 2_048
    """Address space of one shadow's process; past it a run raises, there and not here."""
    shadow_run_cpu_ms_max: int = 2_000
    """CPU time in one run; then the shadow hangs: its process is ended, and it is blamed."""
    shadow_run_timeout_ms: int = 10_000
    """A run not back after this: the process is stopped or starved; ended, and nobody is blamed."""

    # Aside
    windows_waiting_max: int = 3_600
    """Window batches kept for a sink that does not answer: one hour; then the oldest go."""
    journal_bytes_waiting_max: int = 64 * 1024 * 1024
    """Served vectors waiting for the disk."""

    def __post_init__(self) -> None:
        self._refuse_if(
            self.rows_inside_max < 2 * self.batch_rows_max,
            f"rows_inside_max={self.rows_inside_max} holds less than two batches of "
            f"batch_rows_max={self.batch_rows_max}; one could not fill while another runs",
        )
        self._refuse_if(
            not 0 < self.sheddable_rows_pct <= self.default_rows_pct <= 100,
            f"sheddable_rows_pct={self.sheddable_rows_pct} and default_rows_pct="
            f"{self.default_rows_pct} are not in order within 1..100; SHEDDABLE goes first",
        )
        self._refuse_if(
            self.rows_call_max > self.rows_inside_max,
            f"rows_call_max={self.rows_call_max} is more than rows_inside_max="
            f"{self.rows_inside_max}; the largest call could never be admitted",
        )
        self._refuse_if(
            self.heartbeat_timeout_ms < 5 * self.heartbeat_ms,
            f"heartbeat_timeout_ms={self.heartbeat_timeout_ms} is under five heartbeats of "
            f"heartbeat_ms={self.heartbeat_ms}; a busy worker would be killed for a hiccup",
        )
        self._refuse_if(
            self.deadline_ms_default > self.deadline_ms_max,
            f"deadline_ms_default={self.deadline_ms_default} is later than deadline_ms_max="
            f"{self.deadline_ms_max}",
        )
        self._refuse_if(
            self.feature_budget_ms >= self.deadline_ms_default,
            f"feature_budget_ms={self.feature_budget_ms} leaves nothing of deadline_ms_default="
            f"{self.deadline_ms_default} for scoring",
        )
        self._refuse_if(
            min(self.workers, self.batch_rows_max, self.batches_in_flight_max) < 1,
            f"workers={self.workers}, batch_rows_max={self.batch_rows_max} and "
            f"batches_in_flight_max={self.batches_in_flight_max} are each at least 1",
        )
        self._refuse_if(
            self.probe_run_ms_max >= 1e3 * self.probe_cpu_s_max,
            f"probe_run_ms_max={self.probe_run_ms_max} is not less than probe_cpu_s_max="
            f"{self.probe_cpu_s_max} s; a slow version would be taken for one that hangs",
        )
        self._refuse_if(
            self.ingress not in list(IngressChoice),
            f"ingress={self.ingress!r} is not one of {', '.join(IngressChoice)}",
        )
        self._refuse_if(
            bool(self.tls_certificate) != bool(self.tls_key)
            or bool(self.tls_client_authority and not self.tls_key),
            "tls_certificate and tls_key are set together; tls_client_authority needs both",
        )

    @property
    def registry_token(self) -> str | None:
        """The token in registry_token_file; SettingsError when it cannot be read."""
        if not self.registry_token_file:
            return None
        try:
            return read_token(Path(self.registry_token_file))
        except UnknownActorError as error:
            raise SettingsError(f"registry_token_file: {error}") from error

    @staticmethod
    def _refuse_if(contradiction: bool, text: str) -> None:
        if contradiction:
            raise SettingsError(text)

    def to_json(self) -> str:
        """Return the settings as JSON, for a worker started by exec."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Settings":
        """Read settings; an unknown name or a wrong type stops the start, in words."""
        values = json.loads(text)
        known = {item.name: item for item in fields(Settings)}
        for name, value in values.items():
            if name not in known:
                raise SettingsError(f"there is no setting {name!r}; docs/limits.md lists them")
            default = known[name].default
            if isinstance(default, tuple):
                values[name] = tuple(value)
            elif isinstance(default, float) and isinstance(value, int):
                values[name] = float(value)
            elif type(value) is not type(default):
                raise SettingsError(
                    f"setting {name!r} is {value!r}; it is a {type(default).__name__}, "
                    f"like its default {default!r}"
                )
        return Settings(**values)

    @staticmethod
    def read(path: Path) -> "Settings":
        """Read a JSON settings file."""
        return Settings.from_json(path.read_text(encoding="utf-8"))
