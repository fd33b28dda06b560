"""The table of loaders of other projects."""

from collections.abc import Callable

from bench.strategies.lazy_recipe import LazyRecipe
from bench.strategies.peers import Peer
from bench.strategies.peers.finding import by_folder, by_name, by_path, by_suffix
from bench.strategies.strategy import EXTRA_LAYOUTS, Bounds, Strategy
from model.user.reference import Reference
from model.user.source import Source

META, REAL = "meta skeleton", "real module"
# Of those that put tensors on a device by PyTorch alone, which is what is simulated.
TORCH_ALONE = "cpu cuda sim"


def _peer(  # noqa: PLR0913 - a row of the table below
    *,
    function: str,
    layout: str,
    library: str,
    needs: str,
    destination: str,
    settings: str,
    formats: str = "safetensors",
    devices: str = "cpu cuda",
    file: str = "",
    refuses: str = "",
    wrong: str = "",
    dies: str = "",
    architecture: str = "",
    extra_layouts: str = "",
    finds: Callable[[Source], bool] = by_path,
    torch_file: str = "",
) -> Strategy:
    """Return a row: `function` of the file `library` here. Where the weights end is known of it, and nothing else."""
    peer = Peer(
        library,
        needs,
        destination,
        settings,
        formats,
        devices=devices,
        wrong=wrong,
        dies=dies,
        architecture=architecture,
        extra_layouts=extra_layouts,
        finds=finds,
        torch_file=torch_file,
    )
    load, bounds = LazyRecipe(Reference(f"{peer.module}:{function}")), Bounds(file=file, file_moved="")
    return Strategy(load, layout, bounds, Bounds(), refuses, peer=peer)


# What a .safetensors file cannot hold, and is refused when it is written.
UNHELD = "dtypes views strides gaps extra_state"

PEERS = {
    strategy.name: strategy
    for strategy in (
        _peer(
            function="safetensors",
            layout="safetensors",
            library="safetensors",
            needs="safetensors",
            destination=META,
            settings="load_file, load_state_dict(assign=True)",
            devices=TORCH_ALONE,
            file="S",
            refuses=f"{UNHELD} ties gpt2",
            wrong="nonpersistent attributes derived rotary optimizer dtype untied",
        ),
        _peer(
            function="safetensors_load_model",
            layout="safetensors",
            library="safetensors",
            needs="safetensors",
            destination=REAL,
            settings="load_model",
            devices=TORCH_ALONE,
            refuses=f"{UNHELD} mixed",
            wrong="dtype",
        ),
        _peer(
            function="safetensors_safe_open",
            layout="safetensors",
            library="safetensors",
            needs="safetensors",
            destination=REAL,
            settings="safe_open, get_tensor, copy_",
            devices=TORCH_ALONE,
            refuses=UNHELD,
            wrong="missing dtype shape untied",
        ),
        _peer(
            function="accelerate",
            layout="safetensors",
            library="accelerate",
            needs="accelerate safetensors",
            destination=META,
            settings="init_empty_weights, load_checkpoint_and_dispatch(device_map)",
            devices=TORCH_ALONE,
            formats="safetensors, torch",
            file="S",
            refuses="dtypes ties strides gaps names extra_state gpt2",
            wrong="views optimizer surplus dtype untied",
            extra_layouts=f"torch {EXTRA_LAYOUTS}",
            finds=by_suffix,
        ),
        _peer(
            function="dcp",
            layout="dcp",
            library="dcp",
            needs="torch",
            destination=REAL,
            settings="load(no_dist=True)",
            devices=TORCH_ALONE,
            formats="dcp",
            refuses="extra_state",
            wrong="surplus dtype untied moved",
        ),
        _peer(
            function="dcp_safetensors",
            layout="safetensors",
            library="dcp",
            needs="torch safetensors",
            destination=REAL,
            settings="load(HuggingFaceStorageReader, no_dist=True)",
            devices=TORCH_ALONE,
            refuses=f"{UNHELD} ties gpt2",
            wrong="surplus dtype untied",
            extra_layouts="safetensors_sharded",
            finds=by_folder,
        ),
        _peer(
            function="fastsafetensors",
            layout="safetensors",
            library="fastsafetensors",
            needs="fastsafetensors",
            destination=META,
            settings="fastsafe_open, load_state_dict(assign=True)",
            refuses=f"{UNHELD} ties gpt2",
            wrong="nonpersistent attributes derived rotary optimizer memory dtype untied",
        ),
        _peer(
            function="runai_model_streamer",
            layout="safetensors",
            library="runai_model_streamer",
            needs="runai-model-streamer",
            destination=META,
            settings="stream_file(owned=True), load_state_dict(assign=True)",
            refuses=f"{UNHELD} ties gpt2",
            wrong="nonpersistent attributes derived rotary optimizer dtype untied",
        ),
        _peer(
            function="instanttensor",
            layout="safetensors",
            library="instanttensor",
            needs="instanttensor",
            destination=META,
            settings="safe_open(copy=True), load_state_dict(assign=True)",
            devices="cuda",
        ),
        _peer(
            function="tensorizer",
            layout="tensorizer",
            library="tensorizer",
            needs="tensorizer",
            destination="no_init_or_tensor",
            settings="TensorDeserializer, load_into_module",
            formats="its own",
            wrong="dtypes buffers nonpersistent derived rotary ties views frozen strides gaps optimizer extra_state "
            "gpt2 missing surplus dtype shape untied moved",
        ),
        _peer(
            function="flashpack",
            layout="flashpack",
            library="flashpack",
            needs="flashpack",
            destination=META,
            settings="assign_from_file",
            formats="its own",
            file="S",
            refuses="ties strides names extra_state gpt2",
            wrong="nonpersistent attributes derived rotary views empty gaps optimizer memory missing dtype shape moved",
            dies="training",
        ),
        _peer(
            function="transformers",
            layout="safetensors",
            library="transformers",
            needs="transformers accelerate safetensors",
            destination="none: it builds its own",
            settings="from_pretrained(device_map)",
            formats="safetensors, torch",
            devices=TORCH_ALONE,
            file="S",
            architecture="transformers",
            wrong="missing surplus dtype",
            extra_layouts=f"torch {EXTRA_LAYOUTS}",
            finds=by_name,
            torch_file="S",
        ),
    )
}
