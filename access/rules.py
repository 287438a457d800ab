"""The rule of every RPC and of every page, in one table. What it lacks is refused.

A test makes the list of all RPCs from the descriptors, so a new one without a rule fails.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from access.identities import (
    APPROVER,
    AUTHOR,
    CALLER,
    CONTROLLER,
    GATEWAY,
    MONITORING,
    OBSERVER,
    OPERATOR,
    PUSHER,
    ROLES,
    ForbiddenError,
    IdentitiesFiles,
    Identity,
    UnidentifiedError,
    bearer_token,
    believed_identity,
)


@dataclass(frozen=True, slots=True)
class AccessRule:
    """The roles that may call a method. One that changes something also needs an actor's name."""

    roles: frozenset[str]
    changes: bool = False
    open: bool = False
    """Everybody may call it, also without a token."""


def _role(*roles: str) -> AccessRule:
    return AccessRule(frozenset(roles))


def _change(*roles: str) -> AccessRule:
    return AccessRule(frozenset(roles), changes=True)


READ = AccessRule(ROLES - {PUSHER})  # a program that pushes rows need not read
OPEN = AccessRule(frozenset(), open=True)
PEOPLE = (AUTHOR, APPROVER, OPERATOR)


def _service(name: str, **rules: AccessRule) -> dict[str, AccessRule]:
    return {f"/{name}/{rpc}": rule for rpc, rule in rules.items()}


RULES: dict[str, AccessRule] = {
    **_service(
        "turnout.v1.Registry",
        RegisterVersion=_change(AUTHOR),
        ListModels=READ,
        ListVersions=READ,
        GetVersion=READ,
        FetchVersion=READ,
        SetStatus=_change(AUTHOR, OPERATOR),
        Approve=_change(APPROVER),
        ListApprovals=READ,
        ApproveSettings=_change(APPROVER),
        ListReviews=READ,
        CloseReview=_change(APPROVER, OPERATOR),
        GetDeployment=READ,
        Deploy=_change(OPERATOR, CONTROLLER),  # only operators break the glass (registry/api)
        WatchDeployments=READ,  # only a gateway counts as its worker's presence (registry/api)
        ReportState=_role(GATEWAY),
        WatchStates=READ,
        AcquireLease=_change(CONTROLLER),
        SaveCheckpoint=_change(CONTROLLER),
        LoadCheckpoint=_role(CONTROLLER),
        WriteFinding=_change(
            CONTROLLER, OPERATOR, MONITORING
        ),  # monitoring: figures (registry/api)
        WatchFindings=READ,
        ApplyProject=_change(AUTHOR, OPERATOR),  # authors no policies and models (registry/api)
        GetProject=READ,
        ListProjects=READ,
        BeginRun=_change(AUTHOR),
        AppendRunLog=_change(AUTHOR),  # of the author's own run (registry/storage)
        EndRun=_change(AUTHOR),
        QueueRun=_change(AUTHOR, OPERATOR, CONTROLLER),  # a controller under its lease
        CancelRun=_change(AUTHOR, OPERATOR),
        ListSchedules=READ,
        OpenIncident=_change(*PEOPLE, MONITORING, CONTROLLER),
        ChangeIncident=_change(*PEOPLE, MONITORING, CONTROLLER),  # who does what: registry/watching
        GetIncident=READ,
        ListIncidents=READ,
        WatchIncidents=READ,
        AddOutsideModel=_change(AUTHOR, OPERATOR),
        ListOutsideModels=READ,
        GetRun=READ,
        ListRuns=READ,
        ReadRunLog=READ,
        ListHistory=READ,
        ListState=READ,
        ReadEntry=READ,
        ReadHistory=READ,
    ),
    **_service(
        "turnout.v1.Rollouts",
        Start=_change(OPERATOR),
        GetStatus=READ,
        WatchStatus=READ,
        ListRollouts=READ,
        ListPolicies=READ,
        Explain=READ,
        Abort=_change(OPERATOR),
        Promote=_change(OPERATOR),
        Pause=_change(OPERATOR),
        Resume=_change(OPERATOR),
        Retry=_change(OPERATOR),
        Undo=_change(OPERATOR),
        SetWeight=_change(OPERATOR),
        Forecast=READ,
    ),
    **_service("turnout.v1.WindowSink", Push=_role(GATEWAY)),
    **_service(
        "turnout.v1.Predictor",
        Predict=_role(CALLER),
        PredictStream=_role(CALLER),
        ReportOutcome=_role(CALLER),
        DescribeModel=_role(CALLER),
    ),
    **_service(
        "inference.GRPCInferenceService",
        ServerLive=OPEN,
        ServerReady=OPEN,
        ModelReady=_role(CALLER),
        ServerMetadata=_role(CALLER),
        ModelMetadata=_role(CALLER),
        ModelInfer=_role(CALLER),
    ),
    **_service("turnout.v1.Features", Push=_role(PUSHER)),
    **_service(
        "turnout.v1.CellSink",
        OpenReader=_role(GATEWAY),
        GetVersionBins=_role(GATEWAY),
        PushCells=_role(GATEWAY),  # for the caller's own gateway (monitoring/api)
    ),
    **_service(
        "turnout.v1.Monitoring",
        GetStatus=READ,
        Forget=_change(OPERATOR),
        ImportScores=_change(OPERATOR),
        ImportOutcomes=_change(OPERATOR),
        GetFigures=READ,  # figures of fairness for auditors only (monitoring/api)
        GetAlarms=READ,
        GetLooks=READ,
        GetCells=READ,
    ),
    # An explanation shows what is known of a person, so the role `reader` is not among them.
    **_service("turnout.v1.Explainer", Explain=_role(APPROVER, AUTHOR, OPERATOR)),
    **_service("grpc.health.v1.Health", Check=OPEN, Watch=OPEN),
    **_service("grpc.reflection.v1.ServerReflection", ServerReflectionInfo=_role(CALLER)),
    **_service("grpc.reflection.v1alpha.ServerReflection", ServerReflectionInfo=_role(CALLER)),
}
"""Full method name -> its rule."""

