"""The engine: supervises vLLM and swaps every new version of the weights into it."""
