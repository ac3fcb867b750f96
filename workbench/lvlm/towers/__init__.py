"""Vision towers: one file each. Images become visual embeddings.

A tower says which outer model types of a config.json it serves (``Tower.serves``), and a model of
the catalogue names its own; any other is refused. Text models take the paper's SigLIP and adapter,
and so does whoever asks for it by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from workbench.inputs.model_files import is_file_model, model_files
from workbench.lvlm.configs import silent
from workbench.lvlm.configs.packages import obstacle
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import PAPER
from workbench.lvlm.reduce import Reducer, TokenGrid
from workbench.lvlm.towers.built import check_left_out, tower_reason
from workbench.lvlm.weights.random import randomise
from workbench.visual import VISIONS, FrontEnd, Limits
from workbench.vocabulary.errors import RequestError, unknown_name
from workbench.vocabulary.registry import Registry

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor, nn

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved
    from workbench.lvlm.towers.glance import View

TOWERS: "Registry[type[Tower]]" = Registry("vision tower", __name__)
"""By the name that ``--tower`` and a model of the catalogue say; ``siglip`` is the paper's."""


Serves = Mapping[str, Collection[str]]
"""Outer model types of a config.json, and for each the model types of its vision_config."""


class Grid(NamedTuple):
    """Patches of one image, or of one video: steps in time, rows, columns."""

    steps: int
    rows: int
    columns: int
    seconds: float | None = None
    """Seconds between the steps of a video; None for an image."""
    tiles: tuple[int, int] | None = None
    """Rows and columns of the tiles that the patches lie in, where a tower sees an image so."""

    @property
    def patches(self) -> int:
        return prod(self[:3])


ANOTHER = (
    "is built on SigLIP's features, and the tower of {tower.front_end} is another; --tower siglip"
)
MERGED = (
    "keeps the width of SigLIP's features, but the tower of {tower.front_end} merges its patches "
    "into the decoder's width"
)
"""Reasons of several towers for ``without_adapter``."""


