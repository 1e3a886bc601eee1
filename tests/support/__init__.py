"""What several tests need: models, slow versions of what is tested, scripts for other processes."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
