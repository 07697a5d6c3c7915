"""The example of the guide is no member of the workspace: its tests run here only where it is installed.

`tests/plugin/test_example_package.py` installs it and runs them.
"""

from importlib.util import find_spec

collect_ignore = [] if find_spec("distillctl_example") else ["example"]
