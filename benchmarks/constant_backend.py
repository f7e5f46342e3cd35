"""Serve a bare label-studio-ml backend with constant predictions, the baseline of `serving`."""

from __future__ import annotations

import os
import sys
from typing import Any

from label_studio_ml.api import init_app
from label_studio_ml.model import LabelStudioMLBase

from backend.settings import Settings
from backend.web.server import WebServerPlan, serve_application

RESULT = {
    "model_version": "bare",
    "score": 0.9,
    "result": [
        {
            "id": "bare",
            "from_name": "sentiment",
            "to_name": "text",
            "type": "choices",
            "value": {"choices": ["Positive"]},
            "score": 0.9,
        }
    ],
}


class ConstantBackend(LabelStudioMLBase):  # type: ignore[misc]
    """Predicts the same for every task and stores nothing."""

    def predict(self, tasks: list[Any], **kwargs: Any) -> list[dict[str, Any]]:
        """Return the same prediction for each task."""
        return [RESULT for _ in tasks]

    def fit(self, tasks: Any, workdir: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Do nothing."""
        return {}


if __name__ == "__main__":
    app = init_app(model_class=ConstantBackend, model_dir=os.environ["MODEL_DIR"])
    settings = Settings()
    serve_application(
        app.wsgi_app,
        WebServerPlan(settings.host, int(sys.argv[1]), settings.web_threads, 2**26),
    )
