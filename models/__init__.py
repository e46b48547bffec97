"""What a model is: one file per model, the LightGBM door, calibration, the MLflow door, the bundle.

Fitted numbers enter here and leave as probabilities, as registered versions and as the signed directory that serving
loads. Nothing in this room reads an event, chooses a row to learn from, or speaks HTTP. It imports only ``features``;
LightGBM is imported only by ``boosting``, MLflow only by ``registry``.

Weighed: MLflow's own model loading was rejected for serving, because the loader to run is named inside the artefact and
pickle is allowed. A version in the registry carries a plain bundle (``bundle``), and LightGBM's parser, which a damaged
text can crash or hang, sees it first in a child process. Isotonic calibration was rejected: the three-parameter beta
family (``calibration``) contains the identity and Platt's sigmoid, invents no ties and hardly overfits a small slice.
"""