class Tower(ABC):
    """The tower and adapter of one model: which images it takes, what it runs, what it costs.

    ``grids`` are those of one sample; all samples of a batch are alike. FLOPs are of a forward of
    one sample.
    """

    serves: ClassVar[Serves] = {}
    """Whose config.json it belongs to; the paper's belongs to none."""
    unlisted: ClassVar[tuple[str, str] | None] = None
    """Module and name of transformers' class where its ``AutoModel`` lists none for the config."""
    other_names: ClassVar[Mapping[str, str]] = {}
    """By field of the config, the name under which published files state it."""
    requires: ClassVar[str] = ""
    """The package whose module it is, where that need not be installed (``packages.require``)."""
    front_end: str
    """The vision front end whose arithmetic turns the sizes of files into tokens."""
    whole: Any
    """transformers' configuration of the whole model."""
    config: Any
    """That of the tower in it."""
    hidden: int
    """The decoder's width."""
    image: Grid
    """The image that stands for |V| where no file is given."""
    patches_a_token: int = 1
    limits: Limits = Limits()
    """What a request asks of the front end."""

    def __init__(self, model: "Resolved") -> None:
        self.model = model

    def read_config(self) -> None:
        """Take ``whole``, ``config`` and ``hidden`` of the model whose config.json has the tower.

        Settings of the front end that make no sense are said first.
        """
        assert self.model.whole is not None, "chosen by its config"
        _ = self.own_front
        self.whole, self.hidden = self.model.whole, self.model.config.hidden_size
        self.config = self.whole.vision_config

    @cached_property
    def own_front(self) -> FrontEnd:
        """The front end under the settings of the model's files.

        Raises RequestError where they make no sense, so that a tower which reads the same fields
        of the configuration may ask for it first.
        """
        published, stated = VISIONS[self.front_end], self.model.stated
        if not is_file_model(self.model.name):
            return published.of_model(self.model.name)
        if not stated or not self.serves:
            return published  # Of no file: what a request asked for.
        if not published.serves(stated):
            raise RequestError(
                f"model {self.model.name!r}: how its config.json prepares images is not what "
                f"{self.front_end} does, the front end of its tower"
            )
        files = model_files(self.model.name).preprocessors()
        front = published.of_files(stated, files, self.model.name)
        check_left_out(self.model, front)
        return front

    @cached_property
    def front(self) -> FrontEnd:
        """The same with the request's limits."""
        return self.own_front.asked(self.limits)

    @property
    def flags(self) -> list[str]:
        """What a reader of its numbers should know, as a record's flags."""
        return []

    def tokens(self, grid: Grid) -> int:
        """Visual tokens of an image or a video."""
        return grid.patches // self.patches_a_token

    stacked: tuple[int, ...] = ()
    """The decoder's layers after which features of the tower are added to its visual rows
    (deepstack). The adapter then gives one tensor more for each, in this order."""

    added_token: int | None = None
    """The id to whose embedding every visual token is added; None where they take its place."""

    without_adapter: ClassVar[str] = ""
    """Why no system can keep its features as they are: words behind that system's name, in which
    ``{tower}`` is the tower. Empty where one can."""

    merges = False
    """Whether the adapter itself makes fewer tokens of the tower's, so that a reducer follows."""

    def view(self, module: "nn.Module") -> "View | None":
        """Where the built tower shows keys and importance of its patches; None if nowhere."""
        return None

    @property
    def head_size(self) -> int:
        """Width of a key of the tower."""
        heads = getattr(self.config, "num_attention_heads", None) or self.config.num_heads
        return int(self.config.hidden_size // heads)

    def glance_flops(self, grids: tuple[Grid, ...], needs: Sequence[str]) -> int:
        """Matmul FLOPs of what ``view`` shows."""
        return 0

    def of_tokens(self, values: "Tensor") -> "Tensor":
        """[images, patches, …] of what ``view`` shows -> [images, tokens, …]."""
        return values

    widens = False
    """Whether its adapter can be built for the features of several tokens side by side."""
    side_by_side: int = 1
    """Tokens whose features a reducer lays side by side before the adapter."""

    @property
    def feature_width(self) -> int:
        """Width of the tower's features."""
        return int(self.config.hidden_size)

    @property
    def entry_width(self) -> int:
        """Width of what enters the adapter."""
        return self.feature_width * self.side_by_side

    def weigh_adapter(
        self,
        context: "Context",
        module: "nn.Module",
        prefix: str,
        kind: str,
        name: str = "adapter",
    ) -> None:
        """As ``context.weigh_component``; an adapter that a reducer widens is in no checkpoint."""
        if self.side_by_side == 1:
            context.weigh_component(name, module, prefix, kind)
            return
        randomise(module)
        if context.checkpoint() is not None:
            context.flag(
                f"weights: random in the {name}: it reads {self.side_by_side} tokens side by "
                "side, which no checkpoint's does"
            )

    def token_grid(self, grid: Grid) -> TokenGrid:
        """The visual tokens of one image, or of one step of a video."""
        return TokenGrid.of(grid.rows, grid.columns)

    def token_grids(self, grids: Iterable[Grid]) -> tuple[TokenGrid, ...]:
        """The visual tokens of every image and of every step of the videos, in order."""
        return tuple(self.token_grid(grid) for grid in grids for _ in range(grid.steps))

    @property
    def tokens_each(self) -> int:
        """Visual tokens of the image that stands for |V|."""
        return self.tokens(self.image)

    def grids(self, num_visual: int) -> tuple[Grid, ...]:
        """The images that |V| stands for; raises RequestError with the nearest possible |V|."""
        count, rest = divmod(num_visual, self.tokens_each)
        if rest:
            below = count * self.tokens_each
            raise RequestError(
                f"num_visual {num_visual}: scope lvlm makes {self.tokens_each} tokens an image; "
                f"the nearest are {below} and {below + self.tokens_each}"
            )
        return (self.image,) * count

    @abstractmethod
    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> "tuple[nn.Module, nn.Module | None]":
        """Tower and adapter: pixels -> features -> embeddings, reshapeable to [B, V, W].

        Without ``adapter`` what maps to the decoder's width is left out (HiMix), which is asked
        only where there is no ``without_adapter``.
        """

    @abstractmethod
    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        """Shape of the tower's input for a batch."""

    @abstractmethod
    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        """Matmul FLOPs of the patch embedding, whose input, the pixels, needs no gradient."""

    @abstractmethod
    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        """Matmul FLOPs of the tower, patch embedding included."""

    @abstractmethod
    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        """Matmul FLOPs of the adapter."""

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        """Matmul FLOPs of the adapter that take the tower's features as they are.

        0 where a norm comes first: while that is trained, its output needs a gradient.
        """
        return 0

    @abstractmethod
    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        """What an image of that many pixels becomes: itself and, for some towers, crops."""

    def of_images(self, sizes: Sequence[tuple[int, int]]) -> list[tuple[Grid, ...]]:
        """What images become that one sample shows, of these widths and heights."""
        return [self.of_image(width, height) for width, height in sizes]

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        """What frames sampled at ``fps`` become: an image each."""
        return (self.of_image(width, height),) * num_frames

    @abstractmethod
    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> "Tensor":
        """The input of one sample from its images, or from so many frames of a video, float32."""

    has_positions = False
    """Whether ``positions`` gives any."""

    def reduced(self, grid: Grid, reducer: Reducer) -> Grid:
        """What a reducer leaves of an image or a video, in patches."""
        reduced_grid = reducer.grid(self.token_grid(grid))
        assert reduced_grid.rows is not None, "a reducer that keeps grids"
        assert reduced_grid.columns is not None, "a reducer that keeps grids"
        side = int(self.patches_a_token**0.5)
        return grid._replace(rows=reduced_grid.rows * side, columns=reduced_grid.columns * side)

    def positions(self, layout: Layout, grids: tuple[Grid, ...]) -> "torch.Tensor | None":
        """Positions of the whole sequence other than indices, int64 [3, S]; None for indices."""
        return None


def tower_of(model: "Resolved", asked: str | None = None, limits: Limits | None = None) -> Tower:
    """The tower of a model, or the one that is asked for by name (a cell's ``tower``).

    Raises RequestError where the config's tower is none of those here.
    """
    name = own_tower(model) if asked is None else _named_tower(model, asked)
    if model.stated:
        _try(model, name)
    tower = TOWERS[name](model)
    if limits is not None:
        tower.limits = limits
    return tower


def own_tower(model: "Resolved") -> str:
    """The name of the tower that the model's entry or its config.json says.

    Raises RequestError where the config's is none of those here.
    """
    if not model.stated:
        return model.tower
    outer = model.stated.get("model_type")
    section = model.stated.get("vision_config", model.stated.get("vit_config"))
    config = getattr(model.whole, "vision_config", None)
    kind = getattr(config, "model_type", None) if isinstance(section, dict) else None
    for name, tower in TOWERS.items():
        if kind in tower.serves.get(str(outer), ()):
            return name
    is_text = model.whole is model.config
    if is_text and VISIONS[TOWERS[PAPER].front_end].serves(model.stated):
        return PAPER
    prefix = f"model {model.name!r}: config.json has"
    kinds = sorted(
        {kind for tower in TOWERS.values() for kind in tower.serves.get(str(outer), ())}
    )
    if kinds and section is None:
        raise RequestError(
            f"{prefix} no vision_config, the section in which model_type {outer!r} states its "
            f"vision tower: --tower {PAPER} asks for the paper's"
        )
    what = "no vision_config" if section is None else f"a vision tower {_kind(section)!r:.60}"
    served = ", ".join(kinds or sorted(TOWERS))
    raise RequestError(
        f"{prefix} {what} under model_type {outer!r:.60}, which scope lvlm does not serve; it has "
        f"{served}{' there' if kinds else ''}: --tower {PAPER} asks for the paper's"
    )


def _kind(section: object) -> object:
    return section.get("model_type") if isinstance(section, dict) else section


def _try(model: "Resolved", name: str) -> None:
    """Build the config's tower on shapes alone; RequestError, one line, where that fails."""
    config = getattr(model.whole, "vision_config", None)
    kind = getattr(config, "model_type", None)
    if config is None or (name == PAPER and kind != "siglip_vision_model"):
        return  # The paper's own is built.
    package = TOWERS[name].requires
    if package and obstacle(package):
        return  # What builds it says so.
    reason = tower_reason(config, TOWERS[name].unlisted)
    if reason is not None:
        raise RequestError(
            f"model {model.name!r}: transformers cannot build its vision tower: {reason}"
        )


def _named_tower(model: "Resolved", name: str) -> str:
    if name not in TOWERS:
        raise unknown_name("tower", name, TOWERS)
    if name != PAPER and own_tower(model) != name:
        raise RequestError(
            f"tower {name!r}: belongs to other models than {model.name!r}; give {PAPER}, or none "
            "for the model's own"
        )
    return name


def vision_config(model: "Resolved", model_type: str, published: dict[str, Any]) -> dict[str, Any]:
    """The fields of a tower's configuration: the checkpoint's, where it has that kind of tower."""
    section = getattr(model.whole, "vision_config", None)
    if section is None or section.model_type != model_type:
        return dict(published)
    fields: dict[str, Any] = section.to_dict()
    return fields


def finish(tower: Any, context: "Context") -> None:
    """A tower is checkpointed where the decoder is, and trained where it is."""
    if context.cell.checkpoint:
        # Releases of transformers differ in the name.
        old = "gradient_checkpointing_enable"
        enable = getattr(tower, "activation_checkpointing_enable", None) or getattr(tower, old)
        with silent():  # A tower has no token embeddings, which transformers would say.
            enable({"use_reentrant": False, "preserve_rng_state": False})
    tower.train(context.cell.pass_ == "train")


def implementation(context: "Context") -> str:
    """transformers' attention for a tower, whose rows see everything: no kernel needs a mask."""
    return "eager" if context.kernel.hf == "eager" else "sdpa"
