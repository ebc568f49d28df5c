"""What this machine can do: the speed and memory of models, of metric losses and of reading faces."""

from fer_lab.bench.data import bench_data
from fer_lab.bench.device import bench_device
from fer_lab.bench.losses import bench_losses
from fer_lab.bench.models import bench_models, dense_peak, random_batch
from fer_lab.bench.onnx import bench_onnx
