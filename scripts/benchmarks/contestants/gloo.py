"""All-reduces of so many bytes of float32 among processes; reports the seconds of each."""

import argparse
import time

import torch
import torch.distributed as dist

from scripts.benchmarks.race import get_ready, report


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--world", type=int, required=True)
    parser.add_argument("--rendezvous", required=True, help="a new file that all ranks share")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{options.rendezvous}", rank=options.rank,
        world_size=options.world,
    )  # fmt: skip
    tensor = torch.full((options.bytes // 4,), 0.5)
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
