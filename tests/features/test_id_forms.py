"""Forms of ids, which stand in messages instead of the ids."""

import pytest

from features.storage.id_forms import id_form


@pytest.mark.parametrize(
    ("ids", "form"),
    [
        ([], ""),
        (["12345", "99999", "123"], "5 digits"),
        (["12345.0"], "5 digits + '.' + 1 digit"),
        ([" 7 "], "1 space + 1 digit + 1 space"),
        (["AB-12"], "2 capital letters + '-' + 2 digits"),
        (["anna"], "4 small letters"),
        (["Anna"], "4 letters"),
        ([f"S{number:06d}" for number in range(20)], "'S' + 6 digits"),
        ([f"S{number:06d}" for number in range(5)], "1 capital letter + 6 digits"),
        (["C1\x1fO22"], "1 capital letter + 1 digit and 1 capital letter + 2 digits"),
        (["1f0c-4a-9e1b-22"], "15 letters, digits and signs"),
    ],
)
def test_id_form_shows_no_id(ids: list[str], form: str) -> None:
    """A prefix is shown only when many ids have it, because then it is nobody's."""
    assert id_form(ids) == form


def test_id_form_of_names_shows_no_letter() -> None:
    """Names of people have no digits, so they have no prefix either."""
    names = [f"{first}{last}" for first in ("anna", "bert") for last in "abcdefghij"]
    assert id_form(names) == "5 small letters"
