"""Valid structures that are then altered."""

from lpe_eval.model.checkpoint import LoadOptions

OPTIONS = LoadOptions()

MODEL = {"encoding": {"name": "dape", "hidden": 4, "base": {"name": "kerple_log"}}, "width": 16, "layers": 2,
         "heads": 2, "mlp_width": 32, "train_length": 32}  # fmt: skip
RUN = {"kind": "ppl", "models": ["alibi", "a=b"], "corpus": {"name": "local", "path": "a.txt", "split": "all"},
       "protocols": [{"name": "sliding", "stride": 4}, {"name": "anchored", "last_k": 2}], "lengths": [8, 16],
       "max_tokens": 99, "bos": "auto", "seed": 3, "batch_size": 4, "dtype": "float32", "rope_theta": 1e4}  # fmt: skip
TRAIN = {"kind": "train", "name": "a", "model": MODEL, "corpus": "python-stdlib", "steps": 9, "batch_tokens": 64,
         "learning_rate": 0.01, "seed": 1}  # fmt: skip
SPEED = {"kind": "speed", "encodings": ["alibi", MODEL["encoding"]], "lengths": [8], "modes": ["train"], "width": 16}
TASK = {"name": "task", "version": 1, "title": "t", "corpus": "python-stdlib", "protocols": [{"name": "last"}],
        "lengths": [8], "max_tokens": 99, "source": ""}  # fmt: skip
NEOX = {"num-layers": 2, "hidden-size": 16, "num-attention-heads": 2, "seq-length": 32, "pos-emb": "rotary",
        "attention-config": [[["global"], 2]], "vocab-file": "vocab.json", "norm": "layernorm"}  # fmt: skip
FLAGS = {"decoder_embed_dim": 16, "decoder_layers": 2, "decoder_attention_heads": 2, "tokens_per_sample": 32,
         "adaptive_input": True, "adaptive_input_cutoff": "9,21", "adaptive_softmax_cutoff": [9, 21],
         "tie_adaptive_weights": True, "activation_fn": "relu"}  # fmt: skip
CONFIG = {"model_type": "llama", "max_position_embeddings": 64, "rope_theta": 1e4, "rope_scaling": {"type": "yarn",
          "factor": 4.0}, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "alibi": False,
          "attn_config": {"alibi": True}, "no_rope_layers": [0, 1]}  # fmt: skip
