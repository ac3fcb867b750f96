"""The dashboard's pages, one a file. Each exposes ``render()``; importing one draws nothing."""
