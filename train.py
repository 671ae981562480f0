"""Train a LoRA adapter on a frozen base, and prove what it learned.

Run as:
    python train.py
    python train.py precision=bf16-mixed epochs=5
    python train.py model=hf model.path=DIR data=jsonl data.train=FILE
    python train.py -m lr=1e-4,1e-3 lora.rank=4,16
"""

import sys

from graftlab.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]], call="python train.py"))
