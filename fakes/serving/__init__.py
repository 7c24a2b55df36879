"""The serving image without containers: vLLM for CPU in an environment of its own, and the image's program in it."""
