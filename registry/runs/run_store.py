"""The training runs of a registry: rows in its database, logs in its folder."""

from collections.abc import Mapping

from features.canonical import canonical_json
from protos import registry_pb2 as pb
from registry.runs import run_queue, run_rows
from registry.runs.run_logs import RunLogs
from registry.storage import controllers, projects
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
        self._since_of: dict[tuple[str, int], Mapping[str, int]] = {}
        """(project, revision) -> schedule -> when it was applied as it is, Unix milliseconds."""

    def begin_run(self, actor: str, request: pb.BeginRunRequest) -> pb.BeginRunReply:
        """Begin a run, unless a run of the model with its key has ended or is under way.

        A queued run whose trainers fell silent too often ends instead. Raises BadRequestError.
        """
        with self._store.change(actor) as change:
            found = run_rows.find_by_key(change.connection, request.model, request.key)
            if found is not None and not self._may_begin(found):
                return pb.BeginRunReply(run=self._with_log(found))
            if found is not None and self._failed_too_often(found):
                error = "its trainer gave no sign of life any more"
                ended = run_queue.end_after_failures(change, found.id, error)
                return pb.BeginRunReply(run=self._with_log(ended))
            run = run_rows.begin_run(change, request, found)
            self._logs.begin(run.id)
        return pb.BeginRunReply(run=self._with_log(run), begun=True)

    def _may_begin(self, run: pb.Run) -> bool:
        return run.state == pb.Run.QUEUED or self.is_silent(run)

    def _failed_too_often(self, run: pb.Run) -> bool:
        """Whether a queued run fell silent in the last attempt that it may have."""
        fell_silent = run.queued_unix_ms and run.state == pb.Run.RUNNING
        return bool(fell_silent) and run.failures + 1 >= run_queue.FAILURES_MAX

    def queue_run(self, actor: str, request: pb.QueueRunRequest) -> pb.BeginRunReply:
        """Write a run that waits for a trainer, unless the model has a run with its key.

        Raises BadRequestError; NotFoundError for a schedule that is not applied now; FencedError
        for a lease that another controller has.
        """
        with self._store.change(actor) as change:
            if request.lease_token:
                controllers.check_lease(change, controllers.ROLLOUT_LEASE, request.lease_token)
            found = run_rows.find_by_key(change.connection, request.model, request.key)
            if found is not None:
                return pb.BeginRunReply(run=self._with_log(found))
            schedule = projects.applied_schedule(change.connection, request.schedule)
            run = run_queue.queue_run(change, request, schedule)
            return pb.BeginRunReply(run=self._with_log(run), begun=True)

    def cancel_run(self, actor: str, request: pb.CancelRunRequest) -> pb.Run:
        """End a run that waits or runs. Raises NotFoundError, and GateError if it has ended."""
        with self._store.change(actor) as change:
            return self._with_log(run_queue.cancel_run(change, request.id, request.reason))

    def list_schedules(self, *, with_runs: bool) -> pb.ListSchedulesReply:
        """Return the schedules of all projects as they are applied now."""
        reply = pb.ListSchedulesReply()
        with self._store.reading() as connection:
            for found in projects.applied_schedules(connection, self._since_of):
                message = reply.schedules.add(
                    project=found.project,
                    name=found.schedule.name,
                    definition_json=canonical_json(found.schedule.definition()).decode(),
                    since_unix_ms=found.since_unix_ms,
                )
                for field, skipped in (("last_run", False), ("last_skipped", True)):
                    named = f"{found.project}/{found.schedule.name}"
                    run = with_runs and run_queue.newest_of_schedule(
                        connection, named, skipped=skipped
                    )
                    if run:
                        getattr(message, field).CopyFrom(run)
        return reply

    def append_log(self, actor: str, part: pb.RunLogPart) -> None:
        """Append to the log of a run that has not ended, and note a sign of life.

        Raises FencedError when the run has ended or another attempt has taken it over.
        """
        with self._store.reading() as connection:
            row = run_rows.get_run_row(connection, part.id)
        run_rows.check_attempt(row, part.attempt, actor)
        if row.state != pb.Run.RUNNING:
            raise FencedError(f"run {row.id} has ended, so its log is closed")
        self._logs.append(row.id, part.text)

    def end_run(self, actor: str, request: pb.EndRunRequest) -> pb.Run:
        """Write the end of a run, or of an attempt of a queued run, and return it.

        Raises what `run_rows.end_run` and `run_queue.return_run` raise.
        """
        with self._store.change(actor) as change:
            if request.state == pb.Run.QUEUED:
                return self._with_log(run_queue.return_run(change, request))
            run, written = run_rows.end_run(change, request)
            if written and run.queued_unix_ms and run.state == pb.Run.FAILED:
                run_queue.write_incident(change, run)
            return self._with_log(run)

    def get_run(self, run_id: str) -> pb.Run:
        """Return a run with its inputs and its result. Raises NotFoundError."""
        with self._store.reading() as connection:
            return self._with_log(run_rows.get_run(connection, run_id))

    def list_runs(self, request: pb.ListRunsRequest) -> pb.ListRunsReply:
        """Return a page of the runs of a model, or of all models, newest first."""
        reply = pb.ListRunsReply()
        with self._store.reading() as connection:
            for place, run in run_rows.list_runs(
                connection, request.model, request.before, open_only=request.open
            ):
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
        if run.state != pb.Run.RUNNING:
            return False
        heard_ms = self._logs.heard_ms(run.id) or run.taken_unix_ms or run.begun_unix_ms
        return self._store.now_ms() - heard_ms > RUN_SILENT_MS

    def _with_log(self, run: pb.Run) -> pb.Run:
        run.log_bytes = self._logs.size(run.id)
        if run.state == pb.Run.RUNNING:
            run.heard_unix_ms = max(self._logs.heard_ms(run.id), run.taken_unix_ms)
        run.silent = self.is_silent(run)
        return run
