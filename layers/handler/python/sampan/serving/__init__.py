"""What runs per request, anywhere: Lambda, a local server, a SageMaker container.

    event → Request → routes → data plane → pipeline → session → Response → event

Needs the `[runtime]` dependencies only and imports `sampan.contract` and nothing else of ours.
"""
