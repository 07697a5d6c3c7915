"""Which methods may be part of one CUDA graph. The contract shows for each that it may; nothing but this shows that none was forgotten."""

from __future__ import annotations

from distillctl.plugin.registry import Registry

NOT = {
    "kdsvd",  # a small `eigh`
    "vkd",  # `linalg.solve`
}


def test_all_methods_but_those_that_wait_for_the_device_can_be_captured(registry: Registry) -> None:
    ours = [spec for spec in registry.methods if not spec.implementation.startswith("distillctl_example.")]
    assert len(ours) > 30
    assert {spec.name for spec in ours if not spec.capturable} == NOT
