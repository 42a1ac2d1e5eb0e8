"""A distillation in a training loop of one's own, sharded over processes with torch's `fully_shard` (FSDP2).

    torchrun --nproc_per_node 2 examples/shard.py TEACHER --output student

Each process holds its shard of student, maps, gradients and optimiser state; the teacher is whole in each. The data are
the support tickets that come along; everything else is as in `layerstill distill`: the objectives of a recipe, one
division for all processes, an ordinary model folder at the end. One stage only.
"""

import argparse
import os
from pathlib import Path

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from transformers import AutoTokenizer, set_seed

from layerstill import Recipe, Task
from layerstill.data.encode import Collator, encode
from layerstill.families import layers_of
from layerstill.students.build import build_student
from layerstill.training.batches import share
from layerstill.training.module import Clock, DistillationModule


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", help="made by layerstill finetune MODEL --task tickets")
    parser.add_argument("--recipe", default="rail-kd-l")
    parser.add_argument("--student-layers", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32, help="of all processes together")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max-steps", type=int, default=None)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()

    torch.distributed.init_process_group()
    rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")
    mesh = torch.distributed.device_mesh.init_device_mesh(device.type, (processes,))
    set_seed(0)  # the same student everywhere
    task = Task.demo()
    teacher = task.head.auto_class.from_pretrained(args.teacher).to(device)
    tokenizer = AutoTokenizer.from_pretrained(args.teacher)
    recipe = Recipe.load(args.recipe)
    if len(recipe.stages) > 1:
        raise SystemExit(f"recipe {args.recipe} has {len(recipe.stages)} stages; this loop trains one")
    stage = recipe.stages[0]
    student = build_student(teacher, args.student_layers, recipe.student, seed=0)
    module = DistillationModule(student, teacher, stage, seed=0, head=task.head).to(device).train()

    data = encode(task.splits["train"], tokenizer, 64, task.head).dataset
    collate = Collator(tokenizer, task.head)
    module.freeze_unreached(on(device, collate([data[i] for i in range(args.batch_size)])))
    torch.manual_seed(rank)  # dropout of its own in each process
    for layer in layers_of(module.student):
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    optimiser = torch.optim.AdamW((p for p in module.parameters() if p.requires_grad), lr=stage.learning_rate)

    steps = args.epochs * (len(data) // args.batch_size)
    module.clock = Clock(epochs=args.epochs, steps=steps)
    for step in range(min(steps, args.max_steps or steps)):
        epoch, place = divmod(step, len(data) // args.batch_size)
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(epoch)).tolist()
        whole = order[place * args.batch_size : (place + 1) * args.batch_size]
        # Losses are divided by what the whole batch holds, so that its split over processes changes nothing.
        own = on(device, collate([data[whole[i]] for i in share(len(whole), processes, rank)]))
        units = module.count_units(own)
        torch.distributed.all_reduce(units)
        loss = module(units=units / processes, **own)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        module.finish_step(epoch)
        torch.distributed.all_reduce(loss := loss.detach() / processes)
        if rank == 0 and step % 10 == 0:
            print(f"step {step} of {steps}: loss {loss:.4f}", flush=True)

    state = get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank == 0:
        plain = build_student(teacher.cpu(), args.student_layers, recipe.student, seed=0)
        weights = {n.removeprefix("student."): w for n, w in state.items() if n.startswith("student.")}
        plain.save_pretrained(args.output, state_dict=weights)
        tokenizer.save_pretrained(args.output)
        print(f"{args.output}: {args.student_layers} layers")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def on(device: torch.device, batch: dict) -> dict:
    """The tensors of a batch on a device."""
    return {name: v.to(device) if isinstance(v, torch.Tensor) else v for name, v in batch.items()}


if __name__ == "__main__":
    main()
