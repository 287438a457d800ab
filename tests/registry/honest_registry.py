"""Random long sequences of legal operations through the store's public interface."""

import functools
import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from protos import registry_pb2 as pb
from registry.bundle import Bundle, seal_files, verify_bundle
from registry.incidents.incident_store import IncidentStore
from registry.rules.gates import DeployCommand
from registry.runs.run_store import RunStore
from registry.storage.store import RegistryStore
from registry.types import DeploymentError, RegistryError
from tests.registry.project_definitions import PLAN, definitions_of, tiny_view
from tests.tiny_models import linear_weights, tiny_files

MODELS = ("churn", "fraud", "upsell")
PEOPLE = ("ann", "bob", "cleo")
POLICY_DIGESTS = ("ab" * 32, "cd" * 32)
SETTINGS: tuple[dict[str, Any], ...] = (
    {"holdout_bp": 100, "policy": pb.ServingPolicy()},
    {"holdout_bp": 500, "policy": pb.ServingPolicy(deadline_ms_default=50, default_score=0.1)},
)
"""Few, so that an approval of settings often fits the deployment that comes after it."""
START_NS = 1_790_000_000_000_000_000


@functools.cache
def sealed_version(model: str, author: str, number: int) -> tuple[Bundle, dict[str, bytes]]:
    """The *number*-th version of a model, verified."""
    files = seal_files(
        tiny_files(model, weights=linear_weights(3) * (number + 1)),
        model=model,
        author=author,
        created_unix_ms=number,
    )
    return verify_bundle(files, trusted_key=None), files


