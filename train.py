"""Trains a recipe: `python train.py --config configs/vit_digits.py --workdir runs/vit`."""

import sys

from zoo.cli import guard, train

if __name__ == "__main__":
    sys.exit(guard(train, sys.argv[1:]))
