"""Rollouts: groups of answers to verifiable tasks, sampled where the engines have time left.

    tasks.jsonl ──> schedule ──> desk ── asks ──> engine (vLLM) ── answers ──> desk
                                  ^ metrics of the engines                      │ whole groups
                                  │                                             v
    [ Kafka ] <── prompts, outputs, feedback <── book (kept until acknowledged) <── scores

The records are those of the gateway and the graders, so rewards and trainer need not know that no
user was there. The pure core is :mod:`.desk`; :mod:`.rollouts` owns HTTP, Kafka and the clock.
"""
