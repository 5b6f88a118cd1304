"""What a device can do at most: the denominator of model FLOPs utilisation."""

import torch

PEAKS: dict[str, dict[str, float]] = {
    "B200": {"fp32": 75.0, "tf32": 1100.0, "bf16": 2250.0, "fp16": 2250.0, "fp8": 4500.0},
    "H200 NVL": {"fp32": 60.0, "tf32": 417.5, "bf16": 835.5, "fp16": 835.5, "fp8": 1671.0},
    "H200": {"fp32": 67.0, "tf32": 494.7, "bf16": 989.4, "fp16": 989.4, "fp8": 1978.9},
    "H100 PCIe": {"fp32": 51.0, "tf32": 378.0, "bf16": 756.0, "fp16": 756.0, "fp8": 1513.0},
    "H100 NVL": {"fp32": 60.0, "tf32": 417.5, "bf16": 835.5, "fp16": 835.5, "fp8": 1671.0},
    "H100": {"fp32": 67.0, "tf32": 494.7, "bf16": 989.4, "fp16": 989.4, "fp8": 1978.9},
    "A100": {"fp32": 19.5, "tf32": 156.0, "bf16": 312.0, "fp16": 312.0},
    "L40S": {"fp32": 91.6, "tf32": 183.0, "bf16": 362.05, "fp16": 362.05, "fp8": 733.0},
    "RTX 4090": {"fp32": 82.6, "tf32": 82.6, "bf16": 165.2, "fp16": 165.2, "fp8": 330.3},
    "RTX 3090": {"fp32": 35.6, "tf32": 35.6, "bf16": 71.0, "fp16": 71.0},
    "V100": {"fp32": 15.7, "fp16": 125.0},
    "T4": {"fp32": 8.1, "fp16": 65.0},
}
"""TFLOP/s without sparsity, accumulating in fp32, by a part of the device's name, the more special before the more general.

From NVIDIA's data sheets and architecture white papers: Blackwell, H200, H100, A100, L40S, Ada, GA102, V100, T4.
"""


def peak_tflops(device: str, mode: str) -> float | None:
    """Of one device, by its name and the precision mode of the run (`bf16_mixed`); None where no data sheet is known."""
    words = device.split()
    if "MIG" in words:  # a slice of a device
        return None
    for name, peaks in PEAKS.items():
        if all(any(word.partition("-")[0] == part for word in words) for part in name.split()):
            return peaks.get(mode.partition("_")[0])
    return None


def peak_of(device: torch.device, mode: str) -> float | None:
    """Of the device a run computes on; no data sheet speaks for a CPU."""
    return peak_tflops(torch.cuda.get_device_name(device), mode) if device.type == "cuda" else None
