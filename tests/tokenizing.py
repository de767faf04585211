"""Small tokenizers of every make that models come with, and tiny Llamas that read them."""

from __future__ import annotations

from functools import cache

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from editlab.model.model import EditableModel

MAKES = ("byte-level", "byte-level with BOS and EOS", "metaspace", "metaspace with EOS", "prepend", "prepend with BOS")
SENTENCES = [
    "The Eiffel Tower is located in the city of Paris, and Rome is the capital of Italy.",
    "The mother tongue of Danielle Darrieux is French. She said: it is English; it isn't.",
    "法国的首都是巴黎。意大利的首都是罗马。",
    "Zürich lies in Switzerland, and 1990 was a year like 2024.",
] * 8
SPECIAL = ["<unk>", "<s>", "</s>"]


@cache
def tokenizer_of(make: str) -> PreTrainedTokenizerFast:
    kind = make.split(" with ")[0]
    if kind == "byte-level":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
        tokenizer.train_from_iterator(SENTENCES, trainer)
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
        tokens_of_bytes = [AddedToken(f"<0x{byte:02X}>", special=False) for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=[*SPECIAL, *tokens_of_bytes])
        tokenizer.train_from_iterator(SENTENCES, trainer)
        tokenizer = Tokenizer.from_str(_without_bytes_as_added_tokens(tokenizer))
        if kind == "metaspace":
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        else:
            tokenizer.pre_tokenizer = None
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    start, end = ("<s> " if "BOS" in make else ""), (" </s>" if "EOS" in make else "")
    if start or end:
        numbers = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
        tokenizer.post_processor = processors.TemplateProcessing(f"{start}$A{end}", special_tokens=numbers)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def _without_bytes_as_added_tokens(tokenizer: Tokenizer) -> str:
    import json

    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in SPECIAL]
    return json.dumps(content)


def model_of(make: str, n_positions: int = 256) -> EditableModel:
    """A tiny Llama of random weights, with a tokenizer of this make."""
    tokenizer = tokenizer_of(make)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=n_positions,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return EditableModel(LlamaForCausalLM(config).float(), tokenizer, f"tiny, {make}")
