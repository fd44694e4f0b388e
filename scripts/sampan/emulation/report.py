"""The REPORT line that Lambda writes after each invocation.

Source: https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html
"""

import math

import orjson

from sampan.emulation.instance import Invocation

_STATUS = {"timeout": "timeout", "crash": "error", "error": ""}


def report_line(invocation: Invocation) -> str:
    """Tab-separated as Lambda writes it: `Init Duration` for a cold start alone, `Status` for what did not end well."""
    fields = [
        f"REPORT RequestId: {invocation.request_id}",
        f"Duration: {invocation.duration_ms:.2f} ms",
        f"Billed Duration: {invocation.billed_ms} ms",
        f"Memory Size: {invocation.memory} MB",
        f"Max Memory Used: {math.ceil(invocation.max_memory_mb)} MB",
    ]
    if invocation.init_ms is not None:
        fields.append(f"Init Duration: {invocation.init_ms:.2f} ms")
    status = _STATUS[invocation.failure.kind] if invocation.failure else ""
    if invocation.failure and status:
        fields.append(f"Status: {status}")
        fields += [f"Error Type: {invocation.failure.type}"] if status == "error" else []
    return "\t".join(fields)


def report_object(invocation: Invocation) -> str:
    """The same as one line of JSON."""
    failure = invocation.failure
    document = {
        "request_id": invocation.request_id,
        "duration_ms": round(invocation.duration_ms, 2),
        "billed_ms": invocation.billed_ms,
        "init_ms": None if invocation.init_ms is None else round(invocation.init_ms, 2),
        "memory_mb": invocation.memory,
        "max_memory_mb": math.ceil(invocation.max_memory_mb),
        "status": failure.kind if failure else "ok",
        "error": failure.message if failure else None,
    }
    return orjson.dumps(document).decode()
