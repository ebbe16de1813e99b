"""Look a local machine over: its GPUs must compute."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING

from soong.errors import TimedOutError
from soong.launch import finding
from soong.launch.starting import MachineUnfitError

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.clouds.local.provider import LocalProvider
    from soong.launch.provider import Instance
    from soong.lease.ledger import Rental

CUDA_SECONDS = 120.0


class LocalProber:
    """Probes without SSH; implements `launch.starting.Prober`.

    Args:
        provider: this computer.
    """

    def __init__(self, provider: LocalProvider) -> None:
        self.provider = provider

    def probe(self, rental: Rental, tell: Callable[[str], None]) -> Instance:
        """The machine, when its GPUs compute.

        Raises:
            MachineUnfitError: it is gone already, or a real CUDA call fails.
        """
        seen = [one for one in finding.of_rental(rental, self.provider.instances()) if one.is_billing]
        if not seen:
            raise MachineUnfitError("the machine is gone before it was ready", stage="address")
        if self.provider.hardware.cards:
            tell("asking the GPU")
            tell(self._computing(seen[0].id, rental.gpu_count))
        return seen[0]

    def _computing(self, instance_id: str, gpu_count: int) -> str:
        script = resources.files("soong.connect.remote").joinpath("cuda_check.py").read_bytes()
        try:
            ran = self.provider.machine(instance_id).run(["python3", "-"], stdin=script, seconds=CUDA_SECONDS)
            found = json.loads(ran.out)
        except (TimedOutError, ValueError):
            raise MachineUnfitError("the GPU does not answer", stage="cuda") from None
        gpus = found.get("gpus") or []
        if len(gpus) < gpu_count:
            why = found.get("error") or f"{len(gpus)} of {gpu_count} GPUs answer"
            raise MachineUnfitError("the GPU does not compute", stage="cuda", why=why)
        return f"{len(gpus)} × {gpus[0]['name']} compute{'s' if len(gpus) == 1 else ''}"
