"""Neuron selectivity transfer, a distillctl plugin."""
