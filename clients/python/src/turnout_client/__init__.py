"""What a CRM or next-best-action service calls predictions with."""

from turnout_client.predict_client import PredictClient, PredictError, Prediction
from turnout_client.sync_client import SyncPredictClient

__all__ = ["PredictClient", "PredictError", "Prediction", "SyncPredictClient"]
