"""``lof optimize`` as a Ray job, with the same options; the cluster is the one that runs the job.

    ray job submit --working-dir pipelines -- python batch.py s3://photos/2024 -o s3://archive/2024 --profile fast
    python pipelines/batch.py photos -o out --ray local --jobs 4

The driver runs on the head node; inputs and outputs are folders that all nodes share, or URLs.
"""

from __future__ import annotations

import sys

from lof.cli import main

if __name__ == "__main__":
    chosen = any(option == "--ray" or option.startswith("--ray=") for option in sys.argv)
    sys.argv[1:1] = ["optimize"] if chosen else ["optimize", "--ray", "auto"]
    main()
