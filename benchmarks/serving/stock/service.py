"""The stock service: one ``@bentoml.service``, one ``@bentoml.api``, Feast's features, MLflow's models.

What enters: ids. What leaves: a list of dictionaries. The promise: nothing is configured that the pages do not configure;
``bentoml serve`` starts it with its defaults.

- https://docs.bentoml.com/en/latest/build-with-bentoml/services.html
- https://docs.bentoml.com/en/latest/examples/mlflow.html
- https://docs.feast.dev/how-to-guides/feast-snowflake-gcp-aws/read-features-from-the-online-store

``STOCK_CONFIG`` names a JSON file: the Feast repository, its feature references, the models' places.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import bentoml
import feast
import mlflow.pyfunc


@bentoml.service(name="stock")
class Stock:
    """Scores of three models for any number of subscribers."""

    def __init__(self) -> None:
        config = json.loads(Path(os.environ["STOCK_CONFIG"]).read_text())
        self.store = feast.FeatureStore(repo_path=config["repository"])
        self.references = config["references"]
        self.columns = [reference.partition(":")[2] for reference in self.references]
        self.models = {model: mlflow.pyfunc.load_model(place) for model, place in config["models"].items()}

    @bentoml.api
    def predict(self, subscriber_ids: list[str]) -> list[dict]:
        """Score each subscriber with each model."""
        features = self.store.get_online_features(
            features=self.references,
            entity_rows=[{"subscriber_id": subscriber_id} for subscriber_id in subscriber_ids],
        ).to_df()
        # A column that is empty for everybody asked comes without a type, which the models' signature refuses.
        rows = features[self.columns].astype("float64")
        scores = {model: loaded.predict(rows) for model, loaded in self.models.items()}
        return [
            {"subscriber_id": subscriber_id, **{model: float(column[i]) for model, column in scores.items()}}
            for i, subscriber_id in enumerate(subscriber_ids)
        ]
