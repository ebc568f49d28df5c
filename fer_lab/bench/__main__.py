"""One measurement of `bench_models` in a process of its own: `python -m fer_lab.bench JOB`, JOB in JSON."""

import json
import sys

import torch

from fer_lab.bench.models import Job, measure
from fer_lab.models.method import register_method

job = json.loads(sys.argv[1])
torch.set_num_threads(job.pop("threads"))
register_method(job["model"], job.pop("code"))
print(json.dumps(measure(Job(**job))))
