"""Asks a Turnout gateway for predictions, reports their outcomes, and pushes rows of features.

>>> from turnout_client import SyncPredictClient
>>> with SyncPredictClient("127.0.0.1:8500") as client:
...     prediction = client.predict("churn", keys="S0000042")
>>> print(f"{prediction.scores[0][0]:.2f} by version {prediction.version}")
0.25 by version 7

`SyncPredictClient` is for threads, `PredictClient` for asyncio. Both spread calls over a few
connections, X
"""

from turnout_client._protos.predict_pb2 import (
    Criticality,
    ModelDescription,
    OutcomeReply,
    RowFlag,
)
from turnout_client.errors import PredictError, PushError
from turnout_client.feature_rows import FeatureRow, RowResult
from turnout_client.features_client import FeaturesClient, SyncFeaturesClient
from turnout_client.messages import Keys, NamedInputs, Prediction
from turnout_client.predict_client import PredictClient
from turnout_client.retry import SERVICE_CONFIG
from turnout_client.sync_client import SyncPredictClient

__all__ = [
    "SERVICE_CONFIG",
    "Criticality",
    "FeatureRow",
    "FeaturesClient",
    "Keys",
    "ModelDescription",
    "NamedInputs",
    "OutcomeReply",
    "PredictClient",
    "PredictError",
    "Prediction",
    "PushError",
    "RowFlag",
    "RowResult",
    "SyncFeaturesClient",
    "SyncPredictClient",
]
