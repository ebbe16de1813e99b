"""The compute graph that llama.cpp reserves at start, tensor by tensor, for one micro batch.

Only sizes, order and readers count, so one sketch serves all architectures: norm, queries, values, keys, attention,
projection; gate, up, their product, down; the same for each token's experts; the recurrent layers of Mamba-2, gated
delta nets and short convolutions. Sources: llama.cpp `src/llama-graph.cpp` (build_attn, build_attn_mha, build_ffn,
build_moe_ffn, build_inp_embd), `src/models/` (the order within a layer), `src/llama-context.cpp` (graph_reserve:
how many tokens and outputs), `ggml-backend.cpp` (a GPU's copies of inputs come first, four of each where layers are
split among GPUs).
"""

from __future__ import annotations

from typing import NamedTuple

from soong.memory.engines._ggml_alloc import Graph

F32_BYTES = 4
F16_BYTES = 2
POSITION_BYTES = 4
INPUT_COPIES = 4
"""GGML_SCHED_MAX_COPIES, of each input, where several GPUs work at once."""


class Layer(NamedTuple):
    """What one layer computes; widths are numbers per token, 0 where the layer has no such part.

    heads: query heads. query_width: heads × key size. query_rows: rows of the query projection, twice that where it
        carries a gate.
    attended_width: heads × value size. fused: queries, keys and values in one matrix.
    latent: (heads, latent size, rotary size, plain key size, value size, query rank) of MLA; empty without.
    state: (convolution width, inner width, state numbers of a sequence, kind); empty without.
    mlp_width, gated, joined: the dense MLP; `joined`: gate and up are one matrix.
    experts, experts_per_token, expert_width, shared_width: routed experts, and the one that all tokens pass.
    """

    heads: int = 0
    query_width: int = 0
    query_rows: int = 0
    key_width: int = 0
    value_width: int = 0
    attended_width: int = 0
    fused: bool = False
    latent: tuple[int, ...] = ()
    state: tuple[int, int, int, str] | tuple[()] = ()
    mlp_width: int = 0
    gated: bool = True
    joined: bool = False
    experts: int = 0
    experts_per_token: int = 0
    expert_width: int = 0
    shared_width: int = 0


class Shape(NamedTuple):
    """A model as its graph sees it. layers: one after the other, repeats left out.

    parallel: attention and MLP read the same norm. plain_start: no norm before attention and MLP.
    weighted_before: a token is weighted before its expert, not after (Llama 4).
    """

    hidden_size: int
    vocab_size: int
    layers: tuple[Layer, ...]
    parallel: bool = False
    plain_start: bool = False
    weighted_before: bool = False


class Batch(NamedTuple):
    """What is reserved for. tokens: of the micro batch. outputs: rows of logits. sequences: slots.

    mask_bytes: of each attention mask. cells: keys and values in view of the first kind of layer.
    scratch_bytes: beside the attention's result, for unpacking a quantised cache. flash: one fused attention.
    copies: of each input; 1 on a single GPU.
    """

    tokens: int
    outputs: int
    sequences: int
    mask_bytes: tuple[int, ...]
    cells: int
    scratch_bytes: int
    flash: bool
    copies: int


def compute_buffer_bytes(shape: Shape, batch: Batch) -> int:
    """The compute buffer of a GPU that holds every layer, as llama.cpp prints it.

    Args:
        shape: the model. batch: what is reserved for.

    Returns:
        Bytes of "CUDA0 compute buffer size".
    """
    return _Sketch(shape, batch).buffer_bytes()


