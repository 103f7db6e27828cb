"""A tiny config of every kind of causal language model that `transformers` has, from what its config class asks for."""

from typing import Any

from transformers import CONFIG_MAPPING

SYMBOLS, POSITIONS = 320, 128

_SMALL: dict[str, Any] = {
    # Sizes by the names that configs have for them; a config gets those that it has.
    **dict.fromkeys(("vocab_size", "n_words", "vocab_size_per_layer_input"), SYMBOLS),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), POSITIONS),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim"), 64),
    **dict.fromkeys(("intermediate_size", "n_inner", "decoder_ffn_dim", "encoder_ffn_dim", "ffn_dim", "d_inner"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "type_vocab_size", "index_n_heads", "linear_num_key_heads"), 2),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "mamba_expand"), 2),
    **dict.fromkeys(("head_dim", "v_head_dim", "index_head_dim", "linear_key_head_dim", "linear_value_head_dim"), 16),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 32),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts"), 4),
    **dict.fromkeys(("n_group", "num_expert_group", "topk_group", "first_k_dense_replace", "mamba_n_groups"), 1),
    **dict.fromkeys(("decoder_layerdrop", "encoder_layerdrop"), 0.0),
    **dict.fromkeys(("sliding_window", "index_topk"), 64),
    **dict.fromkeys(("mamba_d_state", "state_size", "mamba_d_head"), 16),
    **dict.fromkeys(("mamba_dt_rank", "time_step_rank", "mamba_n_heads", "hidden_size_per_layer_input"), 8),
    **dict.fromkeys(("linear_num_value_heads", "linear_num_heads", "linear_conv_kernel_dim"), 4),
    "linear_head_dim": 16,
    "n_shared_experts": 1,
    "mamba_chunk_size": 32,
    "is_decoder": True,
    "pad_token_id": None,
    "bos_token_id": 256,
    "eos_token_id": 257,
}

_LEFT_OUT = object()
"""In place of a size: the config's own rule for it."""

_LATENT = {"head_dim": _LEFT_OUT, "num_key_value_heads": 4}
"""Attention from latent vectors derives the width of a head."""

_PADDED = {"pad_token_id": 1}
"""Counts positions from the padding token on."""

_OWN: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite"), _LATENT),
    **dict.fromkeys(("glm_moe_dsa", "minicpm3", "youtu"), _LATENT),
    **dict.fromkeys(("camembert", "data2vec-text", "modernbert-decoder", "prophetnet", "roberta"), _PADDED),
    **dict.fromkeys(("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl"), _PADDED),
    "xmod": {**_PADDED, "default_language": "en_XX"},
    "bailing_hybrid": {**_LATENT, "head_dim": 8},
    "longcat_flash": {
        **_LATENT, "head_dim": 8, "ffn_hidden_size": 64, "expert_ffn_hidden_size": 32, "zero_expert_num": 2,
    },
    "bamba": {"num_hidden_layers": 4, "attn_layer_indices": [1, 3]},
    "codegen": {"rotary_dim": 8},
    "cohere2": {"num_hidden_layers": 4},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "cpmant": {"prompt_length": 4, "dim_head": 16, "dim_ff": 64},
    "dbrx": {
        "max_seq_len": POSITIONS, "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4},
    },
    "dots3_note_text": {"num_key_value_heads": 4},
    "exaone4": {"num_hidden_layers": 4},
    "falcon_h1": {"mamba_d_ssm": 128},
    "gemma2": {"num_hidden_layers": 4},
    "gemma3_text": {"num_hidden_layers": 4, "layer_types": 2 * ["sliding_attention", "full_attention"]},
    "gemma3n_text": {
        "num_hidden_layers": 5, "num_kv_shared_layers": 0, "laurel_rank": 8, "altup_num_inputs": 2,
        "hidden_size_per_layer_input": 16, "activation_sparsity_pattern": 5 * [0.0],
        "layer_types": 4 * ["sliding_attention"] + ["full_attention"],
    },
    "gemma4_text": {
        "num_hidden_layers": 4, "num_kv_shared_layers": 0, "global_head_dim": 32, "hidden_size_per_layer_input": 16,
        "layer_types": 3 * ["sliding_attention"] + ["full_attention"],
    },
    "git": {
        "vision_config": {
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 8, "patch_size": 4,
        }
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 64},
    "gptj": {"rotary_dim": 8},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 4, "attn_layer_offset": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "llama4_text": {"num_hidden_layers": 4, "intermediate_size_mlp": 64, "attention_chunk_size": 64},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 2, "chunk_size": 32},
    "mpt": {"max_seq_len": POSITIONS, "expansion_ratio": 2},
    "nemotron_h": {
        "mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 1, "chunk_size": 32,
    },
    "qwen3_next": {"num_hidden_layers": 4, "layer_types": 3 * ["linear_attention"] + ["full_attention"]},
    "recurrent_gemma": {"num_hidden_layers": 3, "attention_window_size": 64, "lru_width": 64},
    "reformer": {
        "axial_pos_embds_dim": [16, 48], "axial_pos_shape": [16, 8], "feed_forward_size": 64,
        "attn_layers": ["local", "local"], "attention_head_size": 16, "pad_token_id": 0,
    },
    "roc_bert": {
        "pronunciation_vocab_size": 20, "shape_vocab_size": 20, "pronunciation_embed_dim": 8, "shape_embed_dim": 8,
    },
    "smollm3": {"num_hidden_layers": 4},
    "xlm": {"causal": True, "pad_token_id": 2},
    "xlnet": {"d_head": 16},
    "zamba": {
        "num_hidden_layers": 6, "attn_layer_period": 3, "attn_layer_offset": 2, "attention_hidden_size": 128,
        "attention_head_dim": 32, "layers_block_type": _LEFT_OUT, "use_mamba_kernels": False,
    },
    "zamba2": {
        "num_hidden_layers": 4, "layers_block_type": 2 * ["mamba", "hybrid"], "n_mamba_heads": 8, "mamba_headdim": 16,
        "use_mamba_kernels": False, "num_key_value_heads": 4, "chunk_size": 32,
    },
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}  # fmt: skip


def tiny_config(kind: str) -> Any:
    """A config of this `model_type` with sizes that a test can run.

    Raises:
        whatever the config class raises where these sizes do not fit it.
    """
    config_class = CONFIG_MAPPING[kind]
    known = config_class().to_dict()
    sizes = {name: value for name, value in _SMALL.items() if name in known}
    if "sliding_window" in known and known["sliding_window"] is None:
        del sizes["sliding_window"]  # off unless somebody turns it on
    sizes |= _OWN.get(kind, {})
    return config_class(**{name: value for name, value in sizes.items() if value is not _LEFT_OUT})
