"""Folders of Hugging Face and Meta models: tensors, configuration, tokenizer. Reads them, writes them, runs nothing."""
