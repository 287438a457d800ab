"""`turnout audit list --object`: which entries are about the object."""

import pytest

from turnout.commands.audit import is_about


@pytest.mark.parametrize(
    ("about", "names"),
    [
        ("", ["model/churn", "model/churn/version/1", "model/churn_b2b", "lease/control"]),
        ("model/churn", ["model/churn", "model/churn/version/1"]),
        ("model/churn/", ["model/churn/version/1"]),
        ("model/churn*", ["model/churn", "model/churn/version/1", "model/churn_b2b"]),
        ("model/", ["model/churn", "model/churn/version/1", "model/churn_b2b"]),
        ("*", ["model/churn", "model/churn/version/1", "model/churn_b2b", "lease/control"]),
    ],
)
def test_object_is_exact_and_a_star_makes_it_a_prefix(about: str, names: list[str]) -> None:
    """An object has what is below it; a model with a longer name is another one."""
    every = ["model/churn", "model/churn/version/1", "model/churn_b2b", "lease/control"]
    assert [name for name in every if is_about(name, about)] == names
