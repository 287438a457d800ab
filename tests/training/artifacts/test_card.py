"""Tests of the facts for card.json."""

from training.artifacts.card import package_versions


def test_card_lists_the_packages_that_could_change_a_score() -> None:
    """Each package has a version."""
    versions = package_versions()
    assert {"python", "numpy", "scikit-learn", "skl2onnx", "onnx", "onnxruntime"} <= set(versions)
    assert "unknown" not in versions.values()
