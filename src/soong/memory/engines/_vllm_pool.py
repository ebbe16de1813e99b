"""vLLM's KV cache pool: pages, groups, padding layers, and how many blocks one sequence takes.

Every rule is one of vLLM 0.32 and 0.33: `v1/kv_cache_interface.py` (page sizes, blocks per request),
`v1/core/kv_cache_utils.py` and, from 0.33, `v1/core/kv_cache_planning.py` (grouping),
`platforms/interface.py` (block sizes). Older versions differ where `PoolRules` says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from soong.memory.kv_cache import LayerKind

DEFAULT_BLOCK_TOKENS = 16
"""`config/cache.py CacheConfig.DEFAULT_BLOCK_SIZE`."""

LATENT_HYBRID_ALIGNMENT_TOKENS = 128
"""Blocks of models that mix MLA and recurrent layers are multiples of this (`platforms/interface.py`)."""

SPARSE_LATENT_BLOCK_TOKENS = 64
"""FlashMLA's sparse kernels take blocks of 64 (`v1/attention/backends/mla/flashmla_sparse.py`)."""


class PoolRules(NamedTuple):
    """What differs between versions and GPUs.

    hybrid: kinds of layers get groups of their own in one pool; else sliding layers keep every token.
    common_group_ratio: below this ratio the commoner kind's layer count is the group size.
    state_blocks: blocks of recurrent state per sequence, by kind of state; `""` for kinds not named.
    ..._checkpoint_blocks: those that a prefill keeps beside.
    latent_block_tokens: block size that the MLA kernel of this GPU and cache type prefers.
    in_flight_batches: under way at once: two where scheduling is asynchronous (`v1/kv_cache_interface.py`).
    pages_by_bytes: DeepSeek-V4's groups count by their bytes, with pages of three sizes alone.
    """

    hybrid: bool
    common_group_ratio: float
    state_blocks: int
    mamba2_checkpoint_blocks: int
    latent_block_tokens: int
    kda_checkpoint_blocks: int = 0
    in_flight_batches: int = 2
    pages_by_bytes: bool = False


class Group(NamedTuple):
    """`groups` groups of layers alike; each draws its own blocks for a sequence.

    name: full, sliding, chunked, cross or state. window: of sliding and chunked groups. blocks: of state groups.
    page_bytes: of all layers, where blocks count by their bytes beside those of the first group.
    """

    name: str
    groups: int
    block_tokens: int
    window: int
    blocks: int
    page_bytes: int = 0


