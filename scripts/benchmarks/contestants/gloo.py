"""All-reduces of so many bytes of float32 among processes; reports the seconds of each."""

import time

import torch
import torch.distributed as dist

from scripts.benchmarks.race import get_ready, given, report


def main() -> None:
    options = given()
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{options.rendezvous}", rank=options.rank,
        world_size=options.world,
    )  # fmt: skip
    tensor = torch.full((options.num_bytes // 4,), 0.5)
    dist.all_reduce(tensor)
    get_ready()
    seconds = []
    for _ in range(options.count):
        dist.barrier()
        started = time.perf_counter()
        dist.all_reduce(tensor)
        seconds.append(time.perf_counter() - started)
        tensor.fill_(0.5)
    report(seconds=seconds)


if __name__ == "__main__":
    main()
