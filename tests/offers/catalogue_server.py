"""gpuhunt's catalogue on this machine: the files that its makers publish, written by its own writer, over real HTTP.

Layout, gpuhunt 0.1.34 `_internal/catalog.py`: `/v3/PROVIDER/version` names the newest version, and
`/v3/PROVIDER/VERSION/catalog.zip` holds `PROVIDER.csv`.
"""

from __future__ import annotations

import io
import zipfile
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from gpuhunt import AcceleratorVendor, CatalogItem, CPUArchitecture  # type: ignore[import-untyped]
from gpuhunt._internal import storage  # type: ignore[import-untyped]

from tests.support.hub_server import Reply, Server
from tests.support.loopback import Loopback

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VERSION = "20261122-1042"
PROVIDERS = ("aws", "azure", "verda", "gcp", "lambdalabs", "nebius", "oci", "runpod", "cloudrift")


def item(
    instance_name: str,
    gpu_name: str,
    gpu_memory: float,
    price: float,
    *,
    count: int = 1,
    location: str = "us",
    **more: Any,
) -> CatalogItem:
    """A row of a catalogue; the provider is the file's name."""
    fields: dict[str, Any] = {
        "cpu": 8,
        "memory": 64.0,
        "gpu_vendor": AcceleratorVendor.NVIDIA if count else None,
        "spot": False,
        "disk_size": None,
    }
    return CatalogItem(
        provider="",
        instance_name=instance_name,
        location=location,
        price=price,
        gpu_count=count,
        gpu_name=gpu_name or None,
        gpu_memory=gpu_memory or None,
        **(fields | more),
    )


ITEMS: dict[str, list[CatalogItem]] = {
    "aws": [
        item("p5.48xlarge", "H100", 80, 55.04, count=8, location="us-east-1"),
        item("p5.48xlarge", "H100", 80, 60.5, count=8, location="eu-west-1"),
        item("p5.48xlarge", "H100", 80, 21.3, count=8, location="us-east-1", spot=True),
        item("g6f.large", "L4", 2.79, 0.2),
        item("m5.large", "", 0, 0.1, count=0),
    ],
    "azure": [
        item("Standard_NC24ads_A100_v4", "A100", 80, 3.673, location="eastus"),
        item("Standard_NC6s_v3", "V100", 16, 3.06, location="eastus"),
    ],
    "verda": [item("1A100.22V", "A100", 80, 1.29, location="FIN-01")],
    "gcp": [
        item("a2-highgpu-1g", "A100", 40, 3.67, location="us-central1-a"),
        item("v5e", "v5litepod", 0, 1.2, gpu_vendor=AcceleratorVendor.GOOGLE),
    ],
    "lambdalabs": [
        item("gpu_1x_a10", "A10", 24, 1.49, location="us-east-1"),
        item("gpu_1x_a10", "A10", 24, 1.49, location="us-west-1"),
        item("gpu_1x_gh200", "GH200", 96, 2.49, cpu_arch=CPUArchitecture.ARM, flags=["lambda-arm"]),
    ],
    "nebius": [item("gpu-h100-sxm 1gpu-16vcpu-200gb", "H100", 80, 3.85, location="eu-north1")],
    "oci": [item("BM.GPU4.8", "A100", 40, 24.4, count=8)],
    "runpod": [
        item("NVIDIA H100 80GB HBM3", "H100", 80, 2.79, location="US"),
        item("NVIDIA H100 80GB HBM3", "H100", 80, 22.32, count=8, location="US"),
        item("NVIDIA H100 80GB HBM3", "H100", 80, 9.0, count=8, location="CA", flags=["runpod-cluster"]),
    ],
    "cloudrift": [item("rtx49-7c-kn.1", "RTX4090", 24, 0.39)],
}


class CatalogueServer(Server):
    """Serves `ITEMS` until a test says otherwise; a context manager."""

    def publish(self, folder: Path, items: dict[str, Sequence[CatalogItem]] | None = None) -> None:
        """Put every provider's files up.

        Args:
            folder: where the CSV files are written on the way. items: in place of `ITEMS`.
        """
        for provider in PROVIDERS:
            rows = (items if items is not None else ITEMS).get(provider, [])
            self.on(f"/v3/{provider}/version", Reply(body=f"{VERSION}\n".encode()))
            self.on(f"/v3/{provider}/{VERSION}/catalog.zip", Reply(body=_zipped(folder, provider, rows)))

    @property
    def catalogue_url(self) -> str:
        """What GPUHUNT_CATALOG_URL is to be."""
        return f"{self.url}/v3"


def _zipped(folder: Path, provider: str, rows: Sequence[CatalogItem]) -> bytes:
    csv = folder / f"{provider}.csv"
    storage.dump(rows, str(csv))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(csv, csv.name)
    return packed.getvalue()


class Marketplace(Loopback):
    """A marketplace that is asked by POST and always answers the same; a context manager."""

    def __init__(self, status: int, body: bytes = b"") -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
                """Say nothing."""

        super().__init__(Handler)
