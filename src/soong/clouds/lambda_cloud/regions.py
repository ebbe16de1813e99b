"""The regions of Lambda Cloud. Its API names one only where something is free, so a full one is not listed."""

from __future__ import annotations

REGIONS = (
    "us-east-1",
    "us-west-1",
    "us-west-2",
    "us-west-3",
    "us-south-2",
    "us-south-3",
    "us-midwest-1",
    "europe-central-1",
    "asia-south-1",
    "asia-northeast-1",
    "asia-northeast-2",
    "me-west-1",
    "australia-east-1",
)
"""As Lambda's instance-types answer of 2025-11-22 names them; one that is listed live counts as well."""
