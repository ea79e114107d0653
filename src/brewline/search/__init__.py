"""Pictures for a recording and recordings for a picture, by a trained model."""