class Pool(NamedTuple):
    """The layout of the pool on one GPU. One block of any group takes `bytes_per_block`."""

    bytes_per_block: int
    groups: tuple[Group, ...]
    uniform_block_tokens: int
    """The block size where one group of full layers is all there is; else 0."""
    in_flight_batches: int = 2
    """How many batches the tokens in flight are of."""

    def blocks_per_sequence(self, context_tokens: int, in_flight_tokens: int) -> int:
        """Blocks that one sequence of `context_tokens` claims from all groups."""
        if self.uniform_block_tokens:
            return -(-context_tokens // self.uniform_block_tokens)
        if self.groups and self.groups[0].page_bytes:
            pages = (_group_blocks(group, context_tokens, in_flight_tokens) for group in self.groups)
            claimed = sum(count * group.page_bytes for count, group in zip(pages, self.groups, strict=True))
            return -(-claimed // self.groups[0].page_bytes)
        blocks = 0
        for group in self.groups:
            if group.name == "cross":  # room for all that an encoder may read in one step: CrossAttentionSpec
                blocks += group.groups * -(-in_flight_tokens // self.in_flight_batches // group.block_tokens)
                continue
            blocks += group.groups * _group_blocks(group, context_tokens, in_flight_tokens)
        return blocks

    def group_count(self, *, with_states: bool) -> int:
        """All groups, or those of attention layers alone."""
        return sum(group.groups for group in self.groups if with_states or group.name != "state") or 1


def _group_blocks(group: Group, context_tokens: int, in_flight_tokens: int) -> int:
    """Blocks of one group for one sequence (`max_admission_blocks_per_request` of each spec)."""
    if group.name == "state":
        return group.blocks
    if group.name == "full":
        return -(-context_tokens // group.block_tokens)
    if group.name == "chunked":
        return -(-min(group.window + in_flight_tokens, context_tokens) // group.block_tokens)
    kept = min(group.window - 1 + in_flight_tokens, context_tokens)
    return -(-kept // group.block_tokens) + 1


class _Spec(NamedTuple):
    """One kind of layer as vLLM sees it. latent: MLA, whose pages cannot be padded."""

    name: str
    layers: int
    block_tokens: int
    page_bytes: int
    window: int
    blocks: int
    shape: tuple[int, ...]
    latent: bool


def build_pool(kinds: tuple[LayerKind, ...], rules: PoolRules) -> Pool:
    """The pool that vLLM lays out for these layers.

    Args:
        kinds: the layers of one GPU, from `layer_kinds`.
        rules: version and GPU.

    Returns:
        The pool; one of no groups and one-byte blocks for a model that keeps nothing.
    """
    if any(kind.name == "compressed" for kind in kinds):
        return _compressed_pool(kinds, by_bytes=rules.pages_by_bytes)
    specs = _specs(kinds, rules)
    if not specs:
        return Pool(bytes_per_block=1, groups=(), uniform_block_tokens=0)
    if not rules.hybrid:
        specs = [_promoted(spec) for spec in specs]
    if _one_type(specs):
        return _single_group(specs)
    pool = _with_pooled_keys(_grouped(_same_pages(specs), rules), kinds, rules)
    return pool._replace(in_flight_batches=rules.in_flight_batches)


def _with_pooled_keys(pool: Pool, kinds: tuple[LayerKind, ...], rules: PoolRules) -> Pool:
    """The pool with the pooled keys of an indexer, which share the blocks of attention layers.

    Source: vLLM 0.32 `models/glm5next/common/`, `models/qwen4_exp/common/qsa_cache.py`: MLAAttentionSpec beside the
    layers' own in one group, CircularBufferSpec in one of its own.
    """
    pooled = sum(kind.layers * kind.token_bytes for kind in kinds if kind.state_kind == "ring")
    if not pooled:
        return pool
    return pool._replace(bytes_per_block=pool.bytes_per_block + pooled * _block_tokens(kinds, rules))


def _promoted(spec: _Spec) -> _Spec:
    """A sliding or chunked layer that keeps every token, as before pools of groups."""
    return spec if spec.name == "state" else spec._replace(name="full", window=0)


def _specs(kinds: tuple[LayerKind, ...], rules: PoolRules) -> list[_Spec]:
    block_tokens = _block_tokens(kinds, rules)
    attention_page = max(
        (kind.token_bytes * block_tokens for kind in kinds if not kind.state_bytes), default=0
    )
    return [_spec(kind, block_tokens, attention_page, rules) for kind in kinds]


def _block_tokens(kinds: tuple[LayerKind, ...], rules: PoolRules) -> int:
    """Tokens in a block of attention layers: the kernel's, raised until a page holds a state."""
    latent = any(kind.name in {"latent", "sliding-latent"} for kind in kinds)
    sparse = any(kind.name == "indexer" for kind in kinds)
    block = DEFAULT_BLOCK_TOKENS
    if latent:
        block = SPARSE_LATENT_BLOCK_TOKENS if sparse else rules.latent_block_tokens
    state_page = max((kind.state_bytes for kind in kinds), default=0)
    token_bytes = max((kind.token_bytes for kind in kinds if not kind.block_tokens), default=0)
    if not state_page or not token_bytes:
        return block
    alignment = max(block, LATENT_HYBRID_ALIGNMENT_TOKENS) if latent else block
    return max(block, alignment * -(-state_page // (alignment * token_bytes)))


def _spec(kind: LayerKind, block_tokens: int, attention_page: int, rules: PoolRules) -> _Spec:
    if kind.state_bytes:
        page = max(attention_page, kind.state_bytes)
        blocks = _state_blocks(kind, attention_page, rules)
        return _Spec("state", kind.layers, block_tokens, page, 0, blocks, (), latent=False)
    latent = kind.name in {"latent", "sliding-latent", "indexer"}
    name = "sliding" if kind.name == "sliding-latent" else "full" if latent else kind.name
    block_tokens = kind.block_tokens or block_tokens
    page = kind.token_bytes * block_tokens
    return _Spec(name, kind.layers, block_tokens, page, kind.window, 0, kind.shape, latent)


def _state_blocks(kind: LayerKind, attention_page: int, rules: PoolRules) -> int:
    """Blocks of recurrent state per sequence: one where there is no attention, hence no prefix caching.

    Source: vLLM 0.32 `config/model.py` is_prefix_caching_supported, `v1/kv_cache_interface.py` MambaSpec.
    """
    if not attention_page or kind.state_kind == "ring":
        return 1
    kept = {"mamba2": rules.mamba2_checkpoint_blocks, "kda-bounded": rules.kda_checkpoint_blocks}
    return rules.state_blocks + kept.get(kind.state_kind, 0)


def _one_type(specs: list[_Spec]) -> bool:
    """All layers need the same token slots: all full, or all sliding with one window."""
    first = specs[0]
    return all(
        (spec.name, spec.window, spec.block_tokens) == (first.name, first.window, first.block_tokens)
        for spec in specs
    )


def _single_group(specs: list[_Spec]) -> Pool:
    first = specs[0]
    return Pool(
        bytes_per_block=sum(spec.layers * spec.page_bytes for spec in specs),
        groups=(Group(first.name, 1, first.block_tokens, first.window, first.blocks),),
        uniform_block_tokens=first.block_tokens if first.name == "full" else 0,
    )


def _same_pages(specs: list[_Spec]) -> list[_Spec]:
    """All pages made as large as the largest: more tokens in a block where that divides, else padding."""
    largest = max(spec.page_bytes for spec in specs)
    return [_with_page(spec, largest) for spec in specs]


def _with_page(spec: _Spec, page_bytes: int) -> _Spec:
    if spec.name != "state" and page_bytes % spec.page_bytes == 0:
        return spec._replace(
            block_tokens=spec.block_tokens * (page_bytes // spec.page_bytes), page_bytes=page_bytes
        )
    return spec._replace(page_bytes=page_bytes)


def _grouped(specs: list[_Spec], rules: PoolRules) -> Pool:
    """Groups of equally many layers, the last of each kind filled up with padding layers."""
    fewest = min(spec.layers for spec in specs)
    most = max(spec.layers for spec in specs)
    size = most if most < fewest * rules.common_group_ratio else fewest
    groups = []
    widest = 0
    for spec in specs:
        count = -(-spec.layers // size)
        widest = max(widest, -(-spec.layers // count))
        groups.append(Group(spec.name, count, spec.block_tokens, spec.window, spec.blocks))
    return Pool(bytes_per_block=widest * specs[0].page_bytes, groups=tuple(groups), uniform_block_tokens=0)


COMPRESSED_BLOCK_TOKENS = 256
"""DeepSeek-V4's pages cover 256 tokens, so that each ratio's entries fill whole ones (`models/deepseek_v4`)."""

WINDOW_BLOCK_TOKENS = 64
"""Block size of its windows: `models/deepseek_v4/attention.py` DeepseekV4SWACache."""

PAGE_ALIGNMENT_BYTES = 576
"""Its pages are filled up to a multiple of this (`alignment` of each spec)."""

STATE_NUMBER_BYTES = 4
OVERLAPPING_RATIO = 4
"""Layers of this ratio compress overlapping windows, for which states stand twice: `compressor.py`."""


class _Bucket(NamedTuple):
    """Layers that need the same token slots. pages: bytes of a page and the layers that have it."""

    name: str
    block_tokens: int
    window: int
    pages: dict[int, int]

    @property
    def balanced(self) -> bool:
        return len(set(self.pages.values())) == 1

    @property
    def repeats(self) -> int:
        return max(self.pages.values())

    def widest(self, groups: int) -> int:
        return sum(-(-layers // groups) * page for page, layers in self.pages.items())


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // PAGE_ALIGNMENT_BYTES) * PAGE_ALIGNMENT_BYTES


def _compressed_pool(kinds: tuple[LayerKind, ...], *, by_bytes: bool) -> Pool:
    """DeepSeek-V4: windows, entries for so many tokens each, and the states that compressors make them from.

    Source: vLLM 0.32 `v1/core/kv_cache_utils.py` _get_packed_kv_cache_groups, `models/deepseek_v4/compressor.py`.

    Args:
        kinds: of layers.
        by_bytes: as before 0.26, when a block had room for the most layers with pages of each size, and a sequence's
            blocks were its bytes in those of the first group. Five figures of 0.22 and 0.23 come out to the token.
    """
    buckets = [bucket for bucket in _compressed_buckets(kinds) if bucket.pages]
    if by_bytes:
        buckets = _with_full_pages(buckets)
    whole = [bucket.repeats for bucket in buckets if bucket.balanced and len(bucket.pages) > 1]
    repeats = 0
    if whole:
        repeats = _least_padding([bucket.repeats for bucket in buckets if bucket.balanced], max(whole))
    groups, widest, rooms = [], 0, dict[int, int]()
    for bucket in buckets:
        count = -(-bucket.repeats // repeats) if repeats and bucket.balanced else 1
        widest = max(widest, bucket.widest(count))
        for page, layers in bucket.pages.items():
            rooms[page] = max(rooms.get(page, 0), -(-layers // count))
        groups.append(
            Group(
                bucket.name, count, bucket.block_tokens, bucket.window, 0, bucket.widest(1) if by_bytes else 0
            )
        )
    block = sum(page * layers for page, layers in rooms.items()) if by_bytes else widest
    first = sorted(groups, key=lambda group: group.name != "full")
    return Pool(bytes_per_block=block, groups=tuple(first), uniform_block_tokens=0)


def _with_full_pages(buckets: list[_Bucket]) -> list[_Bucket]:
    """Every page as large as the next one of the layers that keep all tokens."""
    sizes = sorted({page for bucket in buckets if bucket.name == "full" for page in bucket.pages})
    found = []
    for bucket in buckets:
        pages = dict[int, int]()
        for page, layers in bucket.pages.items():
            fitting = next((size for size in sizes if size >= page), page)
            pages[fitting] = pages.get(fitting, 0) + layers
        found.append(bucket._replace(pages=pages))
    return found


def _compressed_buckets(kinds: tuple[LayerKind, ...]) -> list[_Bucket]:
    latent_dim = max(kind.shape[1] for kind in kinds if kind.window)
    windows: dict[tuple[int, int, int], dict[int, int]] = {}

    def add(key: tuple[int, int, int], page_bytes: int, layers: int) -> None:
        pages, page = windows.setdefault(key, {}), _aligned(page_bytes)
        pages[page] = pages.get(page, 0) + layers

    for kind in kinds:
        if kind.window:
            key = (0, WINDOW_BLOCK_TOKENS, kind.window)
            add(key, WINDOW_BLOCK_TOKENS * kind.token_bytes, kind.layers)
            continue
        entries = -(-COMPRESSED_BLOCK_TOKENS // kind.ratio)
        add((1, COMPRESSED_BLOCK_TOKENS, 0), entries * kind.token_bytes, kind.layers)
        copies = 2 if kind.ratio == OVERLAPPING_RATIO else 1
        block = 4 if kind.ratio == OVERLAPPING_RATIO else 8
        numbers = 2 * copies * (kind.shape[1] if kind.shape else latent_dim)  # values and their scores
        add((2, block, copies * kind.ratio), block * numbers * STATE_NUMBER_BYTES, kind.layers)
    return [
        _Bucket("sliding" if window else "full", block, window, pages)
        for (_, block, window), pages in windows.items()
    ]


def _least_padding(counts: list[int], least: int) -> int:
    """The group size that leaves the fewest layers of padding; the largest of several: _approximate_gcd."""
    sizes = range(least, max(counts) + 1)
    return min(sizes, key=lambda size: (sum(-count % size for count in counts), -size), default=least)
