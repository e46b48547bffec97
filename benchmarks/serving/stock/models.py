"""The stock models: logged with MLflow and loaded again by it.

What enters: the trees both stacks serve. What leaves: three model URIs. The promise: what is loaded are the same trees as
ours, logged and loaded as MLflow's page shows, signature included.

- https://mlflow.org/docs/latest/api_reference/python_api/mlflow.lightgbm.html
- https://mlflow.org/docs/latest/api_reference/python_api/mlflow.pyfunc.html
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import lightgbm
import mlflow
import mlflow.lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.models import infer_signature

from models.boosting import Booster


def log_models(
    boosters: Mapping[str, Booster], names: Sequence[str], rows: npt.NDArray[np.float64], directory: Path
) -> dict[str, str]:
    """Log each model in a run of its own and say where it went."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    mlflow.set_tracking_uri(f"sqlite:///{(directory / 'mlflow.db').resolve()}")
    experiment = mlflow.create_experiment("stock", artifact_location=(directory / "artifacts").resolve().as_uri())
    example = pd.DataFrame(rows, columns=list(names))
    uris = {}
    for model, booster in boosters.items():
        inner = lightgbm.Booster(model_str=booster.text)
        signature = infer_signature(example, inner.predict(example))
        with mlflow.start_run(experiment_id=experiment, run_name=model):
            logged = mlflow.lightgbm.log_model(inner, name=model, signature=signature)
        uris[model] = logged.model_uri
    return {model: str(Path(mlflow.artifacts.download_artifacts(uri)).resolve()) for model, uri in uris.items()}
