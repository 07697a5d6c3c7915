"""Declares `crd`."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1


@hookimpl
def register_method() -> MethodSpec:
    """Contrastive representation distillation."""
    return MethodSpec(
        name="crd",
        kind="features",
        reads=("labels",),
        mixed="refused",
        summary="tell the image's own teacher embedding from those of thousands of other images",
        paper="Tian, Krishnan, Isola 2020, arXiv 1910.10699",
        title="Contrastive Representation Distillation",
        authors="Tian, Yonglong and Krishnan, Dilip and Isola, Phillip",
        venue="ICLR",
        implementation="distillctl_crd.method:CRD",
        options="distillctl_crd.options:CRDOptions",
        formula="−mean_B Σ_{both sides} [log o₀/(o₀ + K/N) + Σ_k log (K/N)/(o_k + K/N)], o = exp(⟨bank row, v⟩/τ)/Z",
        weight=0.8,
        task_weight=1.0,
        compares_images=True,
        remembers_images=True,
        capturable=True,
    )
