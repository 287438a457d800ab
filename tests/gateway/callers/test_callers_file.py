"""The callers file: what it says, and each mistake is named with its place."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.callers.callers_file import read_callers_file
from gateway.errors import SettingsError

DIGEST = "0" * 64
CALLER = f'[[callers]]\nname = "crm"\ntoken_sha256 = ["{DIGEST}"]\n'
ISSUER = """[[issuers]]
issuer = "https://login.example"
audience = "turnout"
algorithm = "ES256"
keys = "jwks.json"
"""


def test_callers_file_has_credentials_models_and_quotas(tmp_path: Path) -> None:
    """A caller with all fields, and one whose bounds are left out."""
    path = tmp_path / "callers.toml"
    path.write_text(
        ISSUER
        + CALLER
        + 'models = ["churn"]\ncalls_s = 5\nrows_s = 6\nbytes_s = 7\nconnections = 8\nstreams = 9\n'
        + 'pins = ["churn"]\nexpires = 2027-01-31T00:00:00Z\n'
        + '[[callers]]\nname = "nba"\ncertificates = ["nba.example", "spiffe://a/nba"]\n'
        + 'issuer = "https://login.example"\nsubject = "nba"\n'
    )
    parsed = read_callers_file(path)
    crm, nba = parsed.entries
    assert (crm.caller.models, crm.caller.calls_s, crm.caller.streams) == ({"churn"}, 5, 9)
    assert (crm.caller.pins, nba.caller.pins) == ({"churn"}, set())
    assert crm.expires_unix_ns == int(datetime(2027, 1, 31, tzinfo=UTC).timestamp()) * 10**9
    assert (nba.caller.models, nba.caller.rows_s) == (None, 0)
    assert nba.subject == ("https://login.example", "nba")
    assert parsed.issuers[0].keys == str(tmp_path / "jwks.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not toml", "cannot be read"),
        ("", "has 0 callers"),
        ("callers = 7", "are tables"),
        (CALLER + "calls = 5", "'calls' is no field"),
        (CALLER + "calls_s = 0", "a whole number above 0"),
        (CALLER + "calls_s = true", "a whole number above 0"),
        (CALLER + 'pins = "churn"', "a list of texts"),
        (CALLER + 'models = ["nba"]\npins = ["churn"]', "'churn', which is not among models"),
        (CALLER + 'models = "churn"', "a list of texts"),
        (CALLER + 'expires = "soon"', "a date and time"),
        (CALLER.replace("crm", "a b"), "letters, digits"),
        (CALLER.replace("crm", "anonymous"), "not anonymous"),
        (CALLER.replace(DIGEST, DIGEST[1:]), "64 hex digits"),
        ('[[callers]]\nname = "crm"', "has no token_sha256"),
        ('[[callers]]\nname = "crm"\ncertificates = ["10.0.0.1"]', "DNS names or URIs"),
        ('[[callers]]\nname = "crm"\nissuer = "x"\nsubject = "y"', "one of"),
        (CALLER + CALLER.replace("crm", "CRM"), "a name stands twice"),
        (CALLER + CALLER.replace("crm", "nba"), "a token stands twice"),
        (ISSUER.replace("ES256", "HS256") + CALLER, "algorithm is one of"),
        (ISSUER.replace('"jwks.json"', '"http://far.example/jwks"') + CALLER, "use https://"),
        (ISSUER.replace('audience = "turnout"\n', "") + CALLER, "needs the texts"),
    ],
)
def test_callers_file_names_a_mistake(tmp_path: Path, text: str, message: str) -> None:
    """The message has the file, the caller's position, and what is expected."""
    path = tmp_path / "callers.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message) as refused:
        read_callers_file(path)
    assert str(path) in str(refused.value)


def test_callers_file_that_is_absent_is_a_mistake(tmp_path: Path) -> None:
    """A gateway whose callers file is not there does not serve everybody instead."""
    with pytest.raises(SettingsError, match="cannot be read"):
        read_callers_file(tmp_path / "absent.toml")
