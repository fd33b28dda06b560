"""Division of a model among ranks: by FSDP2, block by block, or by a tensor-parallel plan."""
