"""The model card of a folder of files: facts from the files themselves, and the page that tells them."""
