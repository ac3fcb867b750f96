"""SigLIP so400m/14 at 384 pixels, the tower of D-Attn's paper: any image becomes one square."""

from workbench.vision import VISIONS, FrontEnd

IMAGE_SIZE = 384
PATCH_SIZE = 14
GRID = IMAGE_SIZE // PATCH_SIZE


class SigLIP(FrontEnd):
    """27 × 27 patches of 14 pixels, no class token."""

    source = "https://huggingface.co/google/siglip-so400m-patch14-384 config.json"
    models = ("",)

    def tokens_of_image(self, width: int, height: int) -> int:
        return GRID**2


VISIONS.add("siglip", SigLIP())
