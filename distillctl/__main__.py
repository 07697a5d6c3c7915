"""`python -m distillctl`, which launchers such as torchrun need."""

from distillctl.cli import main

if __name__ == "__main__":
    main()
