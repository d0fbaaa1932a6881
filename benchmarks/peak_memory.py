"""The peak memory of a job beside its input and output, in megabytes, measured in a fresh process.

    python benchmarks/peak_memory.py "StandardScaler.fit 1000000x30" [--threads N]

Linux tells the highest resident size of a process and lets it be reset. A first call on few rows pays for what is
loaded or started once.
"""

import argparse
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jobs
import rivals
from libraries import THREADS, set_threads

FEW_ROWS = 100
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure(job, threads):
    """Run this file for the job; None where the peak cannot be reset."""
    command = [sys.executable, __file__, str(job), "--threads", str(threads)]
    shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    return float(shown) if shown else None


def peak():
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", STATUS.read_text())[1])


def growth(job):
    """Return the bytes by which a call of the job raises the peak, less those of its output."""
    rivals.rival("fastnorm", replace(job, shape=(FEW_ROWS, *job.shape[1:])))()
    call = rivals.rival("fastnorm", job)
    RESET.write_text("5")
    before = peak()
    answer = call()
    grown = peak() - before
    fresh = not (job.op.endswith(".fit") or hasattr(call, "refresh"))
    return grown - (answer.nbytes if fresh else 0)


def main():
    parser = argparse.ArgumentParser(description="fastnorm's peak memory beside input and output, in megabytes.")
    parser.add_argument("job", choices=[str(job) for job in jobs.JOBS if job.estimator], metavar="job")
    parser.add_argument("--threads", type=int, default=THREADS, help="default: %(default)s")
    args = parser.parse_args()
    try:
        RESET.write_text("5")
    except OSError:
        return
    set_threads(args.threads)
    job = next(job for job in jobs.JOBS if str(job) == args.job)
    print(f"{growth(job) / 1e6:.1f}")


if __name__ == "__main__":
    main()
