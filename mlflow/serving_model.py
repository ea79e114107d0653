"""The served model as MLflow runs it (models-from-code); see `brewline.registry.serving`."""

import json
from pathlib import Path
from typing import Any

import pandas
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

from brewline.registry.serving import QueryError, load_bundle


class BadRequestError(MlflowException):
    """Answered with 400 and the sentence alone.

    MLflow's server puts what was sent before the message of an error, and sends it all back.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, error_code=INVALID_PARAMETER_VALUE)
        self._sentence = sentence

    def serialize_as_json(self) -> str:
        """The body of the answer."""
        return json.dumps({"error_code": self.error_code, "message": self._sentence})


class SpeechImageModel(PythonModel):
    """Recordings, pictures or texts in; ids with scores, or embeddings, out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the model from the artifacts of its version."""
        self._served = load_bundle(Path(context.artifacts["bundle"]))

    def predict(
        self,
        context: PythonModelContext,
        model_input: pandas.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Answers a table of queries; see `brewline.registry.serving.Served.answer`."""
        try:
            return self._served.answer(model_input.to_dict("records"), int((params or {})["top_k"]))
        except QueryError as error:
            raise BadRequestError(str(error)) from None


set_model(SpeechImageModel())
