"""A model that runs on a SageMaker endpoint; this process does what is before and after.

RemoteModel → RemoteSession → (breaker → deadline → attempts) → EndpointClient → boto3
      └─────→ fallback, a smaller version in this process
"""
