"""A training as a job of a cluster: what is asked of it, what runs in it, and how it is handed over through submitit."""
