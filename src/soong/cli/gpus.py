"""`soong gpus`: what soong knows of graphics cards."""

from __future__ import annotations

import click

from soong import units
from soong.cli import output, text
from soong.gpus.catalogue import all_gpus, find_gpu
from soong.offers.snapshot import offers_for

TERA = 10**12
GIGA = 10**9


@click.group(
    "gpus",
    invoke_without_command=True,
    epilog="\b\nExamples:\n  soong gpus\n  soong gpus info h100-80gb-sxm5\n",
)
@output.options
@click.pass_context
def command(ctx: click.Context, out: output.Output) -> None:
    """The GPUs soong knows: memory, bandwidth, number formats, price."""
    if ctx.invoked_subcommand is None:
        _list(out)


@command.command("list", epilog="\b\nExamples:\n  soong gpus list\n  soong gpus list --json\n")
@output.options
def list_command(out: output.Output) -> None:
    """All GPUs, smallest memory first."""
    _list(out)


@command.command(
    "info", epilog="\b\nExamples:\n  soong gpus info a6000-48gb\n  soong gpus info gh200-96gb --json\n"
)
@click.argument("gpu")
@output.options
def info(gpu: str, out: output.Output) -> None:
    """Everything known of one GPU, with its source."""
    found = find_gpu(gpu)
    out.answer(data=lambda: found, ids=[found.id], human=lambda: _details(found.id))


def _list(out: output.Output) -> None:
    gpus = sorted(all_gpus(), key=lambda gpu: (gpu.memory_bytes, gpu.id))
    cheapest = {gpu.id: _price(gpu.id) for gpu in gpus}
    out.answer(
        data=lambda: gpus,
        ids=[gpu.id for gpu in gpus],
        human=lambda: text.table(
            ["ID", "GPU", "Memory", "Bandwidth", "Computes", "Per GPU-hour from"],
            [
                [
                    gpu.id,
                    gpu.name,
                    units.format_gib(gpu.memory_bytes),
                    f"{gpu.bandwidth_bytes_per_second / GIGA:,.0f} GB/s",
                    " ".join(gpu.native_formats),
                    cheapest[gpu.id],
                ]
                for gpu in gpus
            ],
            title="GPUs",
            right=(2, 3),
        ),
    )


def _price(gpu_id: str) -> str:
    best = min(offers_for(gpu_id), key=lambda offer: offer.usd_per_hour / offer.gpu_count, default=None)
    if best is None:
        return "no price"
    return f"${best.usd_per_hour / best.gpu_count:.2f} {best.cloud} {best.gpu_count}x {best.as_of}"


def _details(gpu_id: str) -> str:
    gpu = find_gpu(gpu_id)
    capability = ".".join(map(str, gpu.compute_capability)) if gpu.compute_capability else "not CUDA"
    link = gpu.interconnect_bytes_per_second
    lines = [
        f"{gpu.name} ({gpu.label_gb} GB)",
        "",
        f"ID:                 {gpu.id}",
        f"Memory:             {units.format_gib(gpu.memory_bytes)} as the driver reports it",
        f"Bandwidth:          {gpu.bandwidth_bytes_per_second / GIGA:,.0f} GB/s",
        *(f"Dense {name + ':':<13} {flops / TERA:,.1f} TFLOP/s" for name, flops in gpu.dense_flops.items()),
        f"Compute capability: {capability}",
        f"Computes:           {', '.join(gpu.native_formats)}",
        f"Interconnect:       {gpu.interconnect}" + (f", {link / GIGA:,.0f} GB/s" if link else ""),
        f"Host:               {gpu.cpu_architecture}",
        f"Price per GPU-hour: {_price(gpu.id)}",
        f"Source:             {gpu.source} ({gpu.as_of})",
    ]
    return "\n".join(lines)
