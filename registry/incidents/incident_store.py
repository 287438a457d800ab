"""The incidents of a registry, and the models that run elsewhere: one method a transaction."""

import secrets
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, insert, select

from access.bounds import first_page
from protos import registry_pb2 as pb
from registry.incidents import incident_rows, policy_acts
from registry.storage import controllers, projects, tables
from registry.storage.ledger import LedgerChange
from registry.storage.store import RegistryStore
from registry.types import MODEL_NAME, BadRequestError, GateError, NotFoundError
from registry.watching.incidents import (
    NOTED_AS,
    Change,
    canonical_figures,
    changed_columns,
    check_opening,
    raised_columns,
)

INCIDENTS_PER_PAGE = 200


class IncidentStore:
    """Opens, changes, lists and reads incidents. Methods may be called from any thread."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store

    def open_incident(self, actor: str, request: pb.OpenIncidentRequest) -> pb.OpenIncidentReply:
        """Open an incident, unless one of the model with its cause is open.

        That one gets a higher severity if this request has one. Raises BadRequestError, and
        NotFoundError for a model that neither this registry nor another system has.
        """
        check_opening(request)
        figures = canonical_figures(request.figures_json)
        with self._store.change(actor) as change:
            _check_known_model(change.connection, request.model)
            # The same alarm again is the same incident.
            found = incident_rows.find_open(change.connection, request.model, request.cause)
            if found is not None:
                if request.severity > found.severity:
                    columns = raised_columns(found, request.severity, figures, request.title)
                    columns["revision"] = found.revision + 1
                    incident_rows.write_columns(change, found, columns, request.title)
                    found = incident_rows.get_incident(change.connection, found.id)
                return pb.OpenIncidentReply(incident=found)
            # A new one, with what the policy says.
            incident = self._insert(change, request, figures)
            for link in request.links:
                incident_rows.add_note(change, incident, link.kind, link.text)
            opened = incident_rows.get_incident(change.connection, incident.id)
            return pb.OpenIncidentReply(incident=opened, opened=True)

    def _insert(
        self, change: LedgerChange, request: pb.OpenIncidentRequest, figures: str
    ) -> pb.Incident:
        # What the model's project says.
        incident_id = secrets.token_hex(4)
        policy = projects.monitoring_policy_of(change.connection, request.model)
        about = projects.models_of_projects(change.connection).get(request.model)
        owner = request.owner or policy.owner or ("" if about is None else about.owner)
        act = policy_acts.WrittenAct("note", 0)
        if request.automatic:
            act = policy_acts.write_act(change, policy.act_on(request.kind), incident_id, request)
        # The row.
        fields: dict[str, Any] = {
            "id": incident_id,
            "model": request.model,
            "version": request.version,
            "kind": request.kind,
            "cause": request.cause,
            "severity": int(request.severity),
            "state": int(pb.Incident.OPEN),
            "title": request.title,
            "owner": owner[:64],
            "figures": figures,
            "since_unix_ms": request.since_unix_ms or change.at_unix_ms,
            "opened_by": change.actor,
            "opened_unix_ms": change.at_unix_ms,
            **dict.fromkeys(("acknowledged_by", "mitigated_by", "closed_by"), ""),
            **dict.fromkeys(("acknowledged_unix_ms", "mitigated_unix_ms", "closed_unix_ms"), 0),
            "resolution": 0,
            "act": act.act,
            "finding": act.finding,
            "run": act.run,
            "raised": 0,
            "revision": 1,
        }
        return incident_rows.insert_incident(change, fields, request.title)

    def change_incident(self, actor: str, request: pb.ChangeIncidentRequest) -> pb.Incident:
        """Change an incident by compare-and-set, or add a note; return it with its notes.

        Raises NotFoundError, RevisionConflictError, GateError, BadRequestError.
        """
        with self._store.change(actor) as change:
            # Decide, on the row as it is now.
            found = incident_rows.get_incident(change.connection, request.id)
            columns = changed_columns(found, request, actor, change.at_unix_ms)
            # Write the columns, then the note.
            reason = request.text or Change.Change.Name(request.change).lower()
            if columns:
                incident_rows.write_columns(change, found, columns, reason)
            if request.change == Change.LINK:
                incident_rows.add_note(change, found, request.link.kind, request.link.text)
            elif request.text.strip():
                kind = NOTED_AS.get(request.change, "comment")
                incident_rows.add_note(change, found, kind, request.text)
            # A closed incident holds nothing any more.
            if request.change == Change.CLOSE:
                policy_acts.clear_hold(change, found)
            return incident_rows.get_incident(change.connection, found.id, with_notes=True)

    def write_acted(self, actor: str, finding: pb.Finding) -> pb.Finding:
        """Write what a finding led to, and note it in the incident that wrote that finding.

        A rollback mitigates the incident. Raises BadRequestError for another text than JSON with
        "finding" and "act".
        """
        acted = policy_acts.read_acted(finding.text)
        with self._store.change(actor) as change:
            written = controllers.write_finding(change, finding)
            incident = incident_rows.find_by_finding(change.connection, acted.finding)
            if incident is None or incident.state == pb.Incident.CLOSED:
                return written
            if acted.act == policy_acts.ROLLBACK and incident.state != pb.Incident.MITIGATED:
                request = Change(change=Change.MITIGATE, revision=incident.revision)
                columns = changed_columns(incident, request, actor, change.at_unix_ms)
                incident_rows.write_columns(change, incident, columns, acted.text)
            incident_rows.add_note(change, incident, acted.link_kind, acted.text)
            return written

    def get_incident(self, incident_id: str) -> pb.Incident:
        """Return an incident with its notes. Raises NotFoundError."""
        with self._store.reading() as connection:
            return incident_rows.get_incident(connection, incident_id, with_notes=True)

    def list_incidents(self, request: pb.ListIncidentsRequest) -> pb.ListIncidentsReply:
        """Return a page of the incidents of a model, or of all models, newest first."""
        reply = pb.ListIncidentsReply()
        with self._store.reading() as connection:
            for place, incident in incident_rows.list_incidents(
                connection, request.model, request.before, open_only=request.open_only
            ):
                if len(reply.incidents) == INCIDENTS_PER_PAGE:
                    reply.more = True
                    break
                reply.incidents.append(incident)
                reply.next = place
        return reply

    def incidents_after(self, sequence: int) -> list[pb.Incident]:
        """Return incidents that changed after a history entry, in the order of their changes."""
        with self._store.reading() as connection:
            return incident_rows.incidents_after(connection, sequence)

    def add_outside_model(self, actor: str, request: pb.OutsideModel) -> pb.OutsideModel:
        """Write down a model that another system serves, and return it.

        Raises GateError for a model that this registry has or knows, BadRequestError.
        """
        if not MODEL_NAME.fullmatch(request.model) or not all(
            text.strip() for text in (request.owner, request.purpose, request.place)
        ):
            raise BadRequestError(
                f"model {request.model[:80]!r} needs a name that matches {MODEL_NAME.pattern}, an "
                "owner, a purpose, and the place where it runs"
            )
        with self._store.change(actor) as change:
            _check_new_model(change.connection, request.model)
            fields: dict[str, Any] = {
                "model": request.model,
                "owner": request.owner,
                "purpose": request.purpose,
                "place": request.place,
                "added_by": actor,
                "added_unix_ms": change.at_unix_ms,
            }
            change.connection.execute(insert(tables.outside_models).values(**fields))
            name = f"model/{request.model}/outside"
            change.record(
                "add outside model", name, before={}, after=fields, reason=request.purpose
            )
            return pb.OutsideModel(**fields)

    def list_outside_models(self, after: str) -> pb.ListOutsideModelsReply:
        """Return a page of the models that other systems serve, by name."""
        table = tables.outside_models

        def messages(connection: Connection) -> Iterator[pb.OutsideModel]:
            statement = select(table).where(table.c.model > after).order_by(table.c.model)
            for row in connection.execute(statement):
                yield pb.OutsideModel(**row._mapping)

        with self._store.reading() as connection:
            models, more = first_page(messages(connection))
        return pb.ListOutsideModelsReply(models=models, more=more)


def _check_known_model(connection: Connection, model: str) -> None:
    """Raise NotFoundError unless the model has a version, a project, or runs elsewhere."""
    for table in (tables.models, tables.outside_models):
        if connection.execute(select(table.c.model).where(table.c.model == model)).first():
            return
    if model not in projects.models_of_projects(connection):
        raise NotFoundError(
            f"there is no model {model!r}; an incident is about a model that has versions or a "
            "project, or that was added with `turnout models add --elsewhere`"
        )


def _check_new_model(connection: Connection, model: str) -> None:
    for table, what in (
        (tables.models, "has versions in this registry"),
        (tables.outside_models, "is known already"),
    ):
        row = connection.execute(select(table.c.model).where(table.c.model == model)).first()
        if row is not None:
            raise GateError(f"model {model!r} {what}; choose another name, or leave it as it is")