PAGES: dict[str, AccessRule] = {
    "/healthz": OPEN,
    "/readyz": OPEN,
    "/metrics": _role(OBSERVER),
    "/workers": _role(OBSERVER),
    "/statistics": _role(OBSERVER),
}
"""Path of a page of the gateway's supervisor -> its rule."""


class Access:
    """Identifies callers by their call metadata and checks RULES.

    identities  the tokens' owners. With None no token is needed: every name is believed and has
                every role.
    """

    def __init__(self, identities: IdentitiesFiles | None = None) -> None:
        self._identities = identities

    def identify(self, metadata: Iterable[tuple[str, str | bytes]]) -> Identity:
        """Return the identity of the caller. Raises UnidentifiedError without a valid one."""
        if self._identities is None:
            return believed_identity(metadata)
        return self._identities.identify(bearer_token(metadata))

    def authorise(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Identity:
        """Return the identity of the caller of *method*, such as /turnout.v1.Registry/Deploy.

        Raises UnidentifiedError without a valid name or token, ForbiddenError without the role.
        """
        rule = RULES.get(method)
        if rule is not None and rule.open:
            return Identity("", frozenset())
        identity = self.identify(metadata)
        rpc = method.rpartition("/")[2]
        if rule is None or not identity.roles & rule.roles:
            needed = " or ".join(sorted(rule.roles)) if rule else "a rule, and there is none"
            raise ForbiddenError(
                f"{rpc} needs {needed}; {identity.actor!r} is "
                f"{' and '.join(sorted(identity.roles)) or 'without a role'}"
            )
        if rule.changes and not identity.actor:
            raise UnidentifiedError(
                f"{rpc} changes something, so it needs a name: send x-turnout-actor, 1 to 64 "
                "printable characters"
            )
        return identity
