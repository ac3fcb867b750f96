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


def page() -> str:
    """docs/glossary.md."""
    words = [f"**{word}**: {meaning}." for word, meaning in GLOSSARY.items()]
    head = "What the report and the dashboard show where the pointer rests on a word."
    return "\n\n".join(["# Glossary", head, *words]) + "\n"
