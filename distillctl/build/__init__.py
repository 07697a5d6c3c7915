"""From a checked profile to an experiment that is ready to run."""
