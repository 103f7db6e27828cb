"""Small random models of `transformers` whose text decoder stands beside other towers, by the type of their config."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING

SYMBOLS, TRAINED, TOWER = 320, 128, 9
_TEXT: dict[str, Any] = {
    "vocab_size": SYMBOLS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": TRAINED,
    "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
_SIGLIP = {"model_type": "siglip_vision_model", "image_size": 12, "patch_size": 4, **_TINY}
"""Nine patches: a table of positions with nine rows, which is none of the text's."""
_QWEN = {
    "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32, "patch_size": 4,
}  # fmt: skip
_QWEN_TOKENS = {"image_token_id": 300, "video_token_id": 303, "vision_start_token_id": 301, "vision_end_token_id": 302}


def multimodal_config(kind: str) -> Any:
    """The config of a type."""
    match kind:
        case "gemma3":
            text = {**_TEXT, "sliding_window": 32, "layer_types": ["sliding_attention", "full_attention"]}
            more = {"mm_tokens_per_image": 4, "image_token_index": 300, "boi_token_index": 301, "eoi_token_index": 302}
            return CONFIG_MAPPING[kind](text_config=text, vision_config={**_SIGLIP, "image_size": 28}, **more)
        case "llava":
            clip = {**_TINY, "model_type": "clip_vision_model", "image_size": 12, "patch_size": 4, "projection_dim": 16}
            return CONFIG_MAPPING[kind](
                text_config={"model_type": "llama", **_TEXT}, vision_config=clip, image_token_index=300
            )
        case "mistral3":
            pixtral = {**_TINY, "model_type": "pixtral", "image_size": 32, "patch_size": 8, "head_dim": 8}
            text = {"model_type": "mistral", **_TEXT}
            return CONFIG_MAPPING[kind](text_config=text, vision_config=pixtral, image_token_index=300)
        case "qwen2_5_vl":
            rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
            vision = {**_QWEN, "fullatt_block_indexes": [0]}
            text = {**_TEXT, "hidden_size": 64, "rope_parameters": rope}
            return CONFIG_MAPPING[kind](
                text_config=text, vision_config={**vision, "out_hidden_size": 64}, **_QWEN_TOKENS
            )
        case "qwen3_vl":
            vision = {**_QWEN, "num_position_embeddings": 16, "deepstack_visual_indexes": []}
            return CONFIG_MAPPING[kind](text_config=_TEXT, vision_config=vision, **_QWEN_TOKENS)
        case "qwen2_audio":
            audio = {
                "model_type": "qwen2_audio_encoder", "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2,
                "encoder_ffn_dim": 16, "num_mel_bins": 8, "max_source_positions": 16,
            }  # fmt: skip
            text = {"model_type": "qwen2", **{key: value for key, value in _TEXT.items() if key != "head_dim"}}
            return CONFIG_MAPPING[kind](text_config=text, audio_config=audio, audio_token_index=300)
        case "llama4":
            vision = {
                "hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                "image_size": 8, "patch_size": 4, "vision_output_dim": 16, "projector_input_dim": 16,
                "projector_output_dim": 16,
            }  # fmt: skip
            text = {
                **_TEXT, "num_hidden_layers": 4, "intermediate_size_mlp": 48, "num_local_experts": 2,
                "attention_chunk_size": 64,
            }  # fmt: skip
            return CONFIG_MAPPING[kind](text_config=text, vision_config=vision)
        case "mllama":
            vision = {
                "hidden_size": 16, "num_hidden_layers": 1, "num_global_layers": 1, "attention_heads": 2,
                "intermediate_size": 16, "vision_output_dim": 32, "image_size": 8, "patch_size": 4,
                "intermediate_layers_indices": [0], "supported_aspect_ratios": [[1, 1]],
            }  # fmt: skip
            text = {key: value for key, value in _TEXT.items() if key != "head_dim"}
            text |= {"cross_attention_layers": [1], "pad_token_id": 0}
            return CONFIG_MAPPING[kind](text_config=text, vision_config=vision, image_token_index=300)
        case "blip-2":
            text = {
                "model_type": "opt", "vocab_size": SYMBOLS, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2,
                "num_attention_heads": 4, "max_position_embeddings": TRAINED, "word_embed_proj_dim": 32,
            }  # fmt: skip
            former = {**_TINY, "vocab_size": SYMBOLS, "encoder_hidden_size": 16}
            vision = {"image_size": 12, "patch_size": 4, **_TINY}
            return CONFIG_MAPPING[kind](
                text_config=text, vision_config=vision, qformer_config=former, num_query_tokens=2, image_token_index=300
            )
    raise AssertionError(kind)


def multimodal(kind: str, folder: Path) -> Any:
    """A model as it is released: of the class for several modalities, random, saved, and returned."""
    config = multimodal_config(kind)
    if kind == "qwen2_audio":
        model = transformers.Qwen2AudioForConditionalGeneration(config)
    else:
        model = transformers.AutoModelForImageTextToText.from_config(config)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2, generator=draw)
    model.eval().save_pretrained(folder)
    return model
