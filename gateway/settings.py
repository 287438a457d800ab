"""The settings of a gateway. A setting's unit is in its name; docs/limits.md has its reason too."""

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from features.online.store_url import StoreUrlError, parse_store_url, url_with_credentials
from gateway.errors import SettingsError
from gateway.ingress_choice import IngressChoice
from host.addresses import is_loopback
from journal.prediction_id import ROWS_MAX
from journal.retention import Bounds
from registry.types import UnknownActorError, read_token


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting with its default. Read once, at start; it never changes after."""

    # Names and addresses
    gateway: str = "gateway-1"
    """This host's name in windows, in the registry and in its token; every host has its own."""
    folder: str = ".turnout/gateway"
    """Folder of the last good deployments, version files and the journal."""
    host: str = "127.0.0.1"
    port: int = 0
    """TCP port for gRPC, the same for all workers; 0: the supervisor picks a free one."""
    metrics_port: int = 0
    """Port of the supervisor's pages, such as /metrics and /healthz; 0: a free one."""
    observe_host: str = "127.0.0.1"
    """Address of those pages. Beyond loopback they need observe_token_file."""
    observe_token_file: str = ""
    """File with the bearer token that those pages need, except /healthz and /readyz; empty: they
    are open."""
    registry: str = ""
    """host:port of the registry; empty: the gateway serves what the folder holds."""
    registry_token_file: str = ""
    """File with the gateway's bearer token (role gateway, actor `gateway`), where registry and
    window sinks have an identities file; empty: no token is sent, and they trust the name."""
    registry_certificate: str = ""
    """PEM file of the certificates, or authorities, of the registry and the window sinks. They must
    prove to have them before anything is sent; empty: plain text, for one machine without
    identities."""
    version_public_key: str = ""
    """The registry's Ed25519 key, 64 hex digits, that must have signed versions and deployments;
    empty: the first key that comes is kept in the folder, and a change is refused."""
    redis_url: str = ""
    """redis:// or unix://; empty: models with stored features answer with defaults."""
    redis_user: str = ""
    """User of the store, where redis_password_file has the password; else redis_url has both."""
    redis_password_file: str = ""
    """File with the password of redis_user; each worker reads it at its start."""
    window_sinks: tuple[str, ...] = ()
    """host:port of each WindowSink, such as rollout and monitoring."""
    ingress: str = "auto"
    """Which server listens: native, grpcio, or auto (native where it is built, else grpcio)."""
    unix_folder: str = ""
    """Folder in which each worker also listens at worker-<slot>.sock; empty: TCP only."""
    tls_certificate: str = ""
    """PEM file of the certificate with its chain; it is reloaded when it changes. Empty: no TLS."""
    tls_key: str = ""
    """PEM file of the certificate's private key."""
    tls_client_authority: str = ""
    """PEM file of the authority that signs client certificates (mTLS); empty: clients need none."""

    callers_file: str = ""
    """TOML file of the callers with their identities, models and quotas. It is read again when it
    changes. Empty: every process that reaches the port may call."""

    # Processes
    workers: int = 2
    """Serving workers, one a core. Each loads every deployed version."""
    heartbeat_ms: int = 100
    """Period of the heartbeats that a worker's event loop sends."""
    heartbeat_timeout_ms: int = 2_000
    """A worker that sent no heartbeat for this long is stopped or hung: it is killed."""
    worker_rss_mb_max: int = 2_048
    """A worker with more resident memory is drained and replaced before the host runs out."""
    restart_backoff_ms_max: int = 5_000
    """Longest pause between starts of a worker that keeps dying; begins at 100 ms and doubles."""
    drain_grace_s: float = 10.0
    """Time that calls in flight get after a drain began; then the worker exits."""
    stop_accept_s: float = 0.0
    """After SIGTERM, time for which new connections are still accepted while health says
    NOT_SERVING and /readyz 503, so that load balancers learn of it. 0 where there is none."""
    stop_handover_s: float = 0.0
    """Time that connected clients may go on calling after SIGTERM, before the grace begins. They
    move to other hosts as their connections reach their age. 0 where there is no other host."""
    connection_age_s_max: float = 30.0
    """Clients are told to reconnect after this, +- 10 %, so that new workers get their share."""

    # Batches
    batch_rows_max: int = 512
    """Rows in one run of a version, or in one pass over many models. 100 trees score 256 rows in
    about .3 ms."""
    batches_in_flight_max: int = 3
    """While one batch waits for Redis, another scores; a third keeps both busy."""
    batch_wait_us: int = 0
    """How long the first row of a batch waits for more rows; 0: it does not wait."""
    batch_gap_us: int = 700
    """Native server, with 16 calls and more inside: the pause after a batch before a next one of
    fewer than 32 rows, or of fewer rows than half of the calls inside. A batch costs some 200 us,
    so at half of saturation small batches alone would fill a core."""
    count_loop_stalls: bool = False
    """Count what holds the event loop for 100 us or longer, by its function. Each callback costs
    .4 us more."""

    # Limits
    rows_inside_max: int = 8_192
    """Rows admitted and not yet answered, 16 full batches; calls beyond it are refused."""
    default_rows_pct: int = 90
    """Share of rows_inside_max for all but CRITICAL calls; the rest is reserved for those."""
    sheddable_rows_pct: int = 50
    """Share of rows_inside_max for SHEDDABLE calls, which are refused first."""
    rows_call_max: int = 1_024
    """Rows in one call; a model's policy may say less."""
    message_bytes_max: int = 4 * 1024 * 1024
    """Bytes of a message; a larger one is RESOURCE_EXHAUSTED. 1,024 rows of 500 inputs are 2 MB."""
    unscored_message_bytes_max: int = 64 * 1024
    """Bytes of a message of a method that scores nothing: reports, descriptions, and at the native
    server health and reflection."""
    message_bytes_inside_max: int = 32 * 1024 * 1024
    """Bytes of compressed messages, of what they inflate to, and of calls that score nothing, in a
    worker at one time. At the native server a client has half of it, and a connection a third."""
    message_bytes_receiving_max: int = 128 * 1024 * 1024
    """Native server: bytes of uncompressed messages that have arrived in part, in a worker at one
    time. A client has half of it."""
    name_bytes_max: int = 128
    """Bytes of a model's or version's name; entity ids and sticky keys have the same bound."""
    request_id_bytes_max: int = 128
    calls_waiting_max: int = 2_048
    """Calls that grpcio has received and the worker has not read: half a second's work. gRPC
    cancels calls beyond it, whatever their criticality; connections_max and streams_max prevent
    that."""
    connections_max: int = 4_096
    """Connections of a worker. An idle connection costs some 20 kB. One more closes a connection of
    the client that has the most; it is closed itself if its own client has as many."""
    client_connections_pct: int = 50
    """Share of connections_max that one client may have; one more is closed at once. A client is an
    IPv4 address, the first 64 bits of an IPv6 address, or a user id at a Unix socket. 100 where a
    proxy stands before the gateway, since it is one client."""
    connection_resets_s_max: int = 1_000
    """Native server: calls that one connection may cancel a second in the long run, and twice as
    many at once; beyond it the connection is closed. A proxy has the calls of many people on one
    connection and may need more."""
    streams_max: int = 32
    """Concurrent calls of a connection; further calls wait in the client. Times the connections, it
    bounds how many calls wait here, and so how long they wait (docs/operating.md)."""
    metadata_bytes_max: int = 8 * 1024
    typed_contents_bytes_max: int = 64 * 1024
    """Bytes of a ModelInfer outside raw_input_contents. 4 MB of typed one-byte numbers would take a
    third of a second to parse."""
    stream_calls_max: int = 64
    """Messages of one PredictStream that are read and not answered; no more is read meanwhile."""
    message_ms_max: int = 1_000
    """A call whose message has not arrived after this is ended, so that it holds no resources."""
    deadline_left_us_min: int = 200
    """A call with less time left is refused before it is scored: no answer takes less."""
    deadline_ms_default: int = 1_000
    """Deadline of a call that sends none, where the model's policy does not give one."""
    deadline_ms_max: int = 60_000
    """A later deadline is shortened to this."""

    # Outcomes
    outcome_keys_max: int = 200_000
    """Newest idempotency keys kept in memory, and records that are read back at start: 50 MB and
    about 1 s."""
    outcome_late_days: int = 90
    """An outcome further behind its prediction is kept and counted as late."""
    outcome_caller_bytes_s: int = 1024 * 1024
    """Journal bytes of one caller's reports a second, in one worker: some 5,000 reports. Callers
    without an identity are one caller."""
    outcome_journal_mb_max: int = 4_096
    """Outcome segments of the host's journal, some 20 million reports. Beyond it reports are
    refused until old segments are archived or deleted (journal_days_max, journal_mb_max)."""

    # Features
    feature_budget_ms: int = 30
    """Time for one batch's read of the online store, up to 512 rows; more rows have more time in
    proportion. A model's policy may say less."""

    # Probes: the first opening of a version, in a child process
    probe_s_max: float = 60.0
    """From the start of a probe to its proof. On a busy host it may wait long for the CPU."""
    probe_cpu_s_max: int = 20
    """CPU time for loading, golden rows and warm-up. A forest of 500 trees takes less than 1 s."""
    probe_memory_mb_max: int = 2_048
    """Address space of a probe, of which interpreter and onnxruntime take some 250 MB."""
    probe_run_ms_max: int = 1_000
    """Fastest run of one row. A version that takes longer would be late on every call."""

    # Candidates
    canary_budget_ms: int = 50
    """Time from the start of scoring that a canary has; then production answers its calls."""
    breaker_faulty_runs: int = 3
    """The breaker of a canary opens after it failed in this many runs ..."""
    breaker_faulty_keys: int = 5
    """... on this many different keys which production scored without a fault."""
    shadow_rows_waiting_max: int = 4_096
    """Copied rows that wait to be scored by shadows; further copies are dropped and counted."""
    shadow_memory_mb_max: int = 2_048
    """Address space of one shadow process; an allocation past it fails there, not in the worker."""
    shadow_run_cpu_ms_max: int = 2_000
    """CPU time of one run of a shadow. After that the shadow counts as hung: its process is killed
    and the version is blamed."""
    shadow_run_timeout_ms: int = 10_000
    """Time of one run of a shadow. After that its process counts as stopped or starved: it is
    killed and the version is not blamed."""

    # After the reply
    windows_waiting_max: int = 3_600
    """Window batches kept for a sink that does not answer, one hour; then the oldest is dropped."""
    journal_bytes_waiting_max: int = 64 * 1024 * 1024
    """Bytes of journal records that wait for the disk."""
    journal_days_max: int = 0
    """Age at which segments of the host's journal are deleted, served calls and outcomes alike;
    0: at no age."""
    journal_mb_max: int = 0
    """Segments of the host's journal, of both kinds. Beyond it the oldest are deleted; 0: none."""

    def __post_init__(self) -> None:
        self._check_rows()
        self._check_bounds()
        self._check_choices()
        self._check_shares()

    def _check_rows(self) -> None:
        self._refuse_if(
            self.rows_inside_max < 2 * self.batch_rows_max,
            f"rows_inside_max={self.rows_inside_max} is less than two batches of batch_rows_max="
            f"{self.batch_rows_max}; a batch could not fill while another one runs",
        )
        self._refuse_if(
            not 0 < self.sheddable_rows_pct <= self.default_rows_pct <= 100,
            f"sheddable_rows_pct={self.sheddable_rows_pct} and default_rows_pct="
            f"{self.default_rows_pct} are not in order within 1..100; SHEDDABLE is refused first",
        )
        self._refuse_if(
            self.rows_call_max > self.rows_inside_max,
            f"rows_call_max={self.rows_call_max} is more than rows_inside_max="
            f"{self.rows_inside_max}; the largest call could never be admitted",
        )
        self._refuse_if(
            self.rows_call_max > ROWS_MAX,
            f"rows_call_max={self.rows_call_max} is more than {ROWS_MAX}, the largest number of "
            "rows that a prediction id can name",
        )

    def _check_bounds(self) -> None:
        # Times: each must leave room for what happens within it.
        self._refuse_if(
            self.heartbeat_timeout_ms < 5 * self.heartbeat_ms,
            f"heartbeat_timeout_ms={self.heartbeat_timeout_ms} is under five heartbeats of "
            f"heartbeat_ms={self.heartbeat_ms}; a busy worker would be killed for a short pause",
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
        # Counts that must not be 0, and the probe's limits.
        self._refuse_if(
            min(self.workers, self.batch_rows_max, self.batches_in_flight_max) < 1,
            f"workers={self.workers}, batch_rows_max={self.batch_rows_max} and "
            f"batches_in_flight_max={self.batches_in_flight_max} are each at least 1",
        )
        self._refuse_if(
            self.probe_run_ms_max >= 1e3 * self.probe_cpu_s_max,
            f"probe_run_ms_max={self.probe_run_ms_max} is not less than probe_cpu_s_max="
            f"{self.probe_cpu_s_max} s; a slow version could not be distinguished from a hung one",
        )
        self._refuse_if(
            min(self.outcome_caller_bytes_s, self.outcome_journal_mb_max) < 1,
            f"outcome_caller_bytes_s={self.outcome_caller_bytes_s} and outcome_journal_mb_max="
            f"{self.outcome_journal_mb_max} are each at least 1; without room no outcome is kept",
        )

        self._refuse_if(
            min(self.journal_days_max, self.journal_mb_max) < 0,
            f"journal_days_max={self.journal_days_max} and journal_mb_max={self.journal_mb_max} "
            "are each at least 0; 0 is no bound",
        )

    def _check_choices(self) -> None:
        # Choices, and files that belong together.
        self._refuse_if(
            self.ingress not in list(IngressChoice),
            f"ingress={self.ingress!r} is not one of {', '.join(IngressChoice)}",
        )
        self._check_peers()

    def _check_peers(self) -> None:
        # What the gateway proves itself with.
        self._refuse_if(
            bool(self.tls_certificate) != bool(self.tls_key)
            or bool(self.tls_client_authority and not self.tls_key),
            "tls_certificate and tls_key are set together; tls_client_authority needs both",
        )
        # Who may see the pages.
        self._refuse_if(
            not is_loopback(f"{self.observe_host}:0") and not self.observe_token_file,
            f"observe_host={self.observe_host!r} is not loopback and observe_token_file is empty; "
            "other hosts could read what is deployed and called. Give the pages a token",
        )
        # What store and registry prove themselves with, and are given.
        self._refuse_if(
            bool(self.redis_user) != bool(self.redis_password_file)
            or bool(self.redis_user and not self.redis_url),
            "redis_user and redis_password_file are set together, and need redis_url",
        )
        try:
            _ = self.store_namespace
        except StoreUrlError as error:
            raise SettingsError(f"redis_url: {error}") from error
        self._refuse_if(
            re.fullmatch(r"([0-9a-f]{64})?", self.version_public_key) is None,
            f"version_public_key={self.version_public_key!r} is not 64 lower-case hex digits; "
            "turnout audit verify shows the registry's key",
        )
        self._refuse_if(
            bool(self.registry_token_file and not self.registry_certificate),
            "registry_token_file is set and registry_certificate is not; the token would go to "
            "whoever listens at the registry's address. Copy keys/control.crt from the registry's "
            "folder and name the copy in registry_certificate",
        )

    def _check_shares(self) -> None:
        """Refuse a share of a client that cannot have what one call needs."""
        self._refuse_if(
            not 0 < self.client_connections_pct <= 100,
            f"client_connections_pct={self.client_connections_pct} is not within 1..100; a client "
            "needs a connection, and cannot have more than all",
        )
        self._refuse_if(
            min(self.message_bytes_inside_max // 7, self.message_bytes_receiving_max // 2)
            < self.message_bytes_max,
            f"message_bytes_inside_max={self.message_bytes_inside_max} is under seven messages of "
            f"message_bytes_max={self.message_bytes_max}, or message_bytes_receiving_max="
            f"{self.message_bytes_receiving_max} under two; the largest call could not be inflated",
        )

    @property
    def client_connections_max(self) -> int:
        """Connections that one client may have, at least one."""
        return max(1, self.connections_max * self.client_connections_pct // 100)

    @property
    def registry_token(self) -> str | None:
        """The token in registry_token_file, or None without one; SettingsError if unreadable."""
        return self._token_in("registry_token_file")

    @property
    def observe_token(self) -> str | None:
        """The token in observe_token_file, or None without one; SettingsError if unreadable."""
        return self._token_in("observe_token_file")

    def _token_in(self, setting: str) -> str | None:
        file = getattr(self, setting)
        if not file:
            return None
        try:
            return read_token(Path(file))
        except UnknownActorError as error:
            raise SettingsError(f"{setting}: {error}") from error

    @property
    def version_key(self) -> bytes | None:
        """The 32 bytes of version_public_key; None when it is empty."""
        return bytes.fromhex(self.version_public_key) or None

    @property
    def journal_bounds(self) -> Bounds:
        """How much of the journal is kept."""
        return Bounds(self.journal_days_max, self.journal_mb_max * 1024 * 1024)

    @property
    def certificate_of_registry(self) -> Path | None:
        """The file registry_certificate; None where the registry is called in plain text.

        SettingsError if there is no such file.
        """
        if not self.registry_certificate:
            return None
        file = Path(self.registry_certificate)
        if not file.is_file():
            raise SettingsError(f"registry_certificate: there is no file {file}")
        return file

    @property
    def store_url(self) -> str:
        """redis_url with user and password in it; SettingsError if the file is unreadable."""
        if not self.redis_password_file:
            return self.redis_url
        try:
            password = Path(self.redis_password_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"redis_password_file: {error}") from error
        return url_with_credentials(self.redis_url, self.redis_user, password)

    @property
    def store_namespace(self) -> str:
        """The namespace of redis_url; empty without one."""
        return parse_store_url(self.redis_url).namespace if self.redis_url else ""

    @staticmethod
    def _refuse_if(contradiction: bool, message: str) -> None:
        if contradiction:
            raise SettingsError(message)

    def to_json(self) -> str:
        """Return the settings as JSON, for a worker that is started by exec."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Settings":
        """Read settings from JSON; SettingsError names an unknown setting or a wrong type."""
        values = json.loads(text)
        defaults = {field.name: field.default for field in fields(Settings)}
        for name, value in values.items():
            if name not in defaults:
                raise SettingsError(f"there is no setting {name!r}; docs/limits.md lists them")
            default = defaults[name]
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
