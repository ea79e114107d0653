"""The parameters of the pipeline: `params.yaml`, read strictly."""
