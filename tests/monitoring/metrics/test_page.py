"""The page over real HTTP."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from monitoring.errors import MonitoringError
from monitoring.metrics.exposition import ControlReadings, exposition
from monitoring.metrics.headlines import Headline
from monitoring.metrics.page import MetricsAddress, MetricsPage
from monitoring.store.waiting_outcomes import OutcomeBacklog

READINGS = ControlReadings(
    at_s=100.0,
    figures=(Headline("churn", "7", "quality", 'auc "x"\n', 0.7),),
    incidents={3: 2},
    alarms={("churn", "features"): 4},
    coverage={("churn", "7"): 0.98},
    readers={"gw-1": (90.0, 512)},
    looks={("churn", "7", "drift"): 50.0},
    outcome_backlogs={"churn": OutcomeBacklog(7, 80_000)},
    store_errors=1,
)


@contextmanager
def open_page(token: str | None = None) -> Iterator[str]:
    """Serve the readings at second 110; yield the page's URL."""
    page = MetricsPage(MetricsAddress("127.0.0.1:0", token), lambda: exposition(READINGS, 110.0))
    try:
        yield f"http://127.0.0.1:{page.port}/metrics"
    finally:
        page.close()


def get(url: str, **headers: str) -> tuple[int, str]:
    """Return status and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_page_has_every_number_with_ages_as_of_now() -> None:
    """Severities without an incident are zero, so that a rule has something to compare."""
    with open_page() as url:
        status, text = get(url)
    assert status == 200
    lines = set(text.splitlines())
    assert lines >= {
        r'turnout_figure{kind="quality",model="churn",name="auc \"x\"\n",version="7"} 0.7',
        'turnout_incidents_open{severity="page"} 2.0',
        'turnout_incidents_open{severity="review"} 0.0',
        'turnout_alarms_total{kind="features",model="churn"} 4.0',
        'turnout_coverage_share{model="churn",version="7"} 0.98',
        'turnout_reader_lag_seconds{gateway="gw-1"} 20.0',
        'turnout_reader_backlog_bytes{gateway="gw-1"} 512.0',
        'turnout_look_lag_seconds{look="drift",model="churn",version="7"} 60.0',
        'turnout_waiting_outcomes{model="churn"} 7.0',
        'turnout_waiting_outcomes_oldest_seconds{model="churn"} 30.0',
        "turnout_monitoring_store_errors_total 1.0",
        "turnout_monitoring_read_seconds 10.0",
    }


def test_page_before_the_first_reading_has_no_age() -> None:
    """It would be the age of 1970."""
    text = exposition(ControlReadings(), 100.0).decode()
    named = "turnout_monitoring_read_seconds"
    assert not [line for line in text.splitlines() if line.startswith(named)]


def test_page_asks_for_its_token_and_its_own_name() -> None:
    """A wrong token, another host name and another path are refused."""
    with open_page("s3cret") as url:
        assert get(url)[0] == 401
        assert get(url, Authorization="Bearer wrong")[0] == 401
        assert get(url, Authorization="Bearer s3cret")[0] == 200
        assert get(url, Authorization="Bearer s3cret", Host="evil.example")[0] == 403
        assert get(f"{url}x", Authorization="Bearer s3cret")[0] == 404
        assert get(f"{url}x")[0] == 401


@pytest.mark.parametrize(
    ("address", "token", "message"),
    [
        ("0.0.0.0:9465", None, "is not loopback, and no token is given"),
        ("metrics", None, "is no host:port"),
        ("127.0.0.1", "x", "is no host:port"),
    ],
)
def test_address_that_others_reach_needs_a_token(
    address: str, token: str | None, message: str
) -> None:
    """The message has the way out."""
    with pytest.raises(MonitoringError, match=message):
        MetricsAddress(address, token)
    assert MetricsAddress("0.0.0.0:9465", "x").token == "x"


def test_port_that_is_taken_is_an_error() -> None:
    """Which control logs; it goes on without the page."""
    with open_page() as url, pytest.raises(OSError, match="in use"):
        MetricsPage(MetricsAddress(url.removeprefix("http://").removesuffix("/metrics")), bytes)
