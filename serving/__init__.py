"""From a request to a score: schemas, scorer, fallbacks, guard, prediction log, the Bento.

Bytes of a request enter here and bytes of an answer leave; whoever may ask and however the parts behind are doing, an
accepted request is answered with a finite score. Nothing in this room fits a model or talks to MLflow; features are
written only by ``webhooks``, aside. It imports ``features`` and ``models``, never ``training`` or ``pipelines``; BentoML
is imported only by ``service``.

The way of a request: ``guard`` (outermost: key, type, size, time, places) -> Bento's own middleware -> ``app`` ->
``schemas`` (bytes to a checked request) -> ``admission`` (now, in turn, shed, or priors because time is short) ->
``together`` (with whom) -> ``scorer``, which reads through the ``breaker`` -> ``answers`` (columns to bytes) ->
``prediction_log`` (afterwards, aside). ``swap`` puts another scorer in service when a model is promoted.

The way of a provider's events: ``guard`` (the provider's door instead of a key, places of their own) -> ``app`` ->
``webhooks.reception`` (checked, read, written by one writer), and then, when the answer is sent, ``webhooks.follower`` and
its process ``webhooks.live``.

Weighed:

- A FastAPI app mounted in the Bento, not ``@bentoml.api``: handlers take bytes and give bytes, and Bento's OpenAPI
  document still lists them. In an earlier trial a mounted app answered 1,270 single rows a second, the API 360 to 800.
- The guard wraps the whole ASGI app through ``service_class`` instead of ``add_asgi_middleware``: Bento puts the latter
  *inside* its timer, where an exception before the first byte of the answer leaves the caller hanging until it runs
  out. The timer is taken out altogether and the guard has its own. That, together with leaving scores out of traces,
  took a stand-in scorer from about 1,450 to 2,400 to 3,000 single requests a second (single runs, a shared machine).
- Bento's access log, metrics and traces of scores are off, because all three spell out the path and so the
  subscriber's id. The guard logs and counts instead, by route.
- ``/metrics``, ``/livez`` and ``/readyz`` need no key: they hold counts and nobody's data, and the service listens on
  loopback unless told otherwise. Put a proxy in front before it listens wider: neither Bento nor uvicorn limits how
  slowly a header may arrive.
"""
