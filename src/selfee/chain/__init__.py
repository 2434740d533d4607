"""The heart: answer, feedback, revision. The only home of the text format, the verdict and the stop rule."""
