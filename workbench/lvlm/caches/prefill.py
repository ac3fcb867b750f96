"""Keys and values that a prefill leaves: held by each layer until the next forward begins."""

from torch import Tensor


class PrefillCache:
    """What one layer keeps."""

    def __init__(self) -> None:
        self.tensors: tuple[Tensor, ...] = ()

    def keep(self, *tensors: Tensor) -> None:
        """Hold these beside those of this forward."""
        self.tensors = (*self.tensors, *tensors)

    def keep_last(self, tokens: int, *tensors: Tensor) -> None:
        """Hold the last ``tokens`` of each [B, G, n, K]: a copy where that is not all of them."""
        self.keep(
            *(
                x if x.shape[2] <= tokens else x[:, :, x.shape[2] - tokens :].clone()
                for x in tensors
            )
        )

    def clear(self) -> None:
        """Let them go."""
        self.tensors = ()
