"""The AWS Price List API: products of a service with their prices, as it has them.

Source: https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sampan.aws.session import Session, asked


def products(session: Session, service: str, filters: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    """Products of a service by their attributes, page by page; the API is in us-east-1.

    Raises:
        CloudError: it cannot be asked.
    """
    terms = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in filters.items()]
    with asked(f"asking the Price List for {service}"):
        pages = session.client("pricing").get_paginator("get_products").paginate(ServiceCode=service, Filters=terms)
        for page in pages:
            yield from map(json.loads, page["PriceList"])
