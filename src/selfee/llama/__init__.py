"""How the model thinks: tokens in, logits out. Never knows where weights come from or what the text means."""
