"""How fast fastnorm is against its rivals and the memory limit, beside the project's targets.

    python benchmarks/targets.py                       every job
    python benchmarks/targets.py channels stats        groups of jobs, named as the bench_*.py files
    python benchmarks/targets.py 8x64 minmax           jobs whose name contains one of these words
    python benchmarks/targets.py minmax --rounds 200

Shown are the median ratio and its quartiles over the rounds of a race. A rival much slower than fastnorm takes part
only in every n-th round.
"""

import argparse
import math
import statistics

import exact
import jobs
import peak_memory
import race
import rivals
from libraries import THREADS, set_threads
from race import Contender

NOTABLE_CORES = 0.1
SLOW_SHARE = 8  # a rival slower than this many fastnorm samples sits rounds out

TITLES = {  # the rare ones last, where they widen few rows
    "torch": "times torch",
    "sklearn": "times scikit-learn",
    "numpy": "times numpy",
    "limit": "of the memory limit",
    "plain": "times without relu",
    "float32": "times float32",
    "scipy": "times scipy",
    "memory": "MB beside input and output",
    "cv2": "times OpenCV",
    "albumentations": "times albumentations",
    "best": "times the best way of any rival: which, of whose",
}
COLUMN = 36


def prepare(job, threads):
    """Return the contenders of a job by name, each checked against float64 before it is timed, and who was wrong."""
    ready, wrong = {}, []
    for name in rivals.names(job):
        calls = race.calls(name, job)
        error, right = exact.check(job, calls[0]())
        if not right and name == "fastnorm":
            raise SystemExit(f"{job}: fastnorm is wrong by {error:.3g}")
        if not right:
            wrong.append(f"{name} by {error:.1g}")
        ready[name] = Contender(calls)
    ready |= {name: Contender([call]) for name, call in rivals.yardsticks(job, threads).items()}
    for rival in ready.values():
        rival.every = math.ceil(rival.cost / (SLOW_SHARE * ready["fastnorm"].cost))
    return ready, wrong


def ratio_cell(pairs, target):
    """Format median, quartiles, target and verdict of the rival's time divided by ours."""
    low, middle, high = race.quartiles(pairs)
    cell = f"{middle:6.2f} [{low:.2f}, {high:.2f}]"
    if target:
        cell += f"  >= {target:.3g} {'ok' if middle >= target else 'MISSED'}"
    return cell


def memory_cell(job, threads):
    """Format the memory that the job takes beside input and output; empty where the system does not tell."""
    megabytes, most = peak_memory.measure(job, threads), job.targets["memory"]
    if megabytes is None:
        return ""
    return f"{megabytes:6.1f}  <= {most} {'ok' if megabytes <= most else 'MISSED'}"


def describe_times(pairs):
    medians = {name: statistics.median(theirs for _, theirs in found) for name, found in pairs.items()}
    medians["fastnorm"] = statistics.median(ours for found in pairs.values() for ours, _ in found)
    return ", ".join(f"{name} {ns / 1e3:.4g} us" for name, ns in medians.items())


def select(words):
    """Return the jobs of the groups that are named and those whose name contains one of the other words."""
    named = {job for word in words for job in jobs.GROUPS.get(word, ())}
    others = [word for word in words if word not in jobs.GROUPS]
    return [job for job in jobs.JOBS if not words or job in named or any(word in str(job) for word in others)]


def columns(chosen):
    """Return the columns that some of the jobs fill: names and titles."""
    found = {name for job in chosen for name in rivals.names(job)}
    found |= {"limit" for job in chosen if job.limit} | {"plain" for job in chosen if job.activation}
    found |= {"memory" for job in chosen if "memory" in job.targets}
    return {name: title for name, title in TITLES.items() if name in found}


def row(name, cells, width):
    return (f"{name:{width}}" + "".join(f"{cell:{COLUMN}}" for cell in cells)).rstrip()


def report(job, names, width, args):
    """Time one job and print its row."""
    ready, wrong = prepare(job, args.threads)
    neighbours = race.Neighbours()
    pairs = race.measure(ready, args.rounds, args.seconds)
    busy = neighbours.cores()
    cells = {
        name: f"{ratio_cell(found, job.targets.get(name))}  {ready[name].way}".rstrip() for name, found in pairs.items()
    }
    if "memory" in job.targets:
        cells["memory"] = memory_cell(job, args.threads)
    print(row(str(job), [cells.get(name, "") for name in names], width), flush=True)
    if args.times:
        print("    " + describe_times(pairs))
    if busy > NOTABLE_CORES:
        print(f"    not to be trusted: other programs used {busy:.1f} cores meanwhile")
    if wrong:
        print("    wrong against float64: " + ", ".join(wrong))


def main():
    parser = argparse.ArgumentParser(description="fastnorm's speed beside the project's targets, as ratios.")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="word",
        help=f"only jobs of this group ({', '.join(jobs.GROUPS)}); any other word: only jobs whose name contains it",
    )
    parser.add_argument("--threads", type=int, default=THREADS, help="of every rival (default: %(default)s)")
    parser.add_argument("--rounds", type=int, help="fewest rounds per job (default: what fits --seconds)")
    parser.add_argument("--seconds", type=float, default=3.5, help="time per job (default: %(default)s)")
    parser.add_argument("--times", action="store_true", help="also print median times")
    args = parser.parse_args()
    chosen = select(args.words)
    if not chosen:
        parser.error("no such job; there are: " + ", ".join(map(str, jobs.JOBS)))
    set_threads(args.threads)
    titles, width = columns(chosen), 2 + max(len(str(job)) for job in chosen)
    print(row(f"threads: {args.threads}", titles.values(), width))
    for job in chosen:
        report(job, titles, width, args)


if __name__ == "__main__":
    main()
