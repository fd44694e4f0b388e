"""The SageMaker container's side of a heavy model: `python -m sampan.serving.endpoint serve`.

    settings → models (verified, opened, proven, warm) → /ping and /invocations on a port → SIGTERM → drained

The same route table as everywhere; requests take threads, so that those which come together can run as one batch.
With many models on an endpoint, SageMaker tells over HTTP which to load and to unload (`models.py`).
"""
