"""Gemma 3: 256 tokens for the whole image, and 256 for each crop of a long one (pan and scan)."""

from math import ceil, floor

from workbench.vision import VISIONS, FrontEnd

TOKENS_A_CROP = 256
MIN_CROP = 256
MAX_CROPS = 4
MIN_RATIO = 1.2


class Gemma3(FrontEnd):
    """Each crop is resized to 896 × 896 and its 64 × 64 patches are averaged to 16 × 16."""

    source = (
        "Gemma 3, arXiv 2503.19786; the limits of pan and scan are the defaults of Gemma3Processor"
        " in transformers"
    )
    models = ("gemma-3", "gemma3")

    def num_crops(self, width: int, height: int) -> int:
        """Crops along the longer edge; 0 where the image is nearly square or too small."""
        long, short = max(width, height), min(width, height)
        if long / short < MIN_RATIO:
            return 0
        wanted = min(floor(long / MIN_CROP), floor(long / short + 0.5))
        count = min(MAX_CROPS, max(2, wanted))
        return 0 if min(ceil(long / count), short) < MIN_CROP else count

    def tokens_of_image(self, width: int, height: int) -> int:
        return TOKENS_A_CROP * (1 + self.num_crops(width, height))


VISIONS.add("gemma-3", Gemma3())
