"""SelFee's training script by its old name: `torchrun --nproc_per_node=4 train/train_mem.py …` in this folder's parent.

The flags are those of 2023; docs/guides/train.md shows the line and what became of each.
"""

from selfee.cli.training.seed import main

if __name__ == "__main__":
    main()
