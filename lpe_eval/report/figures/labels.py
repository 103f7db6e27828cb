"""What figures write on their axes: one name for each quantity."""

LABELS: dict[str, str] = {
    "length": "evaluation length (tokens)",
    "perplexity": "perplexity",
    "nll_nats": "loss (nats per token)",
    "bits_per_byte": "bits per byte",
    "regret_nats": "nats per token above the optimum",
    "change": "change of the loss (nats per token)",
    "step": "training step",
    "context": "context of the target (tokens)",
    "train_length": "train length",
    "times_plain": "time (plain causal attention = 1)",
    "pass_memory_mib": "memory of a pass (MiB)",
    "speed_length": "length (tokens)",
    "input_length": "input length (tokens)",
    "accuracy": "accuracy (%)",
    "exact_match": "answers all right (%)",
    "train_range": "lengths in training",
    "distance": "distance of the key (tokens)",
    "added": "added by position (nats)",
}
