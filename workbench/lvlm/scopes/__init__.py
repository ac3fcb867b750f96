"""What a cell spans: one layer, the decoder, the whole vision-language model. One file each."""
