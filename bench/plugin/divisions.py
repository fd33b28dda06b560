"""Divisions of a model among ranks, made from the options of a run."""

from bench.plugin.option_texts import listed_names
from bench.plugin.options import Options
from model.architecture import RandomGPT2
from model.parallel.blocks import blocks, blocks_in_words
from model.parallel.division import FSDP, TENSOR, Division
from model.parallel.tensor_plan import divided_layers, plan_of
from model.user.reference import Reference
from model.user.user_model import UserModel


def divisions(options: Options, own: UserModel | None) -> tuple[Division, ...]:
    """Return the divisions of a run; none without `--sharded`. Raises `ValueError` with one line: fault and remedy.

    Without a tensor-parallel plan a model is divided by FSDP2 alone.
    """
    if not options.sharded:
        return ()
    model = own.skeleton() if own else RandomGPT2("tiny", "float32").skeleton()
    plan = Reference.of(options.tp_plan) if options.tp_plan is not None else None
    found = {FSDP: Division(FSDP, wrap=options.wrap), TENSOR: Division(TENSOR, tp_plan=plan)}
    for name in options.wrap:
        if not blocks(model, (name,)):
            classes = listed_names({type(one).__name__ for one in model.modules()})
            raise ValueError(f"--wrap: the model has no module of class {name!r}; choose from {classes}")
    if plan and TENSOR not in options.parallelism:
        raise ValueError("--tp-plan is for tensor parallelism; leave it out, or add tensor to --parallelism")
    if plan:
        try:
            divided_layers(model, plan)
        except ValueError as error:
            raise ValueError(f"--tp-plan: {error}") from None
    elif not plan_of(model, None):
        if options.parallelism == (TENSOR,):
            raise ValueError(
                "--parallelism tensor: the model has no tensor-parallel plan; give one with --tp-plan, or use "
                "--parallelism fsdp"
            )
        del found[TENSOR]
    return tuple(found[name] for name in options.parallelism if name in found)


def division_notes(chosen: tuple[Division, ...], own: UserModel | None) -> list[str]:
    """Return a line on each division of the user's model, before it is measured."""
    if own is None:
        return []
    lines = []
    for division in chosen:
        if division.parallelism == FSDP:
            found = blocks_in_words(own.skeleton(), division.wrap)
            lines.append(f"fsdp: FSDP2 shards {f'{found}, one by one' if found else 'the model as one block'}")
        else:
            whose = "--tp-plan" if division.tp_plan else "the model"
            lines.append(f"tensor: the plan of {whose} {layers_in_words(own, division)}")
    if chosen and all(division.parallelism == FSDP for division in chosen) and not plan_of(own.skeleton(), None):
        lines.append("tensor: not measured, because the model has no tensor-parallel plan; give one with --tp-plan")
    return lines


def layers_in_words(own: UserModel, division: Division) -> str:
    """Return how many layers a plan divides, or that it cannot be followed, in words."""
    try:
        return f"divides {len(divided_layers(own.skeleton(), division.tp_plan))} layers"
    except ValueError:  # The rows of the table say why.
        return "cannot be followed"
