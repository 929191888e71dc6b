"""``python -m lowrank_utils report ...`` and ``python -m lowrank_utils compress ...``."""

from lowrank_utils.command.run import main

if __name__ == "__main__":
    raise SystemExit(main())
