"""What runs inside vLLM's own processes. Only vLLM imports it; nothing of tailrace does.

:mod:`~tailrace.plugins.vllm` is the ``vllm.general_plugins`` entry point,
:mod:`~tailrace.plugins.transfer` loads a version's weights into the running model,
:mod:`~tailrace.plugins.admin` is the ASGI middleware that keeps the admin routes closed.
"""
