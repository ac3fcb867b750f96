"""The field's words in one sentence each: shown where the pointer rests on one."""

GLOSSARY = {
    "|V|": "the number of visual tokens: what images or video become before the language model",
    "|T|": "the number of text tokens",
    "S-Attn": "self-attention as the model has it: every token attends to all before it",
    "D-Attn": "decomposed attention: visual tokens no longer attend to each other, text attends"
    " to both; linear in |V|, and it needs training",
    "V2V": "the attention of visual tokens to each other, which D-Attn leaves out",
    "eager": "attention as plain matrix products that hold the whole |V| × |V| table in memory",
    "fused": "attention in one kernel that never holds the table: flash, cuDNN, FlexAttention",
    "cuDNN": "NVIDIA's fused attention kernel, on an H100 often the fastest",
    "chunk": "D-Attn's visual tokens pass the MLP in pieces of this many, which saves memory",
    "checkpoint": "activations are computed again in the backward in place of being kept",
    "ZeRO": "parameters, gradients and optimizer states are spread over the cards of a run",
    "MFU": "model FLOPs utilization: the model's FLOPs over the time and the card's peak; by"
    " allowed pairs it leaves out what the causal mask hides, dense counts all",
    "emulated": "one rank of many ran on one card; nothing was communicated",
    "power-capped": "the card's power limit held its clock, as it does under large matmuls",
    "host-bound": "the card waited for Python, so the seconds are not the method's",
    "cold": "timed without a warm-up",
}

MORE = {
    "cell": "one thing to run: a model, a system, a kernel, sizes and options; its key is the same"
    " on every machine",
    "sweep": "cells to measure or predict, usually over many |V|; a **run** is a sweep in one"
    " environment, a **record** the result of one cell in it, a **store** the file of all",
    "scope": "how much of a model a cell is: one decoder layer (`layer`), all layers with head and"
    " loss (`decoder`), or those with the vision tower and the adapter (`lvlm`)",
    "pass": "what an iteration does: `forward` (prefill), `train` (forward, backward and, of a"
    " whole decoder, the optimizer's step), `decode` (one token against a cache)",
    "prefill": "the forward pass over a whole prompt, before the first token is generated",
    "T2V, T2T": "the attention of text to visual tokens, and of text to text",
    "allowed pairs": "queries and keys that the causal mask lets meet; a dense count has them all",
    "GQA": "grouped-query attention: several query heads share one head of keys and values",
    "tower, adapter, LM head": "what turns images into features, features into visual tokens, and"
    " hidden states into logits",
    "reducer": "what leaves fewer visual tokens between the tower and the decoder",
    "threshold": "the largest |V| that ran and the smallest that ran out of memory; a bracket of"
    " both is told, no single number",
    "peak memory": "the most bytes that tensors held at once, without the device's context",
    "roofline": "the seconds that FLOPs and bytes take at the card's peaks: a lower bound",
    "calibrated": "predicted with rates that were fitted to measured records of the card",
    "held-out error": "how far predictions were from measured cells that the fit did not see",
    "extrapolated": "predicted for a cell unlike those that the rates were fitted to",
    "flag": "a reason to read a record's numbers with care, kept in it and shown beside them",
    "LoRA": "small trained matrices beside frozen weights",
    "offload": "tensors wait in the host's memory while the card does not need them",
    "ring, Ulysses": "ranks that share one sequence: by rows, or by heads",
    "memory cap": "a smaller card, emulated on a larger one",
}
"""Words of the command line and of these pages, in Markdown."""


def page() -> str:
    """docs/glossary.md."""
    parts = {
        "What the report and the dashboard show where the pointer rests on a word.": GLOSSARY,
        "Other words of the command line, the records and these pages.": MORE,
    }
    blocks = ["# Glossary"]
    for head, words in parts.items():
        blocks += [head, *(f"**{word}**: {meaning}." for word, meaning in words.items())]
    return "\n\n".join(blocks) + "\n"
