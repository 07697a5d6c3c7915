"""The room of plugin authors: everything here is re-exported by `distillctl` and nothing else may be imported by plugins."""
