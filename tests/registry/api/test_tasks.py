"""The registry says the task of a version and the units of its outputs."""

import asyncio
from pathlib import Path

import numpy as np

from tests.registry.registry_fixture import registry_fixture
from tests.tiny_models import tiny_contract, tiny_files


def test_version_has_its_task_and_outputs(tmp_path: Path) -> None:
    """A version that states none is binary. Lists have neither, because they are in files."""
    contract = tiny_contract(outputs=("calls", "texts"))
    weights = np.array([[1, 9], [1, 9], [1, 9]], np.float32)
    files = tiny_files("usage", contract=contract, weights=weights, task="regression")

    async def course() -> None:
        async with registry_fixture(tmp_path) as registry:
            await registry.ann.register("usage", files)
            await registry.ann.register("churn", tiny_files())
            usage = await registry.ann.get_version("usage", "1")
            churn = await registry.ann.get_version("churn", "1")
            (listed,) = await registry.ann.list_versions("usage")
            assert usage.task == "regression"
            assert [output.name for output in usage.outputs] == ["calls", "texts"]
            calls, texts = usage.outputs
            assert texts.spread > 8 * calls.spread > 4
            assert (churn.task, [output.spread for output in churn.outputs]) == ("binary", [1.0])
            assert (listed.task, list(listed.outputs)) == ("", [])

    asyncio.run(course())
