"""`python -m backend`."""

import backend.data_commands  # noqa: F401  (adds its commands)
from backend.cli import app

app()