class HonestRegistry:
    """A store, and random operations that the registry accepts or refuses by its own rules."""

    def __init__(self, folder: Path, generator: random.Random) -> None:
        self._random = generator
        self._now_ns = START_NS
        self.store = RegistryStore(folder, self._clock)
        self.runs = RunStore(self.store)
        self.incidents = IncidentStore(self.store)
        self._numbers = dict.fromkeys(MODELS, 0)
        self._token = 0
        self._checkpoints: dict[str, int] = {}

    def _clock(self) -> int:
        self._now_ns += self._random.randrange(1, 3_000_000_000)
        return self._now_ns

    def operate(self, count: int) -> None:
        """Try *count* random operations. A refused one changes nothing."""
        operations = (
            self._register,
            self._set_status,
            self._approve,
            self._approve,
            self._approve_settings,
            self._close_review,
            self._deploy,
            self._deploy,
            self._deploy,
            self._lease,
            self._checkpoint,
            self._finding,
            self._apply_project,
            self._run,
            self._run,
            self._incident,
            self._incident,
            self._outside_model,
        )
        for model in MODELS[:2]:
            self._register(model)
        for _ in range(count):
            with suppress(RegistryError, DeploymentError):
                self._random.choice(operations)(self._random.choice(MODELS))

    def _register(self, model: str) -> None:
        author = self._random.choice(PEOPLE)
        bundle, files = sealed_version(model, author, self._numbers[model] % 12)
        self._numbers[model] += 1
        self.store.register(author, bundle, files)

    def _label(self, model: str) -> str:
        versions, _ = self.store.list_versions(model)
        return self._random.choice(versions or [pb.Version(label="1")]).label

    def _set_status(self, model: str) -> None:
        status = self._random.choice([pb.STAGING, pb.STAGING, pb.ARCHIVED])
        request = pb.SetStatusRequest(
            model=model, version=self._label(model), status=status, reason="tried ü"
        )
        self.store.set_status(self._random.choice(PEOPLE), request)

    def _approve(self, model: str) -> None:
        first = self._random.random() < 0.3
        digest = "" if first else self._random.choice(POLICY_DIGESTS)
        request = pb.ApproveRequest(
            model=model,
            version=self._label(model),
            policy_name="initial" if first else "standard",
            policy_digest=digest,
            reason="the card was read",
            direct=self._random.random() < 0.5,
        )
        if self._random.random() < 0.15:
            request.reject, request.direct = True, False
            self.store.reject(self._random.choice(PEOPLE), request)
        else:
            self.store.approve(self._random.choice(PEOPLE), request)

    def _approve_settings(self, model: str) -> None:
        settings = self._random.choice(SETTINGS)
        request = pb.SettingsRequest(model=model, reason="as agreed", **settings)
        self.store.approve_settings(self._random.choice(PEOPLE), request)

    def _close_review(self, model: str) -> None:
        reviews = self.store.list_reviews(model, open_only=True)
        review = self._random.choice(reviews or [pb.Review(id="none")])
        request = pb.CloseReviewRequest(id=review.id, reason="it was right")
        self.store.close_review(self._random.choice(PEOPLE), request)

    def _deploy(self, model: str) -> None:
        # One worker has every version ready.
        current = self.store.deployment(model)
        versions, _ = self.store.list_versions(model)
        workers = [
            pb.GatewayState(
                gateway="g",
                loads=[
                    pb.VersionLoad(model=model, version=v.label, digest=v.digest, state="READY")
                    for v in versions
                ],
            )
        ]
        # Change one thing, under any approval.
        label, other = self._label(model), self._label(model)
        approvals = [
            approval
            for version in versions
            for approval in self.store.list_approvals(model, version.label)[0]
        ]
        approval = self._random.choice(approvals or [pb.Approval()])
        changes: dict[str, Any] = self._random.choice(
            [
                {"preload": tuple({label, other})},
                {"canary": approval.version, "canary_bp": self._random.randrange(1, 9_000)},
                {"canary": "", "canary_bp": 0},
                {"shadows": ((label, 100),)},
                {"shadows": ()},
                {"production": approval.version, "canary": "", "canary_bp": 0},
                {"production": label, "standby": current.production, "canary": "", "canary_bp": 0},
                self._random.choice(SETTINGS),
            ]
        )
        # The gates decide whether it is written.
        proposed = replace(
            current,
            **changes,
            approval_id=approval.id,
            rollout_id=self._random.choice(["", "r1", "r2"]),
            why=self._random.choice(["it was tried", 'a "quoted" reason\twith ünicode']),
        )
        command = DeployCommand(
            deployment=proposed,
            lease_token=self._random.choice([0, 0, self._token]),
            policy_digest=approval.policy_digest,
            rollback=self._random.random() < 0.2,
            break_glass=self._random.random() < 0.2,
        )
        # A finding may ask for a rollback.
        if command.rollback and current.production and self._random.random() < 0.5:
            asked = pb.Finding(model=model, version=current.production, kind="rollback", text="AUC")
            finding = self.store.write_finding("monitor", asked).sequence
            command = replace(command, finding=finding, break_glass=False)
        self.store.deploy(self._random.choice(PEOPLE), command, workers)

    def _run(self, model: str) -> None:
        """Begin a run, of which some have a key; end some of those that run."""
        actor = self._random.choice(PEOPLE)
        request = pb.BeginRunRequest(
            model=model,
            setting="small",
            key=self._random.choice(["", "nightly-1"]),
            cause="by hand",
            inputs_json=b'{"commit":"4f2a"}',
        )
        # Some wait in the queue first, and a few of those are cancelled.
        if self._random.random() < 0.5:
            asked = pb.QueueRunRequest(
                model=model, setting="small", key=request.key, cause="schedule daily"
            )
            queued = self.runs.queue_run(actor, asked).run
            request.key = queued.key
            if not queued.ended_unix_ms and self._random.random() < 0.2:
                self.runs.cancel_run(actor, pb.CancelRunRequest(id=queued.id, reason="wrong"))
        # An attempt is handed back, or it ends the run.
        reply = self.runs.begin_run(actor, request)
        if reply.begun and reply.run.queued_unix_ms and self._random.random() < 0.5:
            waits = pb.EndRunRequest(id=reply.run.id, attempt=reply.run.attempt, state="QUEUED")
            waits.error, waits.result_json = self._random.choice(["", "killed"]), b"{}"
            self.runs.end_run(actor, waits)
        elif reply.begun and self._random.random() < 0.7:
            ending = pb.EndRunRequest(
                id=reply.run.id,
                attempt=reply.run.attempt,
                state=self._random.choice([pb.Run.GATE_FAILED, pb.Run.REGISTERED]),
                version=self._label(model),
                error="AUC 0.51 ü",
                result_json=b'{"seconds":{"fit":1.5}}',
            )
            self.runs.end_run(actor, ending)

    def _incident(self, model: str) -> None:
        """Open an incident, by which a policy may act; change it as people and programs do."""
        severity = self._random.choice([pb.Incident.REVIEW, pb.Incident.PAGE])
        request = pb.OpenIncidentRequest(
            model=model,
            version=self._random.choice(["", "1"]),
            kind=self._random.choice(["quality", "auc", "score"]),
            cause=self._random.choice(["usage", "ü/2026-11-30"]),
            severity=severity,
            title='scores are "odd"',
            figures_json='{"psi": 0.31, "view": "usage"}',
            automatic=self._random.random() < 0.7,
            links=[pb.IncidentNote(kind="finding", text="1")],
        )
        incident = self.incidents.open_incident("monitor", request).incident
        # What a finding led to, or what a person does.
        if incident.finding and self._random.random() < 0.3:
            text = f'{{"act":"rollback","finding":{incident.finding},"revision":3}}'
            acted = pb.Finding(model=model, kind="acted", text=text)
            self.incidents.write_acted("ctl", acted)
        # Any change, from the newest revision or from an old one.
        change = self._random.choice(pb.ChangeIncidentRequest.Change.values())
        wanted = pb.ChangeIncidentRequest(
            id=incident.id,
            revision=self._random.choice([incident.revision, 1]),
            change=change,
            text="late file",
            owner="dora",
            resolution=pb.Incident.EXPECTED,
            link=pb.IncidentNote(kind="run", text="4f2a"),
            severity=severity,
            figures_json='{"psi":0.4}',
        )
        self.incidents.change_incident(self._random.choice(PEOPLE), wanted)

    def _outside_model(self, _model: str) -> None:
        name = f"outside{self._random.randrange(3)}"
        request = pb.OutsideModel(model=name, owner="risk", purpose="p", place="mainframe")
        self.incidents.add_outside_model(self._random.choice(PEOPLE), request)

    def _lease(self, _model: str) -> None:
        renew = self._token if self._random.random() < 0.5 else 0
        holder = self._random.choice(PEOPLE)
        request = pb.LeaseRequest(name="rollout", holder=holder, seconds=3, token=renew)
        self._token = self.store.acquire_lease(holder, request).token

    def _checkpoint(self, model: str) -> None:
        rollout = f"{model}-{self._random.randrange(3)}"
        sequence = self._checkpoints.get(rollout, 0) + 1
        state = self._random.randbytes(40)
        self.store.save_checkpoint(
            "ctl",
            pb.Checkpoint(
                rollout_id=rollout, sequence=sequence, state=state, lease_token=self._token
            ),
        )
        self._checkpoints[rollout] = sequence

    def _finding(self, model: str) -> None:
        finding = pb.Finding(model=model, kind="hold", text="scores moved", version="1")
        self.store.write_finding("monitor", finding)

    def _apply_project(self, model: str) -> None:
        # Two projects want the same names, and settings are often approved.
        name = self._random.choice(["shop", "crm"])
        listed = self.store.list_projects(pb.ListProjectsRequest(name=name)).revisions
        settings = self._random.choice(SETTINGS)
        serving = MessageToDict(settings["policy"], preserving_proto_field_name=True)
        models = {model: {"holdout_bp": settings["holdout_bp"], "serving": serving}}
        request = pb.ApplyProjectRequest(
            name=name,
            expected_revision=listed[0].revision if listed else self._random.randrange(2),
            definitions=definitions_of(
                name,
                views=[tiny_view(f"view_{self._random.randrange(3)}")],
                models=models if self._random.random() < 0.5 else {},
            ),
            plan_digest=PLAN,
            effects=[pb.ProjectEffect(text="a view is new")],
            dirty=self._random.random() < 0.5,
            reason="as planned",
        )
        operator = self._random.random() < 0.8
        self.store.apply_project(self._random.choice(PEOPLE), request, (), operator=operator)
