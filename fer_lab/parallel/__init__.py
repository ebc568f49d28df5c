"""Several processes that train one model: starting them on this machine, and the numbers that they share.

`processes` starts them and knows how many there may be. `collectives` has what they compute together: means
over all processes, and BatchNorm over the whole batch.
"""

from fer_lab.parallel.collectives import alone, batchnorm_together, mean_over_processes
from fer_lab.parallel.processes import check_devices, count_devices, launch, stop_with_launcher
