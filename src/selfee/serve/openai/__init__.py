"""OpenAI's API: a chain as one block of reasoning and one answer, or as items; harmless where nobody looks for it."""
