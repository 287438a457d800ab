"""The fleet knows which workers are ready or silent, and when all have applied a revision."""

from protos import registry_pb2
from rollout.controller.fleet import Fleet
from tests.rollout.scripted_parts import NS


def worker_state(
    slot: int, state: str = "READY", *, spare: bool = False, revision: int = 1, gone: bool = False
) -> registry_pb2.GatewayState:
    """Return the state of one worker with version 2 of churn."""
    return registry_pb2.GatewayState(
        gateway="g",
        slot=slot,
        boot_id=slot + 1,
        spare=spare,
        disconnected=gone,
        loads=[
            registry_pb2.VersionLoad(model="churn", version="2", state=state, reason="golden row")
        ],
        applied={"churn": revision},
        applied_unix_ns={"churn": 100 * revision + slot},
    )


def test_fleet_view_names_workers_that_are_not_ready_refused_or_silent() -> None:
    """Spares must be ready too, but they send no windows."""
    fleet = Fleet()
    for state in (
        worker_state(0),
        worker_state(1, "LOADING"),
        worker_state(2, "REFUSED"),
        worker_state(3, spare=True),
    ):
        fleet.update_worker(state, 0)
    fleet.note_heartbeat(("g", 0, 1), 4 * NS)
    view = fleet.view("churn", "2", 3 * NS, 5 * NS)
    assert view.workers == 4
    assert view.not_ready == ("worker g/1",)
    assert view.refused == ("worker g/2: golden row",)
    assert view.silent == ("worker g/1", "worker g/2")
    assert len(fleet.view("churn", "3", 3 * NS, 5 * NS).not_ready) == 4


def test_fleet_measures_silence_of_a_spare_from_its_first_service() -> None:
    """A worker that disconnected does not count as silent."""
    fleet = Fleet()
    fleet.update_worker(worker_state(0, spare=True), 0)
    fleet.update_worker(worker_state(0), 10 * NS)
    assert fleet.view("churn", "2", 3 * NS, 12 * NS).silent == ()
    fleet.update_worker(worker_state(0), 12 * NS)
    assert fleet.view("churn", "2", 3 * NS, 14 * NS).silent == ("worker g/0",)
    fleet.update_worker(worker_state(0, gone=True), 15 * NS)
    assert fleet.view("churn", "2", 3 * NS, 20 * NS).workers == 0


def test_fleet_moved_time_is_that_of_the_last_serving_worker() -> None:
    """It is 0 without workers and while one is behind. Spares do not count."""
    fleet = Fleet()
    assert fleet.moved_unix_ns("churn", 2) == 0
    for state in (
        worker_state(0, revision=2),
        worker_state(1, revision=1),
        worker_state(2, spare=True),
    ):
        fleet.update_worker(state, 0)
    assert fleet.moved_unix_ns("churn", 2) == 0
    fleet.update_worker(worker_state(1, revision=2), 0)
    assert fleet.moved_unix_ns("churn", 2) == 201
