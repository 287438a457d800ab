"""The pages of the gateway's supervisor on its loopback port: /workers and /statistics.

They show one host. `docs/operating.md` explains their fields.
"""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from registry.types import read_token
from turnout.errors import NotReachableError, OperatorError
from turnout.processes.system_file import SystemAddresses

PAGE_TIMEOUT_S = 5.0
_WITHOUT_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""The pages are on this host, so no proxy of the environment is asked for them."""


def read_workers(addresses: SystemAddresses) -> list[dict[str, Any]]:
    """Return /workers: for each worker its pid, slot, state, age and memory."""
    return _read_page(addresses, "/workers")


def read_statistics(addresses: SystemAddresses) -> list[dict[str, Any]]:
    """Return /statistics: for each worker its slot (None: the spare), pid and statistics.

    The statistics are those of the worker's last metrics snapshot: by part of the worker, names
    and values.
    """
    return _read_page(addresses, "/statistics")


def _read_page(addresses: SystemAddresses, path: str) -> list[dict[str, Any]]:
    url = addresses.metrics.removesuffix("/metrics") + path
    request = urllib.request.Request(url)  # noqa: S310  http only
    if addresses.observe_token_file:
        token = read_token(Path(addresses.observe_token_file))
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with _WITHOUT_PROXY.open(request, timeout=PAGE_TIMEOUT_S) as page:
            rows: list[dict[str, Any]] = json.load(page)
    except urllib.error.HTTPError as error:
        error.close()
        raise OperatorError(
            f"the gateway's supervisor answers {url} with {error.code}; is it an older version? "
            "A restart of the system loads the current one"
        ) from error
    except OSError as error:
        raise NotReachableError(
            f"the gateway's supervisor does not answer {url} ({error}); is the system up? Start it "
            "with: turnout up"
        ) from error
    return rows
