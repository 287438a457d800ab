"""The training runs of a registry: rows in its database, logs in its folder."""

from protos import registry_pb2 as pb
from registry.runs import run_rows
from registry.runs.run_logs import RunLogs
from registry.storage.store import RegistryStore
from registry.types import FencedError

RUN_SILENT_MS = 120_000
"""A run that has given no sign of life for this long may be begun again with its key. A trainer
gives one every 15 s, so that a registry that restarts does not make it silent."""
RUNS_PER_PAGE = 200
LOG_READ_BYTES = 2**16


class RunStore:
    """Begins, ends, lists and reads runs. Every method is one transaction, from any thread."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store
        self._logs = RunLogs(store.folder / "runs", store.now_ms)

    def begin_run(self, actor: str, request: pb.BeginRunRequest) -> pb.BeginRunReply:
        """Begin a run, unless a run of the model with its key has ended or is under way.

        Raises BadRequestError.
        """
        with self._store.change(actor) as change:
            found = run_rows.find_by_key(change.connection, request.model, request.key)
            if found is not None and (found.ended_unix_ms or not self.is_silent(found)):
                return pb.BeginRunReply(run=self._with_log(found))
            run = run_rows.begin_run(change, request, found)
            self._logs.begin(run.id)
        return pb.BeginRunReply(run=self._with_log(run), begun=True)

    def append_log(self, actor: str, part: pb.RunLogPart) -> None:
        """Append to the log of a run that has not ended, and note a sign of life.

        Raises FencedError when the run has ended or another attempt has taken it over.
        """
        with self._store.reading() as connection:
            row = run_rows.get_run_row(connection, part.id)
        run_rows.check_attempt(row, part.attempt, actor)
        if row.ended_unix_ms:
            raise FencedError(f"run {row.id} has ended, so its log is closed")
        self._logs.append(row.id, part.text)

    def end_run(self, actor: str, request: pb.EndRunRequest) -> pb.Run:
        """Write the end of a run, and return it. Raises what `run_rows.end_run` raises."""
        with self._store.change(actor) as change:
            return self._with_log(run_rows.end_run(change, request))

    def get_run(self, run_id: str) -> pb.Run:
        """Return a run with its inputs and its result. Raises NotFoundError."""
        with self._store.reading() as connection:
            return self._with_log(run_rows.get_run(connection, run_id))

    def list_runs(self, request: pb.ListRunsRequest) -> pb.ListRunsReply:
        """Return a page of the runs of a model, or of all models, newest first."""
        reply = pb.ListRunsReply()
        with self._store.reading() as connection:
            for place, run in run_rows.list_runs(connection, request.model, request.before):
                if len(reply.runs) == RUNS_PER_PAGE:
                    reply.more = True
                    break
                reply.runs.append(self._with_log(run))
                reply.next = place
        return reply

    def read_log(self, run_id: str, start: int) -> bytes:
        """Return the next bytes of a run's log, at most 64 KiB; empty at its end."""
        return self._logs.read(run_id, start, LOG_READ_BYTES)

    def is_silent(self, run: pb.Run) -> bool:
        """Return True if a run that has not ended has given no sign of life for RUN_SILENT_MS."""
        heard_ms = self._logs.heard_ms(run.id) or run.begun_unix_ms
        return not run.ended_unix_ms and self._store.now_ms() - heard_ms > RUN_SILENT_MS

    def _with_log(self, run: pb.Run) -> pb.Run:
        run.log_bytes = self._logs.size(run.id)
        if not run.ended_unix_ms:
            run.heard_unix_ms = max(self._logs.heard_ms(run.id), run.begun_unix_ms)
        run.silent = self.is_silent(run)
        return run
