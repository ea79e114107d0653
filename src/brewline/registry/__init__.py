"""Which model is put forward, when it is promoted, and what is served of it. No MLflow here."""
