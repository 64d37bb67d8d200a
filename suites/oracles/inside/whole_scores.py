"""Log-probabilities of every token by a whole model of transformers', all its weights in memory.

A script of the engine's interpreter; it imports nothing of ours.

    whole_scores.py DOCUMENTS.json {CHECKPOINT OUT.npz}…

DOCUMENTS are by checkpoint a list of {"text", "image"}: with an image's path, the text is said in a
chat that shows it. OUT has for document i `ids i` [tokens] and `logprobs i`
[tokens - 1, vocabulary]. A checkpoint is dense; its file may hold float32.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image


def asked(processor: Any, document: dict[str, Any]) -> dict[str, Any]:
    if document["image"] is None:
        # Of a processor the text's tokenizer; a tokenizer is one itself.
        tokenizer = getattr(processor, "tokenizer", processor)
        return {"input_ids": torch.tensor([tokenizer(document["text"])["input_ids"]])}
    content = [{"type": "image"}, {"type": "text", "text": document["text"]}]
    message = [{"role": "user", "content": content}]
    prompt = processor.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    image = Image.open(document["image"]).convert("RGB")
    return dict(processor(text=[prompt], images=[image], return_tensors="pt"))


def run(checkpoint: Path, documents: list[dict[str, Any]], out: Path) -> None:
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    sees = hasattr(config, "vision_config")
    kind = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
    model = kind.from_pretrained(checkpoint, dtype=torch.float32).eval()
    reader = transformers.AutoProcessor if sees else transformers.AutoTokenizer
    processor = reader.from_pretrained(checkpoint)
    found = {}
    for index, document in enumerate(documents):
        inputs = asked(processor, document)
        with torch.inference_mode():
            logits = model(**inputs, use_cache=False).logits[0, :-1].double()
        found[f"ids {index}"] = inputs["input_ids"][0].numpy()
        found[f"logprobs {index}"] = logits.log_softmax(-1).numpy()
    np.savez(out, **found)


if __name__ == "__main__":
    listed, *paths = sys.argv[1:]
    documents = json.loads(Path(listed).read_text())
    for directory, out in zip(paths[::2], paths[1::2], strict=True):
        run(Path(directory), documents[directory], Path(out))
