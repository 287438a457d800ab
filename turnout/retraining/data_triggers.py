"""Schedules that wait for data: rows of a view that came, and labels that became known.

Only a process that reads the project's data can tell. So the runner looks, and the registry decides
as it does for cron: once for each key.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from time import time_ns

from features.errors import SourceError, ViewError
from features.offline import OfflineStore
from features.storage.ingests import newest_ingest
from project.definitions import ProjectDefinitions
from project.errors import ProjectError
from protos import registry_pb2 as pb
from registry.schedules.schedule import Schedule, ScheduleError, parse_schedule
from training.errors import LabelsError, RecipeError
from training.label_reader import read_labels
from turnout.cli.context import CommandContext
from turnout.errors import OperatorError
from turnout.retraining.scheduler import request_of

log = logging.getLogger(__name__)

UNREADABLE = (LabelsError, OperatorError, ProjectError, RecipeError, SourceError, ViewError)


class DataTriggers:
    """Looks at views and labels of the project in *context*."""

    def __init__(self, context: CommandContext) -> None:
        self._context = context

    def due(
        self, definitions: ProjectDefinitions, applied: Sequence[pb.AppliedSchedule]
    ) -> list[pb.QueueRunRequest]:
        """Return the runs to ask for now. Data that cannot be read is logged and asks for none."""
        requests: list[pb.QueueRunRequest] = []
        for item in applied:
            try:
                schedule = parse_schedule(item.name, json.loads(item.definition_json))
                requests += self._of_schedule(definitions, item, schedule)
            except ScheduleError as error:
                log.warning("schedule %s: %s", item.name, error)
            except UNREADABLE as error:
                log.warning("schedule %s cannot look at its data: %s", item.name, error)
        return requests

    def _of_schedule(
        self, definitions: ProjectDefinitions, item: pb.AppliedSchedule, schedule: Schedule
    ) -> Iterator[pb.QueueRunRequest]:
        # Cron and findings are the scheduler's.
        now_ms = time_ns() // 1_000_000
        if schedule.after_view and (found := self._new_ingest(definitions, item, schedule)):
            number, ingested_ms = found
            yield request_of(
                item,
                schedule,
                trigger=f"ingest-{number}",
                cause=f"schedule {item.name}, ingest {number} of view {schedule.after_view}",
                due_ms=ingested_ms,
            )
        if schedule.new_labels and (count := self._new_labels(definitions, item, schedule)):
            # Of two looks at nearly as many labels, only the first asks.
            step = count // schedule.new_labels
            yield request_of(
                item,
                schedule,
                trigger=f"labels-{step}",
                cause=f"schedule {item.name}, {count:,} labels",
                due_ms=now_ms,
            )

    def _new_ingest(
        self, definitions: ProjectDefinitions, item: pb.AppliedSchedule, schedule: Schedule
    ) -> tuple[int, int] | None:
        """Return (number, Unix ms) of the view's newest ingest, if no run has begun since."""
        store = OfflineStore(self._context.offline_folder())
        newest = newest_ingest(store.folder(definitions.view(schedule.after_view)))
        since_ms = max(item.since_unix_ms, item.last_run.taken_unix_ms)
        return newest if newest is not None and newest[1] > since_ms else None

    def _new_labels(
        self, definitions: ProjectDefinitions, item: pb.AppliedSchedule, schedule: Schedule
    ) -> int:
        """Return how many labels there are, if enough of them are new since the last run; else 0.

        Without a run that trained, all of them are new.
        """
        environment = self._context.required_environment()
        labels = definitions.recipe(schedule.model, schedule.setting).labels
        if labels is None:
            return 0
        connections = environment.connections() if labels.source.kind == "table" else {}
        count = len(read_labels(labels, root=environment.project.root, connections=connections))
        trained_on = json.loads(item.last_run.result_json or b"{}").get("data", {}).get("rows", 0)
        return count if count - int(trained_on) >= schedule.new_labels else 0