class _Sketch:
    """A graph in the making."""

    def __init__(self, shape: Shape, batch: Batch) -> None:
        self.graph = Graph()
        self.shape = shape
        self.batch = batch
        self.row_bytes = batch.tokens * F32_BYTES
        self.hidden_bytes = shape.hidden_size * self.row_bytes
        self.masks: list[int] = []
        self.last = False

    def buffer_bytes(self) -> int:
        current = self._inputs()
        *first, last = self.shape.layers
        for layer in first:
            current = self._layer(current, layer)
        current = self._last_layer(current, last)
        rows = self.batch.outputs * F32_BYTES
        normed = self.graph.add(self.shape.hidden_size * rows, current, over=True)
        self.graph.add(self.shape.vocab_size * rows, normed)
        return self.graph.buffer_bytes()

    def _inputs(self) -> int:
        kept = self.batch.copies > 1
        embedded = [self.graph.add(self.hidden_bytes, kept=kept) for _ in range(self.batch.copies)]
        self.graph.add(self.batch.tokens * POSITION_BYTES, kept=True)
        for size in self.batch.mask_bytes:
            masks = [self.graph.add(size, kept=kept) for _ in range(self.batch.copies)]
            self.masks.append(masks[-1])
        return embedded[-1]

    def _wide(self, width: int, *parents: int, over: bool = False) -> int:
        return self.graph.add(width * self.row_bytes, *parents, over=over)

    def _layer(self, current: int, layer: Layer) -> int:
        if not (layer.attended_width or layer.latent or layer.state):
            normed = self.graph.add(self.hidden_bytes, current)
            return self.graph.add(self.hidden_bytes, self._mlp(normed, layer), current, over=True)
        mixed, normed = self._mixer(current, layer)
        return self._second_half(current, normed, mixed, layer)

    def _last_layer(self, current: int, layer: Layer) -> int:
        """After the last attention only the rows whose logits are wanted go on."""
        mixed, _ = self._mixer(current, layer)
        self.last = True
        self.row_bytes = self.batch.outputs * F32_BYTES
        self.hidden_bytes = self.shape.hidden_size * self.row_bytes
        mixed = self.graph.add(self.hidden_bytes, mixed)
        current = self.graph.add(self.hidden_bytes, current)
        return self._second_half(current, None, mixed, layer)

    def _mixer(self, current: int, layer: Layer) -> tuple[int, int]:
        normed = current if self.shape.plain_start else self.graph.add(self.hidden_bytes, current)
        attended = self._attended(normed, layer)
        recurrent = self._recurrence(normed, layer.state) if layer.state else None
        projected = None if attended is None else self._projected(attended)
        if projected is None or recurrent is None:
            mixed = recurrent if projected is None else projected
            return (normed if mixed is None else mixed), normed
        return self.graph.add(self.hidden_bytes, projected, recurrent, over=True), normed

    def _attended(self, normed: int, layer: Layer) -> int | None:
        if layer.latent:
            return self._latent_attention(normed, layer)
        return self._attention(normed, layer) if layer.attended_width else None

    def _projected(self, attended: int) -> int:
        """Parallel layers project the attention's result after their MLP."""
        return attended if self.shape.parallel else self.graph.add(self.hidden_bytes, attended)

    def _second_half(self, current: int, normed: int | None, mixed: int, layer: Layer) -> int:
        add, hidden = self.graph.add, self.hidden_bytes
        if not (layer.mlp_width or layer.experts):
            return add(hidden, mixed, current, over=True)
        if self.shape.parallel:
            normed = add(hidden, current) if normed is None else normed
            out = add(hidden, self._mlp(normed, layer), current, over=True)
            attended = mixed if self.last else self._rotated(layer.attended_width, mixed)
            return add(hidden, out, add(hidden, attended), over=True)
        held = add(hidden, mixed, current, over=True)
        normed = held if self.shape.plain_start else add(hidden, held)
        return add(hidden, self._mlp(normed, layer), held, over=True)

    def _attention(self, normed: int, layer: Layer) -> int:
        if layer.fused:
            joined = self._wide(layer.query_rows + layer.key_width + layer.value_width, normed)
            query = self._wide(layer.query_width, joined)
            self.graph.add(0, self._wide(layer.key_width, joined))
            self.graph.add(0, joined)
            projected = joined
        else:
            projected = self._wide(layer.query_rows, normed)
            query = self._rotated(layer.query_width, self._wide(layer.query_width, projected))
            value = self._rotated(layer.value_width, self._wide(layer.value_width, normed))
            key = self._wide(layer.key_width, self._wide(layer.key_width, normed))
            key = self._rotated(layer.key_width, key)
            self.graph.add(0, key)
            self.graph.add(0, value)
        attended = self._attend(query, layer.heads, layer.attended_width)
        if layer.query_rows > layer.query_width and not layer.fused:
            gate = self._wide(layer.attended_width, projected)
            attended = self._wide(layer.attended_width, attended, gate, over=True)
        return attended if self.shape.parallel else self._rotated(layer.attended_width, attended)

    def _rotated(self, width: int, tensor: int) -> int:
        """A quantised cache is kept in rotated form: one more product with a Hadamard matrix."""
        return self._wide(width, tensor) if self.batch.scratch_bytes else tensor

    def _attend(self, query: int, heads: int, width: int) -> int:
        batch = self.batch
        if batch.flash:
            size = width * self.row_bytes + batch.scratch_bytes
            return self.graph.add(size, query, *self.masks)
        scores = self._wide(heads * batch.cells, query)
        scores = self.graph.add(heads * batch.cells * self.row_bytes, scores, *self.masks, over=True)
        return self._wide(width, self._wide(width, scores))

    def _latent_attention(self, normed: int, layer: Layer) -> int:
        """Absorbed MLA: queries are moved into the latent space, results out of it (`src/models/deepseek2.cpp`)."""
        heads, latent, rotary, plain, value, rank = layer.latent
        projected = self._wide(rank, normed) if rank else normed
        query = self._wide(heads * (plain + rotary), projected)
        absorbed = self._wide(heads * latent, query)
        turned = self._wide(heads * rotary, query)
        query = self._wide(heads * (latent + rotary), absorbed, turned)
        packed = self._wide(latent + rotary, normed)
        key = self._wide(latent + rotary, self._wide(latent, packed), self._wide(rotary, packed))
        self.graph.add(0, key)
        attended = self._attend(query, heads, heads * latent)
        return self._wide(heads * value, self._wide(heads * value, attended))

    def _recurrence(self, normed: int, state: tuple[int, int, int, str]) -> int:
        convolved, inner, numbers, kind = state
        batch = self.batch
        if kind == "shortconv":
            joined = self._wide(3 * inner, normed)
            product = self._wide(inner, joined)
            taps = self.graph.add(inner * (batch.tokens + 2 * batch.sequences) * F32_BYTES, product)
            mixed = self._wide(inner, self._wide(inner, taps), joined, over=True)
            return self.graph.add(self.hidden_bytes, mixed)
        state_bytes = numbers * batch.sequences * F32_BYTES
        taps_bytes = convolved * (batch.tokens + 3 * batch.sequences) * F32_BYTES
        if kind in {"gdn", "kda"}:
            return self._delta_net(normed, convolved, inner, state_bytes, taps_bytes)
        joined = self._wide(convolved + inner, normed)
        mixed = self._wide(convolved, self.graph.add(taps_bytes, joined))
        scanned = self.graph.add(inner * self.row_bytes + state_bytes, mixed, joined)
        weighted = self._wide(inner, scanned, mixed)
        gated = self._wide(inner, self._wide(inner, weighted, joined))
        return self.graph.add(self.hidden_bytes, gated)

    def _delta_net(self, normed: int, convolved: int, inner: int, state_bytes: int, taps_bytes: int) -> int:
        keys = (convolved - inner) // 2
        joined = self._wide(convolved, normed)
        taps = self.graph.add(taps_bytes, joined)
        held = self.graph.add(state_bytes)
        mixed = self._wide(convolved, taps)
        query, key = self._wide(keys, mixed), self._wide(keys, mixed)
        scanned = self.graph.add(inner * self.row_bytes + state_bytes, query, key, mixed, held)
        turned = self._wide(inner, scanned)
        gate = self._wide(inner, normed)
        gated = self._wide(inner, turned, gate)
        return self.graph.add(self.hidden_bytes, gated)

    def _mlp(self, normed: int, layer: Layer) -> int:
        if not layer.experts:
            return self._dense(normed, layer.mlp_width, layer)
        out = self._experts(normed, layer)
        if layer.shared_width:
            shared = self._dense(normed, layer.shared_width, layer)
            out = self.graph.add(self.hidden_bytes, out, shared, over=True)
        return out

    def _dense(self, normed: int, width: int, layer: Layer) -> int:
        if layer.joined:
            product = self._wide(width, self._wide(2 * width, normed))
        elif layer.gated:
            gate, up = self._wide(width, normed), self._wide(width, normed)
            product = self._wide(width, gate, up)
        else:
            product = self._wide(width, self._wide(width, normed), over=True)
        return self.graph.add(self.hidden_bytes, product)

    def _experts(self, normed: int, layer: Layer) -> int:
        used, hidden = layer.experts_per_token, self.shape.hidden_size
        scores = self._wide(layer.experts, normed)
        order = self._wide(layer.experts, scores)
        weights = self._wide(used, scores, order)
        if self.shape.weighted_before:
            repeated = self._wide(used * hidden, normed)
            normed = self._wide(used * hidden, repeated, weights, over=True)
        up = self._wide(used * layer.expert_width, normed, order)
        if layer.gated:
            gate = self._wide(used * layer.expert_width, normed, order)
            product = self._wide(used * layer.expert_width, gate, up)
        else:
            product = self._wide(used * layer.expert_width, up, over=True)
        down = self._wide(used * hidden, product, order)
        if not self.shape.weighted_before:
            down = self._wide(used * hidden, down, weights, over=True)
        total = self._wide(hidden, down, down)
        for _ in range(used - 2):
            total = self._wide(hidden, total, down, over=True)
        return total
